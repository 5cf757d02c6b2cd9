# SANITY OVERFIT, not a benchmark: as soc_tiny_ref-davis17-mini.py, on seven sequences of Ref-DAVIS17 (411 frames, 28 sentences) in the
# same layout. To compare one query for a whole video with one for each frame:
#   --cfg-options model.test_cfg.frames_per_clip=None model.test_cfg.selector.type=QueryPerFrame, or QueryPerVideo
_base_ = './soc_tiny_ref-davis17-mini.py'

# Knobs
data_root = '{{$MMSOC_DATA:data}}/ref-davis17-seven'
max_epochs = 12

_data = dict(data_root=data_root, expected_videos=7)
train_dataloader = dict(dataset=_data)
val_dataloader = dict(dataset=_data)
test_dataloader = dict(dataset=_data)
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=60),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[8, 10], gamma=0.3),
]
