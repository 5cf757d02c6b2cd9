# ReferFormer (Wu et al., CVPR 2022) with Video-Swin-T and RoBERTa-base, from SOC's parts: the differences are below.
_base_ = ['./soc_swin-t.py', './referformer_criterion.py']

# Knobs
num_queries = 5  # per frame
num_layers = 4  # of encoder and decoder
_layers = dict(num_layers=num_layers)

model = dict(
    # Training pads to multiples of 32; predictions of whole videos are not padded.
    data_preprocessor=dict(pad_size_divisor=32, test_pad_size_divisor=1),
    fusion=dict(v2l=dict(_delete_=True, type='PassThrough')),
    sim=dict(
        num_queries=num_queries,
        query_content=dict(type='SentenceContent'),
        encoder=_layers,
        decoder=_layers,
        cluster=dict(_delete_=True, type='NoCluster')),
    head=dict(
        num_layers=num_layers,
        num_cls_fcs=1,
        mask_channels=256,
        kernel_std=None,
        pixel_decoder=dict(
            _delete_=True,
            type='CrossModalFPN',
            positional_encoding=dict(type='mmdet.SinePositionalEncoding', num_feats=128, normalize=True, offset=-0.5),
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.1, batch_first=True),
                cross_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.1, batch_first=True),
                ffn_cfg=dict(embed_dims=256, feedforward_channels=2048, ffn_drop=0.1)))),
    criterion=_base_.referformer_criterion)
