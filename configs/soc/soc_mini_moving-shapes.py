# soc-mini: the small SOC from a backbone that knows shapes and events (configs/pretrain/video-swin-mini_moving-shapes_events.py).
# The cluster knows which frame a query is from; the paper's does not.
#   python tools/dataset_converters/moving_shapes.py --out data/moving-shapes --train-videos 38400
#   python tools/train.py configs/soc/soc_mini_moving-shapes.py --cfg-options load_from=PRETRAINED
_base_ = ['./soc_tiny_moving-shapes.py']

# Knobs
max_epochs = 80
image_epochs = 30  # single frames, before the videos
batch_size = 8  # one process
lr = 7e-4
frame_position = True
scale = (96, 64)  # larger videos are scaled down to what it was trained on

_maps = dict(type='LoadCategoryMaps', classes=_base_.categories, events=_base_.events)
image_pipeline = [_maps if step.type == _maps['type'] else step for step in _base_.image_pipeline]
video_pipeline = [_maps if step.type == _maps['type'] else step for step in _base_.video_pipeline]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='ForEachFrame', transforms=[dict(type='ShortSideResize', scale=scale)]),
    _base_.test_pipeline[1],
]

model = dict(
    backbone=dict(patch_embed=dict(temporal_channels=64)),
    sim=dict(cluster=dict(frame_position=frame_position)),
    # At stride 4 an object of these images has too few cells for its corners.
    head=dict(mask_stride=2, pixel_decoder=dict(type='SubPixelDecoder')),
    # The first is that of the pre-training, with its weights.
    auxiliary_heads=[
        dict(
            type='CategoryMapHead',
            embed_dims=128,
            num_classes=dict(category=len(_base_.categories), event=len(_base_.events)),
            loss_weight=3.),
        dict(type='FusionMaskHead', embed_dims=128),
    ])
train_dataloader = dict(
    batch_size=batch_size,
    sampler=dict(family_starts=dict(appearance=0, relation=10, change=image_epochs, order=image_epochs)),
    dataset=dict(pipeline=image_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
train_cfg = dict(max_epochs=max_epochs, val_begin=image_epochs, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=200),
    # Constant, then a fifth of the epochs down to 0: a checkpoint of the constant part can be trained further.
    dict(type='PolyLR', power=1., by_epoch=True, begin=max_epochs * 4 // 5, end=max_epochs, eta_min=0., convert_to_iter_based=True),
]
custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(
        type='StartingPointHook',
        wanted='the checkpoint of configs/pretrain/video-swin-mini_moving-shapes_events.py',
        from_scratch=[r'^(text_encoder|neck\.extra_convs|fusion|sim|head|auxiliary_heads\.1)\.']),
    dict(type='mmdet.PipelineSwitchHook', switch_epoch=image_epochs, switch_pipeline=video_pipeline),
]
