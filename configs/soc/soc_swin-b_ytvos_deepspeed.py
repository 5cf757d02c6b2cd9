# UNTESTED: DeepSpeed (ZeRO-2) through MMEngine. It was never run: needs GPUs and `pip install deepspeed`.
_base_ = './soc_swin-b_ytvos.py'

runner_type = 'FlexibleRunner'
strategy = dict(
    type='DeepSpeedStrategy',
    gradient_clipping=0.1,
    zero_optimization=dict(stage=2, overlap_comm=True, contiguous_gradients=True, reduce_bucket_size=1e7))
optim_wrapper = dict(
    _delete_=True,
    type='DeepSpeedOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=_base_.optim_wrapper.paramwise_cfg)
