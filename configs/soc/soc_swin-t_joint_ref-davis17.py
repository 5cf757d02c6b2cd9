# For tools/test.py: a model trained jointly (soc_swin-t_joint.py), tested on Ref-DAVIS17 val without fine-tuning.
_base_ = ['./soc_swin-t_joint.py', '../_base_/datasets/ref_davis17.py']

# The published protocol: clips of 36 frames, predicted independently; per-pixel probabilities where objects overlap.
# (`tools/test.py --out FILE.pkl` would also write the latter: 1 GB.)
model = dict(test_cfg=dict(frames_per_clip=36, output=dict(type='MasksAndLogits')))

val_dataloader = dict(_delete_=True, **_base_.davis_dataloader)
test_dataloader = dict(_delete_=True, **_base_.davis_dataloader)
val_evaluator = dict(_delete_=True, **_base_.davis_evaluator)
test_evaluator = dict(_delete_=True, **_base_.davis_evaluator)
