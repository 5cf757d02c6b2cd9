# A small SOC from scratch on MovingShapes, for tools/quickstart.sh and experiments without a GPU.
_base_ = [
    '../_base_/models/soc_tiny.py',
    '../_base_/datasets/moving_shapes.py',
    '../_base_/default_runtime.py',
]

# Knobs
backbone_weights = None  # checkpoint of configs/pretrain/video-swin-mini_moving-shapes.py; None: random weights
max_epochs = 40  # the first 36 on single frames (_base_/datasets/moving_shapes.py)
lr = 7e-4  # for a batch of 8

vocab_size = 3000  # at this size no two of the set's words that matter share an id ("grows" and "whose" do)
_deformable = dict(num_heads=4, num_points=2)

model = dict(
    backbone=dict(
        pretrained=backbone_weights,
        arch=dict(num_heads=[1, 2, 4, 8]),
        # 4 x 4 divides these images where 7 x 7 would pad 16 x 24 cells to 21 x 28. A video is one window of time.
        window_size=(4, 4, 4),
        patch_embed=dict(type='ConvPatchEmbed', embed_dims=32),
        # Swin's initial deviation of 0.02 is for hundreds of channels: with 32, blocks would initially do almost nothing.
        init_cfg=[
            dict(type='Xavier', layer='Linear', distribution='uniform'),
            dict(type='Constant', layer='LayerNorm', val=1., bias=0.)
        ]),
    text_encoder=dict(
        tokenizer=dict(vocab_size=vocab_size),
        # Short sentences of few words: one layer, no dropout.
        config=dict(
            vocab_size=vocab_size, num_hidden_layers=1, hidden_dropout_prob=0., attention_probs_dropout_prob=0.),
        dropout=0.),
    sim=dict(
        encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=_deformable)),
        decoder=dict(layer_cfg=dict(cross_attn_cfg=_deformable))),
    # Nothing here is pre-trained on images and sentences: these heads supervise the fusion directly.
    auxiliary_heads=[
        dict(type='FusionMaskHead', embed_dims=128),
        dict(type='CategoryMapHead', embed_dims=128, num_classes=len(_base_.categories), loss_weight=3.),
    ])

# Only the last stage's checkpoints compete: before it, sentences about change and order were never seen.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_begin=_base_.image_epochs + 1, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='FusedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=lr, weight_decay=1e-4),
    clip_grad=dict(max_norm=1., norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=200),
    # Linear: a cosine would leave little for the videos.
    dict(type='PolyLR', power=1., by_epoch=True, begin=0, end=max_epochs, eta_min=0., convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=1))
custom_hooks = [*_base_.custom_hooks, _base_.video_switch]
