# Ref-YouTube-VOS as ReferFormer reads it: five frames, near and far, with its augmentation. In a prediction the longer side has no
# limit.
_base_ = ['./ref_youtube_vos.py', './referformer_augmentation.py']

# Knobs
num_frames = 5
test_scale = (10000, 360)

train_dataloader = dict(dataset=dict(
    clip_sampler=dict(_delete_=True, type='SparseClipSampler', num_frames=num_frames),
    pipeline=[
        *_base_.train_pipeline[:2],
        *_base_.referformer_augmentation,
        *_base_.train_pipeline[3:],
    ]))
test_dataloader = dict(dataset=dict(pipeline=[
    _base_.test_pipeline[0],
    dict(type='ForEachFrame', transforms=[dict(type='ShortSideResize', scale=test_scale)]),
    *_base_.test_pipeline[2:],
]))
