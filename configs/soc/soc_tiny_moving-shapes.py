# A small SOC from scratch on MovingShapes: what tools/quickstart.sh trains, and the instrument for experiments without a GPU.
_base_ = [
    '../_base_/models/soc_tiny.py',
    '../_base_/datasets/moving_shapes.py',
    '../_base_/default_runtime.py',
]

# Knobs
max_epochs = 14
lr = 5e-4  # for a batch of 4

vocab_size = 3000  # at this size no two of the set's words that matter share an id ("grows" and "whose" do)

model = dict(
    backbone=dict(window_size=(6, 7, 7)),  # a whole video in one window of time
    text_encoder=dict(tokenizer=dict(vocab_size=vocab_size), config=dict(vocab_size=vocab_size)))

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=lr, weight_decay=1e-4),
    clip_grad=dict(max_norm=1., norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, T_max=max_epochs, eta_min_ratio=0.01,
         convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=4)

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=1))
