"""Weights of the released SOC implementation: other names, the same values and shapes."""

from collections.abc import Iterable, Iterator

from . import layout
from .layout import StateDictAdapter, Weight


class ReleasedStateDictAdapter(StateDictAdapter):
    """Converts the state dict of the released SOC to that of a model of ``configs/soc/released/``, and back::

        released = read_checkpoint('released.pth', weights_key='model_state_dict')['model_state_dict']
        weights = ReleasedStateDictAdapter().to_mmsoc(released)

    Args:
        strict: see `StateDictAdapter`.
    """

    released_name = 'SOC'
    configs = 'configs/soc/released/'

    @classmethod
    def layout(cls, names: Iterable[str], side: str, strict: bool = True) -> Iterator[Weight]:
        """All weights of the network.

        Letters: C channels, N queries, K classes; E channels of Video Swin's first stage; D channels of RoBERTa.

        Args:
            names: determine the numbers of blocks and layers.
            side: ``released`` or ``mmsoc``: the naming scheme of ``names``.
            strict: all parts but Video Swin and RoBERTa have three layers.
        """
        names = list(names)
        yield from layout.backbone(layout.backbone_blocks(names, side))
        yield from layout.neck()
        yield from layout.text_encoder(layout.text_layers(names, side), 'txt_proj')
        yield from layout.attention('vlf.multihead_attn', 'fusion.l2v.attn')
        yield from layout.attention('lvf.multihead_attn', 'fusion.v2l.attn')

        def layers(released: str, mmsoc: str) -> int:
            return 3 if strict else layout.count(names, released if side == 'released' else mmsoc)

        # Names beyond the network's own do no harm where nothing is checked.
        encoder, decoder = 'sim.encoder.layers', 'sim.decoder.layers'
        yield from layout.frame_level(
            max(layers('transformer.encoder.layers', encoder), layers('transformer.decoder.layers', decoder))
        )
        encoder, decoder = 'sim.cluster.encoder.layers', 'sim.cluster.decoder.layers'
        yield from _cluster(max(layers('voc.enc_ffn', encoder), layers('voc.transformer_ffn_layers', decoder)))
        yield from layout.heads(layers('class_embed', 'head.cls_branches'))
        yield from _pixel_decoder()


def _cluster(num_layers: int) -> Iterator[Weight]:
    encoder, decoder = 'sim.cluster.encoder.layers', 'sim.cluster.decoder.layers'
    yield Weight('voc.query_embed.weight', 'sim.cluster.query_pos.weight', ('VideoQueries', 'C'))
    yield Weight('voc.fq_pos.weight', 'sim.cluster.frame_query_pos.weight', ('N', 'C'))
    for layer in range(num_layers):
        for theirs, inner, ours, kind, norm in (
            ('enc_self_attn', 'self_attn', encoder, 'self_attn', 0),
            ('transformer_cross_attention_layers', 'multihead_attn', decoder, 'cross_attn', 0),
            ('transformer_self_attention_layers', 'self_attn', decoder, 'self_attn', 1),
        ):
            yield from layout.attention(f'voc.{theirs}.{layer}.{inner}', f'{ours}.{layer}.{kind}.attn')
            yield from layout.norms(f'voc.{theirs}.{layer}', f'{ours}.{layer}', {'norm': norm})
        for theirs, ours, norm in (('enc_ffn', encoder, 1), ('transformer_ffn_layers', decoder, 2)):
            yield from layout.feed_forward(f'voc.{theirs}.{layer}', f'{ours}.{layer}', 'ClusterHidden')
            yield from layout.norms(f'voc.{theirs}.{layer}', f'{ours}.{layer}', {'norm': norm})
    yield from layout.norm('voc.decoder_norm', 'sim.cluster.decoder.post_norm', 'C')


def _pixel_decoder() -> Iterator[Weight]:
    theirs, ours = 'spatial_decoder', 'head.pixel_decoder'
    widths = ('C', 'C', 'C/2', 'C/4', 'C/8', 'C/16')
    for index in range(5):
        stage = f'{ours}.stem' if index == 0 else f'{ours}.convs.{index - 1}'
        yield from layout.convolution(
            f'{theirs}.lay{index + 1}', f'{stage}.conv', widths[index + 1], widths[index], (3, 3)
        )
        yield from layout.norm(f'{theirs}.gn{index + 1}', f'{stage}.gn', widths[index + 1])
    for index, (output, size) in enumerate((('C/2', 'C'), ('C/4', 'C'), ('C/8', 'E'))):
        yield from layout.convolution(f'{theirs}.adapter{index + 1}', f'{ours}.laterals.{index}', output, size, (1, 1))
    yield from layout.convolution(f'{theirs}.out_lay', f'{ours}.out_conv', 'MaskChannels', 'C/16', (3, 3))
