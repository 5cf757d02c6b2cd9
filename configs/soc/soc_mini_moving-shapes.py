# soc-mini: the small SOC from a backbone that knows shapes and events (configs/pretrain/video-swin-mini_moving-shapes_events.py),
# on whole videos with all sentences. The cluster knows which frame a query is from; the paper's does not.
#   python tools/dataset_converters/moving_shapes.py --out data/moving-shapes --train-videos 38400
#   python tools/train.py configs/soc/soc_mini_moving-shapes.py --cfg-options model.backbone.pretrained=BACKBONE
_base_ = ['./soc_tiny_moving-shapes.py']

# Knobs
max_epochs = 200
lr = 5e-4  # for a batch of 4
frame_position = True

model = dict(
    backbone=dict(patch_embed=dict(temporal_channels=64)),
    sim=dict(cluster=dict(frame_position=frame_position)),
    auxiliary_heads=[
        dict(type='FusionMaskHead', embed_dims=128),
        dict(
            type='CategoryMapHead',
            embed_dims=128,
            num_classes=dict(category=len(_base_.categories), event=len(_base_.events)),
            loss_weight=3.),
    ])
train_dataloader = dict(
    sampler=dict(family_starts=dict(appearance=0, relation=0, change=0, order=0)),
    dataset=dict(pipeline=[
        *_base_.video_pipeline[:2],
        dict(type='LoadCategoryMaps', classes=_base_.categories, events=_base_.events),
        _base_.video_pipeline[-1],
    ]))
train_cfg = dict(max_epochs=max_epochs, val_begin=5, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=200),
    # Constant, then a fifth of the epochs down to 0: a checkpoint of the constant part can be trained further.
    dict(type='PolyLR', power=1., by_epoch=True, begin=max_epochs * 4 // 5, end=max_epochs, eta_min=0., convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=4)
custom_hooks = _base_.custom_hooks[:-1]  # no switch: there are no single images
