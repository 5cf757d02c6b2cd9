# ReferFormer in place of SOC.
_base_ = './base.py'

_attention = dict(embed_dims=128, num_heads=8, dropout=0., batch_first=True)

model = dict(
    fusion=dict(v2l=dict(_delete_=True, type='PassThrough')),
    sim=dict(query_content=dict(type='SentenceContent'), cluster=dict(_delete_=True, type='NoCluster')),
    head=dict(
        num_cls_fcs=1,
        mask_channels=128,
        kernel_std=None,
        pixel_decoder=dict(
            _delete_=True,
            type='CrossModalFPN',
            in_channels=128,
            fine_channels=32,
            channels=128,
            positional_encoding=dict(type='mmdet.SinePositionalEncoding', num_feats=64, normalize=True, offset=-0.5),
            layer_cfg=dict(
                self_attn_cfg=_attention,
                cross_attn_cfg=_attention,
                ffn_cfg=dict(embed_dims=128, feedforward_channels=256, ffn_drop=0.)))),
    criterion=dict(
        type='ReferFormerCriterion',
        assigner=dict(
            match_costs=[
                dict(type='ClipFocalCost', weight=2.),
                dict(type='ClipBoxL1Cost', weight=5.),
                dict(type='ClipGIoUCost', weight=2.),
                dict(type='WholeClipFocalCost', weight=2.),
                dict(type='WholeClipDiceCost', weight=5.),
            ]),
        loss_mask=dict(loss_weight=2.),
        loss_dice=dict(loss_weight=5.),
        loss_bbox=dict(loss_weight=5.),
        loss_contrastive=None))
