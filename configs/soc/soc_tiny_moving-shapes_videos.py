# A longer last stage of soc_tiny_moving-shapes.py, from its checkpoint: whole videos only, for change and order.
#   --cfg-options load_from=CHECKPOINT
_base_ = ['./soc_tiny_moving-shapes.py']

# Knobs
max_epochs = 56  # 70 minutes with one thread
lr = 5e-4  # for a batch of 8: two processes, or one with train_dataloader.batch_size=8

train_dataloader = dict(
    sampler=dict(family_starts=dict(appearance=0, relation=0, change=0, order=20)),
    dataset=dict(pipeline=_base_.video_pipeline))
train_cfg = dict(max_epochs=max_epochs, val_begin=40, val_interval=4)
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', power=1., by_epoch=True, begin=0, end=max_epochs, eta_min=0., convert_to_iter_based=True),
]
custom_hooks = _base_.custom_hooks[:-1]  # no switch: there are no single frames
