# SANITY OVERFIT, not a benchmark: a small SOC is trained on two real Ref-DAVIS17 sequences (90 frames, 8 sentences) and tested on
# the same two. It shows that the whole pipeline from frames to J&F works and learns; about 15 minutes on two CPU cores.
_base_ = [
    '../../_base_/models/soc_tiny.py',
    '../../_base_/datasets/ref_davis17_mini_sanity.py',
    '../../_base_/default_runtime.py',
]

# Knobs
max_epochs = 24
lr = 4e-4

# Ref-DAVIS17 is tested in clips, by the published protocol of 36 frames; here not much longer than the training clips.
model = dict(test_cfg=dict(frames_per_clip=8))

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=6)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='FusedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=lr, weight_decay=1e-4),
    clip_grad=dict(max_norm=1., norm_type=2))  # from scratch: 0.1, the value for pre-trained weights, would take much longer
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=60),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[16, 21], gamma=0.3),
]
auto_scale_lr = dict(enable=False, base_batch_size=2)

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=2))
