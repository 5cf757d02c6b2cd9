"""What the adapters of the two released implementations, which come from one code base, have in common."""

import re
from abc import ABC, abstractmethod
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


class Weight(NamedTuple):
    released: str
    mmsoc: str
    shape: tuple[int | str, ...]
    """sizes: numbers, or symbols with a factor and a divisor, such as ``3*C`` and ``C/2``"""


class StateDictAdapter(ABC):
    """Converts a released state dict to that of a model of mmsoc, and back.

    Both directions are strict: exactly the network's weights must be present, with mutually consistent shapes. The
    numbers of blocks and layers of Video Swin and RoBERTa are read from the names, the sizes from the shapes. The
    tensors are those of the input, not copies.

    Args:
        strict: False: for a network of other parts. Its numbers of layers are read from the names as well, weights that the
            released network lacks are called ``mmsoc.NAME`` there, and any may be missing.
    """

    released_name: str
    """of the released network, for messages"""
    configs: str
    """folder of the configs that the weights fit"""

    def __init__(self, *, strict: bool = True) -> None:
        self.strict = strict

    @classmethod
    @abstractmethod
    def layout(cls, names: Iterable[str], side: str, strict: bool = True) -> Iterator[Weight]:
        """All weights of the network.

        Args:
            names: determine the numbers of blocks and layers.
            side: ``released`` or ``mmsoc``: the naming scheme of ``names``.
            strict: all parts but Video Swin and RoBERTa have the released numbers of layers.
        """

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
        weights = list(self.layout(found, 'released', self.strict))
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
            f'not a checkpoint of the released {self.released_name}',
            {'unequal to the bbox_embed of the same name': unequal},
        )
        return {weight.mmsoc: found[weight.released] for weight in weights}

    def to_released(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        Args:
            state_dict: weights of a model of ``configs``.

        Raises:
            UserError: lists all weights that are missing, unexpected or of the wrong shape.
        """
        found = _unwrapped(state_dict)
        weights = list(self.layout(found, 'mmsoc', self.strict))
        if self.strict:
            shapes = {weight.mmsoc: weight.shape for weight in weights}
            _check(found, shapes, f'not the weights of a model of {self.configs}', {})
            converted = {weight.released: found[weight.mmsoc] for weight in weights}
        else:
            converted = _renamed(found, {weight.mmsoc: weight.released for weight in weights})
        shared = {_second_name(name): value for name, value in converted.items() if _is_shared(name)}
        return converted | shared

    @classmethod
    def mmsoc_names(cls, released: Iterable[str]) -> dict[str, str]:
        """mmsoc's name of each weight, under both its names, of a released network with the blocks and layers of these names."""
        weights = list(cls.layout(released, 'released'))
        second = {_second_name(weight.released): weight.mmsoc for weight in weights if _is_shared(weight.released)}
        return {weight.released: weight.mmsoc for weight in weights} | second


def _renamed(found: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """``found`` under other names; what has none gets the prefix ``mmsoc.``, or loses it. Second names are left out."""
    converted = {}
    for name, value in found.items():
        if name.startswith(_SHARED[1]):
            continue
        other = name.removeprefix(_OWN) if name.startswith(_OWN) else _OWN + name
        converted[names.get(name, other)] = value
    return converted


def count(names: Iterable[str], prefix: str) -> int:
    """The number of distinct indices that follow ``prefix``."""
    pattern = re.compile(re.escape(prefix) + r'\.(\d+)\.')
    return len({match.group(1) for name in names if (match := pattern.match(name))})


def backbone_blocks(names: Iterable[str], side: str) -> list[int]:
    """The number of blocks of each stage of Video Swin."""
    body = {'released': 'backbone.0.body', 'mmsoc': 'backbone'}[side]
    return [max(count(names, f'{body}.layers.{stage}.blocks'), 2) for stage in range(4)]


def text_layers(names: Iterable[str], side: str) -> int:
    """The number of layers of RoBERTa."""
    roberta = {'released': 'text_encoder', 'mmsoc': 'text_encoder.roberta'}[side]
    return max(count(names, f'{roberta}.encoder.layer'), 1)


def backbone(blocks: Sequence[int]) -> Iterator[Weight]:
    """Video Swin. The release has the layers beside the downsamples; here each stage owns its downsample."""
    body = 'backbone.0.body'
    yield from convolution(f'{body}.patch_embed.proj', 'backbone.patch_embed.proj', 'E', 3, (1, 4, 4))
    yield from norm(f'{body}.patch_embed.norm', 'backbone.patch_embed.norm', 'E')
    for stage, number in enumerate(blocks):
        width = 2**stage
        for index in range(number):
            yield from block(f'{body}.layers.{stage}.blocks.{index}', f'backbone.layers.{stage}.blocks.{index}', stage)
        if stage < 3:
            theirs, ours = f'{body}.downsamples.{stage}', f'backbone.layers.{stage}.downsample'
            yield Weight(f'{theirs}.reduction.weight', f'{ours}.reduction.weight', (f'{2 * width}*E', f'{4 * width}*E'))
            yield from norm(f'{theirs}.norm', f'{ours}.norm', f'{4 * width}*E')


def block(theirs: str, ours: str, stage: int) -> Iterator[Weight]:
    width = f'{2**stage}*E'
    for name in ('norm1', 'norm2'):
        yield from norm(f'{theirs}.{name}', f'{ours}.{name}', width)
    table, index = 'attn.relative_position_bias_table', 'attn.relative_position_index'
    yield Weight(f'{theirs}.{table}', f'{ours}.{table}', ('Offsets', f'Heads{stage}'))
    yield Weight(f'{theirs}.{index}', f'{ours}.{index}', ('Window', 'Window'))
    for name, output, size in (
        ('attn.qkv', f'{3 * 2**stage}*E', width),
        ('attn.proj', width, width),
        ('mlp.fc1', f'{4 * 2**stage}*E', width),
        ('mlp.fc2', width, f'{4 * 2**stage}*E'),
    ):
        yield from linear(f'{theirs}.{name}', f'{ours}.{name}', output, size)


def neck() -> Iterator[Weight]:
    """Strides 8, 16 and 32, then the extra level of stride 64."""
    for level, (ours, width, kernel) in enumerate(
        (
            ('neck.convs.0', '2*E', (1, 1)),
            ('neck.convs.1', '4*E', (1, 1)),
            ('neck.convs.2', '8*E', (1, 1)),
            ('neck.extra_convs.0', '8*E', (3, 3)),
        )
    ):
        yield from convolution(f'input_proj.{level}.0', f'{ours}.conv', 'C', width, kernel)
        yield from norm(f'input_proj.{level}.1', f'{ours}.gn', 'C')


def text_encoder(num_layers: int, resizer: str) -> Iterator[Weight]:
    theirs, ours = 'text_encoder', 'text_encoder.roberta'
    for kind, rows in (('word', 'Words'), ('position', 'Positions'), ('token_type', 'Types')):
        name = f'embeddings.{kind}_embeddings.weight'
        yield Weight(f'{theirs}.{name}', f'{ours}.{name}', (rows, 'D'))
    yield from norm(f'{theirs}.embeddings.LayerNorm', f'{ours}.embeddings.LayerNorm', 'D')
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
            yield from linear(f'{theirs}.{name}', f'{ours}.{name}', output, size)
        for name in ('attention.output.LayerNorm', 'output.LayerNorm'):
            name = f'encoder.layer.{layer}.{name}'
            yield from norm(f'{theirs}.{name}', f'{ours}.{name}', 'D')
    yield from linear(f'{theirs}.pooler.dense', f'{ours}.pooler.dense', 'D', 'D')
    yield from linear(f'{resizer}.fc', 'text_encoder.resizer.0', 'C', 'D')
    yield from norm(f'{resizer}.layer_norm', 'text_encoder.resizer.1', 'C')


def frame_level(num_layers: int) -> Iterator[Weight]:
    """Deformable DETR.

    The released decoder's norm1 follows the cross-attention and its norm2 the self-attention; mmdet's norms.0 follows the
    self-attention.
    """
    yield Weight('transformer.level_embed', 'sim.level_embed', ('Levels', 'C'))
    yield Weight('query_embed.weight', 'sim.query_embed.weight', ('N', 'C'))
    yield from linear('transformer.reference_points', 'sim.reference_points', 2, 'C')
    for layer in range(num_layers):
        theirs, ours = f'transformer.encoder.layers.{layer}', f'sim.encoder.layers.{layer}'
        yield from deformable_attention(f'{theirs}.self_attn', f'{ours}.self_attn')
        yield from feed_forward(theirs, ours, 'Hidden')
        yield from norms(theirs, ours, {'norm1': 0, 'norm2': 1})
        theirs, ours = f'transformer.decoder.layers.{layer}', f'sim.decoder.layers.{layer}'
        yield from deformable_attention(f'{theirs}.cross_attn', f'{ours}.cross_attn')
        yield from attention(f'{theirs}.self_attn', f'{ours}.self_attn.attn')
        yield from feed_forward(theirs, ours, 'Hidden')
        yield from norms(theirs, ours, {'norm1': 1, 'norm2': 0, 'norm3': 2})


def heads(num_layers: int) -> Iterator[Weight]:
    """Class, box and kernel branches."""
    for layer in range(num_layers):
        yield from linear(f'class_embed.{layer}', f'head.cls_branches.{layer}.layers.0', 'K', 'C')
        yield from three_layers(f'{_SHARED[0]}{layer}', f'head.box_branches.{layer}', 4)
    yield from three_layers('controller', 'head.kernel_branch', 'Kernels')


def linear(theirs: str, ours: str, output: int | str, size: int | str) -> Iterator[Weight]:
    yield Weight(f'{theirs}.weight', f'{ours}.weight', (output, size))
    yield Weight(f'{theirs}.bias', f'{ours}.bias', (output,))


def convolution(
    theirs: str, ours: str, output: int | str, size: int | str, kernel: tuple[int, ...]
) -> Iterator[Weight]:
    yield Weight(f'{theirs}.weight', f'{ours}.weight', (output, size, *kernel))
    yield Weight(f'{theirs}.bias', f'{ours}.bias', (output,))


def norm(theirs: str, ours: str, size: str) -> Iterator[Weight]:
    for name in ('weight', 'bias'):
        yield Weight(f'{theirs}.{name}', f'{ours}.{name}', (size,))


def norms(theirs: str, ours: str, places: Mapping[str, int]) -> Iterator[Weight]:
    for name, place in places.items():
        yield from norm(f'{theirs}.{name}', f'{ours}.norms.{place}', 'C')


def attention(theirs: str, ours: str) -> Iterator[Weight]:
    yield Weight(f'{theirs}.in_proj_weight', f'{ours}.in_proj_weight', ('3*C', 'C'))
    yield Weight(f'{theirs}.in_proj_bias', f'{ours}.in_proj_bias', ('3*C',))
    yield from linear(f'{theirs}.out_proj', f'{ours}.out_proj', 'C', 'C')


def deformable_attention(theirs: str, ours: str) -> Iterator[Weight]:
    for name, output in (
        ('sampling_offsets', '2*Points'),
        ('attention_weights', 'Points'),
        ('value_proj', 'C'),
        ('output_proj', 'C'),
    ):
        yield from linear(f'{theirs}.{name}', f'{ours}.{name}', output, 'C')


def feed_forward(theirs: str, ours: str, hidden: str) -> Iterator[Weight]:
    yield from linear(f'{theirs}.linear1', f'{ours}.ffn.layers.0.0', hidden, 'C')
    yield from linear(f'{theirs}.linear2', f'{ours}.ffn.layers.1', 'C', hidden)


def three_layers(theirs: str, ours: str, output: int | str) -> Iterator[Weight]:
    for layer, size in enumerate(('C', 'C', output)):
        yield from linear(f'{theirs}.layers.{layer}', f'{ours}.layers.{layer}', size, 'C')


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
