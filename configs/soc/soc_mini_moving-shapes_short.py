# soc-mini in a quarter of an hour: its backbone, neck and text encoder, and the rest from random weights. For tools/quickstart.sh.
_base_ = ['./soc_mini_moving-shapes.py']

# Knobs
max_epochs = 30
image_epochs = 18
batch_size = 4  # per process, of two
load_from = 'soc-mini'

train_dataloader = dict(
    batch_size=batch_size,
    sampler=dict(family_starts=dict(relation=6, change=image_epochs, order=image_epochs)))
train_cfg = dict(max_epochs=max_epochs, val_begin=image_epochs + 1, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=200),
    dict(type='PolyLR', power=1., by_epoch=True, begin=0, end=max_epochs, eta_min=0., convert_to_iter_based=True),
]
custom_hooks = [
    *_base_.custom_hooks[:-2],
    dict(
        type='StartingPointHook',
        wanted='a checkpoint with backbone, neck, text encoder and the first auxiliary head',
        from_scratch=[r'^(neck\.extra_convs|fusion|sim|head|auxiliary_heads\.1)\.']),
    {**_base_.custom_hooks[-1], 'switch_epoch': image_epochs},
]
