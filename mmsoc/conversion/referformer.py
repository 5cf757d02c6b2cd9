"""Weights of the released ReferFormer implementation."""

from collections.abc import Iterable, Iterator

from . import layout
from .layout import StateDictAdapter, Weight

_LAYERS = 4


class ReferFormerStateDictAdapter(StateDictAdapter):
    """Converts the state dict of the released ReferFormer to that of a model of ``configs/referformer/``, and back::

        released = read_checkpoint('referformer.pth', weights_key='model')['model']
        weights = ReferFormerStateDictAdapter().to_mmsoc(released)

    Args:
        strict: see `StateDictAdapter`.
    """

    released_name = 'ReferFormer'
    configs = 'configs/referformer/'

    @classmethod
    def layout(cls, names: Iterable[str], side: str, strict: bool = True) -> Iterator[Weight]:
        """See `StateDictAdapter.layout`."""
        names = list(names)
        layers = _LAYERS
        if not strict:
            layers = layout.count(names, 'class_embed' if side == 'released' else 'head.cls_branches')
        yield from layout.backbone(layout.backbone_blocks(names, side))
        yield from layout.neck()
        yield from layout.text_encoder(layout.text_layers(names, side), 'resizer')
        yield from layout.attention('fusion_module.multihead_attn', 'fusion.l2v.attn')
        yield from layout.frame_level(layers)
        yield from layout.heads(layers)
        yield from _pixel_decoder()


def _pixel_decoder() -> Iterator[Weight]:
    theirs, ours = 'pixel_decoder', 'head.pixel_decoder'
    for level in range(4):
        source, size = ('E', 1) if level == 0 else ('C', 1)
        for name, part, width, kernel in (('adapter', 'laterals', source, size), ('layer', 'convs', 'C', 3)):
            released, mmsoc = f'{theirs}.{name}_{level + 1}', f'{ours}.{part}.{level}'
            yield Weight(f'{released}.weight', f'{mmsoc}.conv.weight', ('C', width, kernel, kernel))
            yield from layout.norm(f'{released}.norm', f'{mmsoc}.gn', 'C')
        released, mmsoc = f'{theirs}.cross_attn_{level + 1}', f'{ours}.blocks.{level}'
        yield from layout.attention(f'{released}.self_attn', f'{mmsoc}.self_attn.attn')
        yield from layout.attention(f'{released}.multihead_attn', f'{mmsoc}.cross_attn.attn')
        yield from layout.feed_forward(released, mmsoc, 'PixelHidden')
        yield from layout.norms(released, mmsoc, {'norm1': 0, 'norm2': 1, 'norm3': 2})
    yield from layout.convolution(f'{theirs}.mask_features', f'{ours}.out_conv', 'C', 'C', (3, 3))
