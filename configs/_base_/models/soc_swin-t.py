# SOC with Video-Swin-T and RoBERTa-base: the network of the paper's Figure 2.
# The paper's values where it states one, the released implementation's where the paper is silent (docs/paper_vs_released.md).

# Knobs
# A hub name; a local folder in its place: --cfg-options model.text_encoder.pretrained=FOLDER
text_encoder = 'roberta-base'
# Kinetics-400; downloaded once (python tools/weights.py list). A local file: --cfg-options model.backbone.pretrained=FILE
# None: from scratch
video_swin_weights = 'video-swin-t'
# Recompute the backbone's blocks in the backward pass (docs/benchmarks.md): --cfg-options model.backbone.with_cp=True
with_cp = False
num_queries = 20  # per frame and per video (paper section 4.2)
num_classes = 1  # class logits; 1 is "referred or not"

model = dict(
    type='SOC',
    data_preprocessor=dict(
        type='ClipDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=False,  # frames are loaded as RGB
        pad_mask=True,
        pad_size_divisor=1),  # padding to 32 would change the published numbers
    backbone=dict(type='VideoSwin', arch='tiny', pretrained=video_swin_weights, drop_path_rate=0.2, with_cp=with_cp),
    neck=dict(
        type='mmdet.ChannelMapper',
        in_channels=[192, 384, 768],
        kernel_size=1,
        out_channels=256,
        bias=True,
        act_cfg=None,
        norm_cfg=dict(type='GN', num_groups=32),
        num_outs=4),
    positional_encoding=dict(type='mmdet.SinePositionalEncoding', num_feats=128, normalize=True, offset=-0.5),
    text_encoder=dict(type='RobertaTextEncoder', pretrained=text_encoder, out_channels=256, dropout=0.1, frozen=True),
    fusion=dict(
        type='MMF',
        l2v=dict(type='CrossAttentionGate', embed_dims=256, num_heads=8),
        v2l=dict(type='CrossAttentionGate', embed_dims=256, num_heads=8)),
    sim=dict(
        type='SIM',
        embed_dims=256,
        num_queries=num_queries,
        encoder=dict(
            type='DeformableDetrTransformerEncoder',
            num_layers=3,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=256, num_heads=8, num_levels=4, num_points=4, dropout=0.1, batch_first=True),
                ffn_cfg=dict(embed_dims=256, feedforward_channels=2048, ffn_drop=0.1))),
        decoder=dict(
            type='DeformableDetrTransformerDecoder',
            num_layers=3,
            return_intermediate=True,
            post_norm_cfg=None,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.1, batch_first=True),
                cross_attn_cfg=dict(embed_dims=256, num_heads=8, num_levels=4, num_points=4, dropout=0.1, batch_first=True),
                ffn_cfg=dict(embed_dims=256, feedforward_channels=2048, ffn_drop=0.1))),
        cluster=dict(
            type='VideoObjectCluster',
            embed_dims=256,
            num_queries=num_queries,
            encoder=dict(
                type='DetrTransformerEncoder',
                num_layers=3,
                layer_cfg=dict(
                    self_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.1, batch_first=True),
                    ffn_cfg=dict(embed_dims=256, feedforward_channels=2048, ffn_drop=0.1))),
            decoder=dict(
                type='Mask2FormerTransformerDecoder',
                num_layers=3,
                return_intermediate=False,
                layer_cfg=dict(
                    self_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.1, batch_first=True),
                    cross_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.1, batch_first=True),
                    ffn_cfg=dict(embed_dims=256, feedforward_channels=2048, ffn_drop=0.1))))),
    head=dict(
        type='DynamicMaskHead',
        embed_dims=256,
        num_classes=num_classes,
        num_layers=3,
        num_cls_fcs=3,  # paper section 3.5
        pixel_decoder=dict(
            type='FPNPixelDecoder', in_channels=256, fine_channels=96, channels=(256, 128, 64, 32, 16), out_channels=8)),
    criterion=dict(
        type='ClipCriterion',
        # The paper is silent on the costs: the released implementation's.
        assigner=dict(
            type='ClipAssigner',
            match_costs=[
                dict(type='ClipFocalCost', weight=2.),
                dict(type='ClipDiceCost', weight=5.),
                dict(type='ClipBoxL1Cost', weight=2.),
                dict(type='ClipGIoUCost', weight=2.),
            ]),
        # Weights: paper section 4.2.
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2., alpha=0.25, loss_weight=2.),
        loss_mask=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2., alpha=0.25, loss_weight=5.),
        loss_dice=dict(type='mmdet.DiceLoss', use_sigmoid=True, naive_dice=True, eps=1., loss_weight=2.),
        loss_bbox=dict(type='mmdet.L1Loss', loss_weight=2.),
        loss_iou=dict(type='GIoULoss', loss_weight=2.),
        loss_contrastive=dict(type='VLContrastiveLoss', dim_exponent=0.5, loss_weight=1.)),
    # The other fields of mmsoc.inference.PredictionConfig keep their defaults.
    test_cfg=dict(
        predict_layer=-1,
        selector=dict(type='QueryByLength'),
        output=dict(type='ThresholdedMasks', mask_threshold=0.5)))
