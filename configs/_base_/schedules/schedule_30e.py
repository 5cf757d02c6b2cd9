# SOC's schedule for training from Kinetics weights: 30 epochs, one drop after epoch 20, no warm-up.
max_epochs = 30
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[20], gamma=0.1),
]

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='FusedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    # The backbone is pre-trained and moves slower. RoBERTa, or BERT in its place, is frozen by the model; where a config
    # trains it, its rate is a twentieth (5e-6). Its resizer is new and learns at the full rate.
    paramwise_cfg=dict(custom_keys={
        'backbone': dict(lr_mult=0.1),
        'text_encoder.roberta': dict(lr_mult=0.05),
        'text_encoder.bert': dict(lr_mult=0.05)}),
    # The norm over all parameters; 0.1 as in Deformable DETR, from which the encoder and decoder are.
    clip_grad=dict(max_norm=0.1, norm_type=2))

# The rates are for one clip on each of 8 GPUs. Off unless `--auto-scale-lr` is given.
auto_scale_lr = dict(enable=False, base_batch_size=8)
