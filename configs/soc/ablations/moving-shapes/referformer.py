# ReferFormer in place of SOC.
_base_ = ['./base.py', '../../../_base_/models/referformer_criterion.py']

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
    criterion=_base_.referformer_criterion)
