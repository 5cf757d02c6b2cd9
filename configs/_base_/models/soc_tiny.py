# A small SOC: every component of the full network, sizes that two CPU cores can train, nothing to download.
_base_ = './soc_swin-t.py'

# Knobs
num_queries = 8
vocab_size = 2048  # ids of the hashing tokenizer

_attention = dict(embed_dims=128, dropout=0.)
_ffn = dict(embed_dims=128, feedforward_channels=256, ffn_drop=0.)
_encoder = dict(num_layers=2, layer_cfg=dict(self_attn_cfg=_attention, ffn_cfg=_ffn))
_decoder = dict(num_layers=2, layer_cfg=dict(self_attn_cfg=_attention, cross_attn_cfg=_attention, ffn_cfg=_ffn))
_gate = dict(embed_dims=128)

model = dict(
    backbone=dict(
        _delete_=True,  # `arch` is a name in the base
        type='VideoSwin',
        arch=dict(embed_dims=32, depths=[2, 2, 2, 2], num_heads=[2, 4, 8, 16]),
        window_size=(4, 7, 7),  # no longer than the training clips: further offsets in time would never be trained
        drop_path_rate=0.),  # from scratch on few videos: nothing to regularise
    neck=dict(in_channels=[64, 128, 256], out_channels=128, norm_cfg=dict(num_groups=16)),
    positional_encoding=dict(num_feats=64),
    text_encoder=dict(
        pretrained=None,
        frozen=False,
        tokenizer=dict(type='HashTokenizer', vocab_size=vocab_size),
        config=dict(
            vocab_size=vocab_size, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256,
            max_position_embeddings=66),
        out_channels=128),
    fusion=dict(l2v=_gate, v2l=_gate),
    sim=dict(
        embed_dims=128,
        num_queries=num_queries,
        encoder=_encoder,
        decoder=_decoder,
        cluster=dict(embed_dims=128, num_queries=num_queries, encoder=_encoder, decoder=_decoder)),
    head=dict(
        embed_dims=128,
        num_layers=2,
        pixel_decoder=dict(in_channels=128, fine_channels=32, channels=(128, 64, 64, 32, 32))))
