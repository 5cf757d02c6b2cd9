# A small SOC: every component of the full network, sizes that two CPU cores can train, nothing to download.

# Knobs
num_queries = 8
num_classes = 1
vocab_size = 2048  # ids of the hashing tokenizer

model = dict(
    type='SOC',
    data_preprocessor=dict(
        type='mmdet.TrackDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=False,
        pad_mask=True,
        pad_size_divisor=1),
    backbone=dict(
        type='VideoSwin',
        arch=dict(embed_dims=32, depths=[2, 2, 2, 2], num_heads=[2, 4, 8, 16]),
        window_size=(8, 7, 7),
        drop_path_rate=0.),  # from scratch on few videos: nothing to regularise
    neck=dict(
        type='mmdet.ChannelMapper',
        in_channels=[64, 128, 256],
        kernel_size=1,
        out_channels=128,
        bias=True,
        act_cfg=None,
        norm_cfg=dict(type='GN', num_groups=16),
        num_outs=4),
    positional_encoding=dict(type='mmdet.SinePositionalEncoding', num_feats=64, normalize=True, offset=-0.5),
    text_encoder=dict(
        type='RobertaTextEncoder',
        pretrained=None,
        frozen=False,
        tokenizer=dict(type='HashTokenizer', vocab_size=vocab_size),
        config=dict(
            vocab_size=vocab_size, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256,
            max_position_embeddings=66),
        out_channels=128),
    fusion=dict(
        type='MMF',
        l2v=dict(type='CrossAttentionGate', embed_dims=128, num_heads=8),
        v2l=dict(type='CrossAttentionGate', embed_dims=128, num_heads=8)),
    sim=dict(
        type='SIM',
        embed_dims=128,
        num_queries=num_queries,
        encoder=dict(
            type='DeformableDetrTransformerEncoder',
            num_layers=2,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=128, num_heads=8, num_levels=4, num_points=4, dropout=0., batch_first=True),
                ffn_cfg=dict(embed_dims=128, feedforward_channels=256, ffn_drop=0.))),
        decoder=dict(
            type='DeformableDetrTransformerDecoder',
            num_layers=2,
            return_intermediate=True,
            post_norm_cfg=None,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=128, num_heads=8, dropout=0., batch_first=True),
                cross_attn_cfg=dict(embed_dims=128, num_heads=8, num_levels=4, num_points=4, dropout=0., batch_first=True),
                ffn_cfg=dict(embed_dims=128, feedforward_channels=256, ffn_drop=0.))),
        cluster=dict(
            type='VideoObjectCluster',
            embed_dims=128,
            num_queries=num_queries,
            encoder=dict(
                type='DetrTransformerEncoder',
                num_layers=2,
                layer_cfg=dict(
                    self_attn_cfg=dict(embed_dims=128, num_heads=8, dropout=0., batch_first=True),
                    ffn_cfg=dict(embed_dims=128, feedforward_channels=256, ffn_drop=0.))),
            decoder=dict(
                type='Mask2FormerTransformerDecoder',
                num_layers=2,
                return_intermediate=False,
                layer_cfg=dict(
                    self_attn_cfg=dict(embed_dims=128, num_heads=8, dropout=0., batch_first=True),
                    cross_attn_cfg=dict(embed_dims=128, num_heads=8, dropout=0., batch_first=True),
                    ffn_cfg=dict(embed_dims=128, feedforward_channels=256, ffn_drop=0.))))),
    head=dict(
        type='DynamicMaskHead',
        embed_dims=128,
        num_classes=num_classes,
        num_layers=2,
        num_cls_fcs=3,
        pixel_decoder=dict(
            type='FPNPixelDecoder', in_channels=128, fine_channels=32, channels=(128, 64, 64, 32, 32), out_channels=8)),
    criterion=dict(
        type='ClipCriterion',
        assigner=dict(
            type='mmdet.HungarianAssigner',
            match_costs=[
                dict(type='ClipCost', visible_only=True, cost=dict(type='mmdet.FocalLossCost', weight=2., eps=1e-8)),
                dict(type='ClipCost', cost=dict(type='mmdet.DiceCost', weight=5., pred_act=True, eps=1.)),
                dict(type='ClipCost', cost=dict(type='mmdet.BBoxL1Cost', weight=2., box_format='xywh')),
                dict(type='ClipCost', cost=dict(type='mmdet.IoUCost', weight=2., iou_mode='giou')),
            ]),
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2., alpha=0.25, loss_weight=2.),
        loss_mask=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2., alpha=0.25, loss_weight=5.),
        loss_dice=dict(type='mmdet.DiceLoss', use_sigmoid=True, naive_dice=True, eps=1., loss_weight=2.),
        loss_bbox=dict(type='mmdet.L1Loss', loss_weight=2.),
        loss_iou=dict(type='mmdet.GIoULoss', loss_weight=2.),
        loss_contrastive=dict(type='VLContrastiveLoss', dim_exponent=0.5, loss_weight=1.)),
    test_cfg=dict(predict_layer=-1))
