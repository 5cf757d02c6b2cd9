"""Weights of the released SOC implementation: other names, the same values and shapes."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmsoc.utils.errors import UserError

_WRAPPER = 'module.'
_SHARED = ('bbox_embed.', 'transformer.decoder.bbox_embed.')
"""The released decoder stores the head's box branches under a second name."""
_OWN = 'mmsoc.'
_IGNORED = re.compile(r'text_encoder\.embeddings\.(position_ids|token_type_ids)')
"""Counters that old versions of RoBERTa stored; not weights."""


class ReleasedStateDictAdapter:
    """Converts the state dict of the released SOC to that of a model of ``configs/soc/released/``, and back.

    Both directions are strict: exactly the network's weights must be present, with mutually consistent shapes. The
    numbers of blocks and layers of Video Swin and RoBERTa are read from the names, the sizes from the shapes. The
    tensors are those of the input, not copies::

        released = read_checkpoint('released.pth', weights_key='model_state_dict')['model_state_dict']
        weights = ReleasedStateDictAdapter().to_mmsoc(released)

    Args:
        strict: False: for a SOC of other parts. Its numbers of layers are read from the names as well, weights that the
            released network lacks are called ``mmsoc.NAME`` there, and any may be missing.
    """

    def __init__(self, *, strict: bool = True) -> None:
        self.strict = strict

    def to_mmsoc(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        Args:
            state_dict: weights under the released names, all of them with or without the prefix ``module.`` of
                a wrapped model.

        Raises:
            UserError: lists all weights that are missing, unexpected, of the wrong shape, or different from their copy
                under the decoder's second name.
        """
        found = {name: value for name, value in _unwrapped(state_dict).items() if not _IGNORED.fullmatch(name)}
        weights = list(_layout(found, 'released', self.strict))
        if not self.strict:
            return _renamed(found, {weight.released: weight.mmsoc for weight in weights})
        second = {_second_name(weight.released): weight.released for weight in weights if _is_shared(weight.released)}
        shapes = {weight.released: weight.shape for weight in weights}
        shapes |= {name: shapes[first] for name, first in second.items()}
        unequal = [
            name
            for name, first in second.items()
            if name in found and first in found and not _equal(found[name], found[first])
        ]
        _check(
            found,
            shapes,
            'not a checkpoint of the released SOC',
            {'unequal to the bbox_embed of the same name': unequal},
        )
        return {weight.mmsoc: found[weight.released] for weight in weights}

    def to_released(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        Args:
            state_dict: weights of a model of ``configs/soc/released/``.

        Raises:
            UserError: lists all weights that are missing, unexpected or of the wrong shape.
        """
        found = _unwrapped(state_dict)
        weights = list(_layout(found, 'mmsoc', self.strict))
        if self.strict:
            shapes = {weight.mmsoc: weight.shape for weight in weights}
            _check(found, shapes, 'not the weights of a model of configs/soc/released/', {})
            converted = {weight.released: found[weight.mmsoc] for weight in weights}
        else:
            converted = _renamed(found, {weight.mmsoc: weight.released for weight in weights})
        shared = {_second_name(name): value for name, value in converted.items() if _is_shared(name)}
        return converted | shared

    @staticmethod
    def mmsoc_names(released: Iterable[str]) -> dict[str, str]:
        """mmsoc's name of each weight of a released network with the blocks and layers of these names."""
        return {weight.released: weight.mmsoc for weight in _layout(released, 'released')}


class _Weight(NamedTuple):
    released: str
    mmsoc: str
    shape: tuple[int | str, ...]
    """sizes: numbers, or symbols with a factor and a divisor, such as ``3*C`` and ``C/2``"""


def _renamed(found: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """``found`` under other names; what has none gets the prefix ``mmsoc.``, or loses it. Second names are left out."""
    converted = {}
    for name, value in found.items():
        if name.startswith(_SHARED[1]):
            continue
        other = name.removeprefix(_OWN) if name.startswith(_OWN) else _OWN + name
        converted[names.get(name, other)] = value
    return converted


def _layout(names: Iterable[str], side: str, strict: bool = True) -> Iterator[_Weight]:
    """All weights of the network.

    Letters: C channels, N queries, K classes; E channels of Video Swin's first stage; D channels of RoBERTa.

    Args:
        names: determine the numbers of blocks and layers.
        side: ``released`` or ``mmsoc``: the naming scheme of ``names``.
        strict: all parts but Video Swin and RoBERTa have three layers.
    """
    body, roberta = {
        'released': ('backbone.0.body', 'text_encoder'),
        'mmsoc': ('backbone', 'text_encoder.roberta'),
    }[side]
    names = list(names)
    blocks = [max(_count(names, f'{body}.layers.{stage}.blocks'), 2) for stage in range(4)]
    yield from _backbone(blocks)
    yield from _neck()
    yield from _text_encoder(max(_count(names, f'{roberta}.encoder.layer'), 1))
    yield from _attention('vlf.multihead_attn', 'fusion.l2v.attn')
    yield from _attention('lvf.multihead_attn', 'fusion.v2l.attn')

    def layers(released: str, mmsoc: str) -> int:
        return 3 if strict else _count(names, released if side == 'released' else mmsoc)

    # Names beyond the network's own do no harm where nothing is checked.
    encoder, decoder = 'sim.encoder.layers', 'sim.decoder.layers'
    yield from _frame_level(
        max(layers('transformer.encoder.layers', encoder), layers('transformer.decoder.layers', decoder))
    )
    encoder, decoder = 'sim.cluster.encoder.layers', 'sim.cluster.decoder.layers'
    yield from _cluster(max(layers('voc.enc_ffn', encoder), layers('voc.transformer_ffn_layers', decoder)))
    yield from _head(layers('class_embed', 'head.cls_branches'))


def _count(names: Iterable[str], prefix: str) -> int:
    """The number of distinct indices that follow ``prefix``."""
    pattern = re.compile(re.escape(prefix) + r'\.(\d+)\.')
    return len({match.group(1) for name in names if (match := pattern.match(name))})


def _backbone(blocks: Sequence[int]) -> Iterator[_Weight]:
    """Video Swin. The release has the layers beside the downsamples; here each stage owns its downsample."""
    body = 'backbone.0.body'
    yield from _convolution(f'{body}.patch_embed.proj', 'backbone.patch_embed.proj', 'E', 3, (1, 4, 4))
    yield from _norm(f'{body}.patch_embed.norm', 'backbone.patch_embed.norm', 'E')
    for stage, count in enumerate(blocks):
        width = 2**stage
        for block in range(count):
            yield from _block(f'{body}.layers.{stage}.blocks.{block}', f'backbone.layers.{stage}.blocks.{block}', stage)
        if stage < 3:
            theirs, ours = f'{body}.downsamples.{stage}', f'backbone.layers.{stage}.downsample'
            yield _Weight(
                f'{theirs}.reduction.weight', f'{ours}.reduction.weight', (f'{2 * width}*E', f'{4 * width}*E')
            )
            yield from _norm(f'{theirs}.norm', f'{ours}.norm', f'{4 * width}*E')


def _block(theirs: str, ours: str, stage: int) -> Iterator[_Weight]:
    width = f'{2**stage}*E'
    for name in ('norm1', 'norm2'):
        yield from _norm(f'{theirs}.{name}', f'{ours}.{name}', width)
    table, index = 'attn.relative_position_bias_table', 'attn.relative_position_index'
    yield _Weight(f'{theirs}.{table}', f'{ours}.{table}', ('Offsets', f'Heads{stage}'))
    yield _Weight(f'{theirs}.{index}', f'{ours}.{index}', ('Window', 'Window'))
    for name, output, size in (
        ('attn.qkv', f'{3 * 2**stage}*E', width),
        ('attn.proj', width, width),
        ('mlp.fc1', f'{4 * 2**stage}*E', width),
        ('mlp.fc2', width, f'{4 * 2**stage}*E'),
    ):
        yield from _linear(f'{theirs}.{name}', f'{ours}.{name}', output, size)


def _neck() -> Iterator[_Weight]:
    """Strides 8, 16 and 32, then the extra level of stride 64."""
    for level, (ours, width, kernel) in enumerate(
        (
            ('neck.convs.0', '2*E', (1, 1)),
            ('neck.convs.1', '4*E', (1, 1)),
            ('neck.convs.2', '8*E', (1, 1)),
            ('neck.extra_convs.0', '8*E', (3, 3)),
        )
    ):
        yield from _convolution(f'input_proj.{level}.0', f'{ours}.conv', 'C', width, kernel)
        yield from _norm(f'input_proj.{level}.1', f'{ours}.gn', 'C')


def _text_encoder(num_layers: int) -> Iterator[_Weight]:
    theirs, ours = 'text_encoder', 'text_encoder.roberta'
    for kind, rows in (('word', 'Words'), ('position', 'Positions'), ('token_type', 'Types')):
        name = f'embeddings.{kind}_embeddings.weight'
        yield _Weight(f'{theirs}.{name}', f'{ours}.{name}', (rows, 'D'))
    yield from _norm(f'{theirs}.embeddings.LayerNorm', f'{ours}.embeddings.LayerNorm', 'D')
    for layer in range(num_layers):
        for name, output, size in (
            ('attention.self.query', 'D', 'D'),
            ('attention.self.key', 'D', 'D'),
            ('attention.self.value', 'D', 'D'),
            ('attention.output.dense', 'D', 'D'),
            ('intermediate.dense', 'Intermediate', 'D'),
            ('output.dense', 'D', 'Intermediate'),
        ):
            name = f'encoder.layer.{layer}.{name}'
            yield from _linear(f'{theirs}.{name}', f'{ours}.{name}', output, size)
        for name in ('attention.output.LayerNorm', 'output.LayerNorm'):
            name = f'encoder.layer.{layer}.{name}'
            yield from _norm(f'{theirs}.{name}', f'{ours}.{name}', 'D')
    yield from _linear(f'{theirs}.pooler.dense', f'{ours}.pooler.dense', 'D', 'D')
    yield from _linear('txt_proj.fc', 'text_encoder.resizer.0', 'C', 'D')
    yield from _norm('txt_proj.layer_norm', 'text_encoder.resizer.1', 'C')


def _frame_level(num_layers: int) -> Iterator[_Weight]:
    """Deformable DETR.

    The released decoder's norm1 follows the cross-attention and its norm2 the self-attention; mmdet's norms.0 follows the
    self-attention.
    """
    yield _Weight('transformer.level_embed', 'sim.level_embed', ('Levels', 'C'))
    yield _Weight('query_embed.weight', 'sim.query_embed.weight', ('N', 'C'))
    yield from _linear('transformer.reference_points', 'sim.reference_points', 2, 'C')
    for layer in range(num_layers):
        theirs, ours = f'transformer.encoder.layers.{layer}', f'sim.encoder.layers.{layer}'
        yield from _deformable_attention(f'{theirs}.self_attn', f'{ours}.self_attn')
        yield from _feed_forward(theirs, ours, 'Hidden')
        yield from _norms(theirs, ours, {'norm1': 0, 'norm2': 1})
        theirs, ours = f'transformer.decoder.layers.{layer}', f'sim.decoder.layers.{layer}'
        yield from _deformable_attention(f'{theirs}.cross_attn', f'{ours}.cross_attn')
        yield from _attention(f'{theirs}.self_attn', f'{ours}.self_attn.attn')
        yield from _feed_forward(theirs, ours, 'Hidden')
        yield from _norms(theirs, ours, {'norm1': 1, 'norm2': 0, 'norm3': 2})


def _cluster(num_layers: int) -> Iterator[_Weight]:
    encoder, decoder = 'sim.cluster.encoder.layers', 'sim.cluster.decoder.layers'
    yield _Weight('voc.query_embed.weight', 'sim.cluster.query_pos.weight', ('VideoQueries', 'C'))
    yield _Weight('voc.fq_pos.weight', 'sim.cluster.frame_query_pos.weight', ('N', 'C'))
    for layer in range(num_layers):
        for theirs, inner, ours, kind, norm in (
            ('enc_self_attn', 'self_attn', encoder, 'self_attn', 0),
            ('transformer_cross_attention_layers', 'multihead_attn', decoder, 'cross_attn', 0),
            ('transformer_self_attention_layers', 'self_attn', decoder, 'self_attn', 1),
        ):
            yield from _attention(f'voc.{theirs}.{layer}.{inner}', f'{ours}.{layer}.{kind}.attn')
            yield from _norms(f'voc.{theirs}.{layer}', f'{ours}.{layer}', {'norm': norm})
        for theirs, ours, norm in (('enc_ffn', encoder, 1), ('transformer_ffn_layers', decoder, 2)):
            yield from _feed_forward(f'voc.{theirs}.{layer}', f'{ours}.{layer}', 'ClusterHidden')
            yield from _norms(f'voc.{theirs}.{layer}', f'{ours}.{layer}', {'norm': norm})
    yield from _norm('voc.decoder_norm', 'sim.cluster.decoder.post_norm', 'C')


def _head(num_layers: int) -> Iterator[_Weight]:
    for layer in range(num_layers):
        yield from _linear(f'class_embed.{layer}', f'head.cls_branches.{layer}.layers.0', 'K', 'C')
        yield from _three_layers(f'{_SHARED[0]}{layer}', f'head.box_branches.{layer}', 4)
    yield from _three_layers('controller', 'head.kernel_branch', 'Kernels')
    theirs, ours = 'spatial_decoder', 'head.pixel_decoder'
    widths = ('C', 'C', 'C/2', 'C/4', 'C/8', 'C/16')
    for index in range(5):
        stage = f'{ours}.stem' if index == 0 else f'{ours}.convs.{index - 1}'
        yield from _convolution(f'{theirs}.lay{index + 1}', f'{stage}.conv', widths[index + 1], widths[index], (3, 3))
        yield from _norm(f'{theirs}.gn{index + 1}', f'{stage}.gn', widths[index + 1])
    for index, (output, size) in enumerate((('C/2', 'C'), ('C/4', 'C'), ('C/8', 'E'))):
        yield from _convolution(f'{theirs}.adapter{index + 1}', f'{ours}.laterals.{index}', output, size, (1, 1))
    yield from _convolution(f'{theirs}.out_lay', f'{ours}.out_conv', 'MaskChannels', 'C/16', (3, 3))


def _linear(theirs: str, ours: str, output: int | str, size: int | str) -> Iterator[_Weight]:
    yield _Weight(f'{theirs}.weight', f'{ours}.weight', (output, size))
    yield _Weight(f'{theirs}.bias', f'{ours}.bias', (output,))


def _convolution(
    theirs: str, ours: str, output: int | str, size: int | str, kernel: tuple[int, ...]
) -> Iterator[_Weight]:
    yield _Weight(f'{theirs}.weight', f'{ours}.weight', (output, size, *kernel))
    yield _Weight(f'{theirs}.bias', f'{ours}.bias', (output,))


def _norm(theirs: str, ours: str, size: str) -> Iterator[_Weight]:
    for name in ('weight', 'bias'):
        yield _Weight(f'{theirs}.{name}', f'{ours}.{name}', (size,))


def _norms(theirs: str, ours: str, places: Mapping[str, int]) -> Iterator[_Weight]:
    for name, place in places.items():
        yield from _norm(f'{theirs}.{name}', f'{ours}.norms.{place}', 'C')


def _attention(theirs: str, ours: str) -> Iterator[_Weight]:
    yield _Weight(f'{theirs}.in_proj_weight', f'{ours}.in_proj_weight', ('3*C', 'C'))
    yield _Weight(f'{theirs}.in_proj_bias', f'{ours}.in_proj_bias', ('3*C',))
    yield from _linear(f'{theirs}.out_proj', f'{ours}.out_proj', 'C', 'C')


def _deformable_attention(theirs: str, ours: str) -> Iterator[_Weight]:
    for name, output in (
        ('sampling_offsets', '2*Points'),
        ('attention_weights', 'Points'),
        ('value_proj', 'C'),
        ('output_proj', 'C'),
    ):
        yield from _linear(f'{theirs}.{name}', f'{ours}.{name}', output, 'C')


def _feed_forward(theirs: str, ours: str, hidden: str) -> Iterator[_Weight]:
    yield from _linear(f'{theirs}.linear1', f'{ours}.ffn.layers.0.0', hidden, 'C')
    yield from _linear(f'{theirs}.linear2', f'{ours}.ffn.layers.1', 'C', hidden)


def _three_layers(theirs: str, ours: str, output: int | str) -> Iterator[_Weight]:
    for layer, size in enumerate(('C', 'C', output)):
        yield from _linear(f'{theirs}.layers.{layer}', f'{ours}.layers.{layer}', size, 'C')


def _unwrapped(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if all(name.startswith(_WRAPPER) for name in state_dict):
        return {name.removeprefix(_WRAPPER): value for name, value in state_dict.items()}
    return dict(state_dict)


def _is_shared(released: str) -> bool:
    return released.startswith(_SHARED[0])


def _second_name(released: str) -> str:
    return _SHARED[1] + released.removeprefix(_SHARED[0])


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.dtype == b.dtype and torch.equal(a, b))


def _check(
    found: Mapping[str, Tensor],
    expected: Mapping[str, tuple[int | str, ...]],
    title: str,
    faults: Mapping[str, Sequence[str]],
) -> None:
    """
    Raises:
        UserError: ``title``, then every name that differs from ``expected``, and ``faults``.
    """
    sizes = _sizes(found, expected)
    shapes = {name: tuple(_size(size, sizes) for size in shape) for name, shape in expected.items()}
    faults = {
        'missing': [name for name in expected if name not in found],
        'unexpected': [name for name in found if name not in expected],
        'of another shape': [
            f'{name}: expected {shapes[name]}, found {tuple(value.shape)}'
            for name, value in found.items()
            if name in shapes and shapes[name] != tuple(value.shape)
        ],
        **faults,
    }
    lines = [f'  {fault} ({len(names)}): {", ".join(names)}' for fault, names in faults.items() if names]
    if lines:
        raise UserError('\n'.join([f'{title}:', *lines]))


def _sizes(found: Mapping[str, Tensor], expected: Mapping[str, tuple[int | str, ...]]) -> dict[str, int]:
    """The value of each symbol: the one that most weights agree on."""
    votes: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for name, shape in expected.items():
        if name not in found or found[name].dim() != len(shape):
            continue
        for size, number in zip(shape, found[name].shape, strict=True):
            if isinstance(size, str):
                factor, symbol, divisor = _parse(size)
                if number * divisor % factor == 0:
                    votes[symbol][number * divisor // factor] += 1
    return {symbol: counts.most_common(1)[0][0] for symbol, counts in votes.items()}


def _size(size: int | str, sizes: Mapping[str, int]) -> int | str:
    if isinstance(size, int):
        return size
    factor, symbol, divisor = _parse(size)
    return sizes[symbol] * factor // divisor if symbol in sizes else size


def _parse(size: str) -> tuple[int, str, int]:
    """``3*C`` -> 3, ``C``, 1."""
    factor, _, rest = size.rpartition('*')
    symbol, _, divisor = rest.partition('/')
    return int(factor or 1), symbol, int(divisor or 1)
