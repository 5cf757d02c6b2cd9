# ReferFormer's schedule from Kinetics weights: 10 epochs, drops after 6 and 8, no warm-up.
max_epochs = 10
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[6, 8], gamma=0.1),
]

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='FusedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=5e-4),
    # Where a config trains the text encoder, its rate is 1e-5.
    paramwise_cfg=dict(custom_keys={
        'backbone': dict(lr_mult=0.5),
        'text_encoder': dict(lr_mult=0.1)}),
    clip_grad=dict(max_norm=0.1, norm_type=2))

# The rates are for one clip on each of 8 GPUs. Off unless `--auto-scale-lr` is given.
auto_scale_lr = dict(enable=False, base_batch_size=8)
