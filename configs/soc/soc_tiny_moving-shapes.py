# A small SOC from scratch on MovingShapes: what tools/quickstart.sh trains, and the instrument for experiments without a GPU.
_base_ = [
    '../_base_/models/soc_tiny.py',
    '../_base_/datasets/moving_shapes.py',
    '../_base_/default_runtime.py',
]

# Knobs
max_epochs = 18  # the first 12 on single frames (_base_/datasets/moving_shapes.py)
lr = 7e-4  # for a batch of 8

vocab_size = 3000  # at this size no two of the set's words that matter share an id ("grows" and "whose" do)
_deformable = dict(num_heads=4)

model = dict(
    # 4 x 4 divides these pictures where 7 x 7 would pad 16 x 24 cells to 21 x 28.  A video is one window of time.
    backbone=dict(window_size=(4, 4, 4), arch=dict(num_heads=[1, 2, 4, 8])),
    text_encoder=dict(
        tokenizer=dict(vocab_size=vocab_size),
        # Short sentences of few words: one layer, no drop-out.
        config=dict(
            vocab_size=vocab_size, num_hidden_layers=1, hidden_dropout_prob=0., attention_probs_dropout_prob=0.),
        dropout=0.),
    sim=dict(
        encoder=dict(layer_cfg=dict(self_attn_cfg=_deformable)),
        decoder=dict(layer_cfg=dict(cross_attn_cfg=_deformable))))

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=lr, weight_decay=1e-4),
    clip_grad=dict(max_norm=1., norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=400),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, T_max=max_epochs, eta_min_ratio=0.01,
         convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=1))
custom_hooks = [*_base_.custom_hooks, _base_.video_switch]
