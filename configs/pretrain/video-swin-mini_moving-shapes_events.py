# The backbone of soc_mini_moving-shapes.py learns what objects are and what they do, from whole videos: what Kinetics-400, with its
# actions, is to the paper's. Only sentences about change and order name an event.
_base_ = ['./video-swin-mini_moving-shapes.py']

# Knobs
max_epochs = 24
epoch_size = 1600
batch_size = 8  # one process
lr = 2e-3

model = dict(
    # Without it, the direction of a change is not learned (docs/moving_shapes.md).
    backbone=dict(patch_embed=dict(temporal_channels=64)),
    head=dict(
        _delete_=True,
        type='CategoryMapHead',
        embed_dims=128,
        num_classes=dict(category=len(_base_.categories), event=len(_base_.events))))
train_dataloader = dict(
    batch_size=batch_size,
    sampler=dict(
        epoch_size=epoch_size,
        family_starts=dict(_delete_=True, appearance=max_epochs, relation=max_epochs, change=0, order=0)),
    dataset=dict(sentences_per_clip=2, pipeline=[
        *_base_.video_pipeline[:2],
        dict(type='LoadCategoryMaps', classes=_base_.categories, events=_base_.events),
        _base_.video_pipeline[-1],
    ]))
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', power=1., by_epoch=True, begin=0, end=max_epochs, eta_min=0., convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=8)
