"""Turns a checkpoint of the released SOC implementation into one of mmsoc.

    python tools/model_converters/released_to_mmsoc.py IN OUT

IN holds the weights under ``model_state_dict`` (or is the state dict itself); OUT loads into a model of ``configs/soc/released/``.
Every key of IN must be known and every weight of the network must be there: otherwise nothing is written, and the error lists what
is missing or unexpected.
"""

import argparse
import os
import re
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from mmsoc.utils.errors import UserError

# (pattern of a released name, mmsoc's name). A layer's third, second ... norm keeps its place unless a comment says otherwise.
_RULES: list[tuple[str, str]] = [
    # Video Swin: released as the torchvision-style layers / downsamples, here each stage owns its downsample.
    (r'backbone\.0\.body\.downsamples\.(\d+)\.(.+)', r'backbone.layers.\1.downsample.\2'),
    (r'backbone\.0\.body\.(.+)', r'backbone.\1'),
    # Channel projections: three levels, then the extra one.
    (r'input_proj\.([0-2])\.0\.(weight|bias)', r'neck.convs.\1.conv.\2'),
    (r'input_proj\.([0-2])\.1\.(weight|bias)', r'neck.convs.\1.gn.\2'),
    (r'input_proj\.3\.0\.(weight|bias)', r'neck.extra_convs.0.conv.\1'),
    (r'input_proj\.3\.1\.(weight|bias)', r'neck.extra_convs.0.gn.\1'),
    # Text
    (r'text_encoder\.(.+)', r'text_encoder.roberta.\1'),
    (r'txt_proj\.fc\.(weight|bias)', r'text_encoder.resizer.0.\1'),
    (r'txt_proj\.layer_norm\.(weight|bias)', r'text_encoder.resizer.1.\1'),
    # MMF
    (r'vlf\.multihead_attn\.(.+)', r'fusion.l2v.attn.\1'),
    (r'lvf\.multihead_attn\.(.+)', r'fusion.v2l.attn.\1'),
    # SIM, frame level. The released decoder's norm1 follows the cross-attention and norm2 the self-attention; mmdet's norms.0
    # follows the self-attention.
    (r'transformer\.level_embed', r'sim.level_embed'),
    (r'transformer\.reference_points\.(weight|bias)', r'sim.reference_points.\1'),
    (r'query_embed\.weight', r'sim.query_embed.weight'),
    (r'transformer\.encoder\.layers\.(\d+)\.norm1\.(.+)', r'sim.encoder.layers.\1.norms.0.\2'),
    (r'transformer\.encoder\.layers\.(\d+)\.norm2\.(.+)', r'sim.encoder.layers.\1.norms.1.\2'),
    (r'transformer\.decoder\.layers\.(\d+)\.norm1\.(.+)', r'sim.decoder.layers.\1.norms.1.\2'),
    (r'transformer\.decoder\.layers\.(\d+)\.norm2\.(.+)', r'sim.decoder.layers.\1.norms.0.\2'),
    (r'transformer\.decoder\.layers\.(\d+)\.norm3\.(.+)', r'sim.decoder.layers.\1.norms.2.\2'),
    (r'transformer\.(encoder|decoder)\.layers\.(\d+)\.linear1\.(.+)', r'sim.\1.layers.\2.ffn.layers.0.0.\3'),
    (r'transformer\.(encoder|decoder)\.layers\.(\d+)\.linear2\.(.+)', r'sim.\1.layers.\2.ffn.layers.1.\3'),
    (r'transformer\.decoder\.layers\.(\d+)\.self_attn\.(.+)', r'sim.decoder.layers.\1.self_attn.attn.\2'),
    (r'transformer\.encoder\.layers\.(\d+)\.self_attn\.(.+)', r'sim.encoder.layers.\1.self_attn.\2'),
    (r'transformer\.decoder\.layers\.(\d+)\.cross_attn\.(.+)', r'sim.decoder.layers.\1.cross_attn.\2'),
    # SIM, cluster
    (r'voc\.enc_self_attn\.(\d+)\.self_attn\.(.+)', r'sim.cluster.encoder.layers.\1.self_attn.attn.\2'),
    (r'voc\.enc_self_attn\.(\d+)\.norm\.(.+)', r'sim.cluster.encoder.layers.\1.norms.0.\2'),
    (r'voc\.enc_ffn\.(\d+)\.linear1\.(.+)', r'sim.cluster.encoder.layers.\1.ffn.layers.0.0.\2'),
    (r'voc\.enc_ffn\.(\d+)\.linear2\.(.+)', r'sim.cluster.encoder.layers.\1.ffn.layers.1.\2'),
    (r'voc\.enc_ffn\.(\d+)\.norm\.(.+)', r'sim.cluster.encoder.layers.\1.norms.1.\2'),
    (
        r'voc\.transformer_cross_attention_layers\.(\d+)\.multihead_attn\.(.+)',
        r'sim.cluster.decoder.layers.\1.cross_attn.attn.\2',
    ),
    (r'voc\.transformer_cross_attention_layers\.(\d+)\.norm\.(.+)', r'sim.cluster.decoder.layers.\1.norms.0.\2'),
    (
        r'voc\.transformer_self_attention_layers\.(\d+)\.self_attn\.(.+)',
        r'sim.cluster.decoder.layers.\1.self_attn.attn.\2',
    ),
    (r'voc\.transformer_self_attention_layers\.(\d+)\.norm\.(.+)', r'sim.cluster.decoder.layers.\1.norms.1.\2'),
    (r'voc\.transformer_ffn_layers\.(\d+)\.linear1\.(.+)', r'sim.cluster.decoder.layers.\1.ffn.layers.0.0.\2'),
    (r'voc\.transformer_ffn_layers\.(\d+)\.linear2\.(.+)', r'sim.cluster.decoder.layers.\1.ffn.layers.1.\2'),
    (r'voc\.transformer_ffn_layers\.(\d+)\.norm\.(.+)', r'sim.cluster.decoder.layers.\1.norms.2.\2'),
    (r'voc\.decoder_norm\.(.+)', r'sim.cluster.decoder.post_norm.\1'),
    (r'voc\.query_embed\.weight', r'sim.cluster.query_pos.weight'),
    (r'voc\.fq_pos\.weight', r'sim.cluster.frame_query_pos.weight'),
    # Head
    (r'class_embed\.(\d+)\.(weight|bias)', r'head.cls_branches.\1.layers.0.\2'),
    (r'bbox_embed\.(.+)', r'head.box_branches.\1'),
    (r'controller\.(.+)', r'head.kernel_branch.\1'),
    (r'spatial_decoder\.lay1\.(weight|bias)', r'head.pixel_decoder.stem.conv.\1'),
    (r'spatial_decoder\.gn1\.(weight|bias)', r'head.pixel_decoder.stem.gn.\1'),
    *(
        (rf'spatial_decoder\.lay{index + 2}\.(weight|bias)', rf'head.pixel_decoder.convs.{index}.conv.\1')
        for index in range(4)
    ),
    *(
        (rf'spatial_decoder\.gn{index + 2}\.(weight|bias)', rf'head.pixel_decoder.convs.{index}.gn.\1')
        for index in range(4)
    ),
    *(
        (rf'spatial_decoder\.adapter{index + 1}\.(weight|bias)', rf'head.pixel_decoder.laterals.{index}.\1')
        for index in range(3)
    ),
    (r'spatial_decoder\.out_lay\.(weight|bias)', r'head.pixel_decoder.out_conv.\1'),
]
# The decoder's own names for the head's box branches: the same tensors.
_ALIAS = re.compile(r'transformer\.decoder\.bbox_embed\.(.+)')
# Counters that RoBERTa's older versions stored; not weights.
_IGNORED = re.compile(r'text_encoder\.embeddings\.(position_ids|token_type_ids)')


def mmsoc_name(released: str) -> str | None:
    """mmsoc's name of a released weight, or None if the name is unknown."""
    for pattern, target in _RULES:
        match = re.fullmatch(pattern, released)
        if match:
            return match.expand(target)
    return None


def convert(released: dict[str, Tensor]) -> 'OrderedDict[str, Tensor]':
    """A released state dict under mmsoc's names.

    Raises:
        ValueError: with the names that are unknown, missing, or (for the tensors that have two names) unequal.
    """
    converted: OrderedDict[str, Tensor] = OrderedDict()
    unexpected, unequal, aliases = [], [], {}
    for key, value in released.items():
        name = key.removeprefix('module.')
        if _IGNORED.fullmatch(name):
            continue
        alias = _ALIAS.fullmatch(name)
        if alias:
            aliases[f'head.box_branches.{alias.group(1)}'] = (key, value)
            continue
        target = mmsoc_name(name)
        if target is None:
            unexpected.append(key)
        else:
            converted[target] = value
    for target, (key, value) in aliases.items():
        if target not in converted:
            unexpected.append(key)
        elif not torch.equal(converted[target], value):
            unequal.append(key)
    missing = _missing(released)
    if unexpected or missing or unequal:
        raise UserError(
            'not a checkpoint of the released SOC:\n'
            + '\n'.join(
                f'  {title} ({len(keys)}): {", ".join(keys)}'
                for title, keys in (
                    ('unexpected', unexpected),
                    ('missing', missing),
                    ('unequal to the bbox_embed of the same name', unequal),
                )
                if keys
            )
        )
    return converted


def _missing(released: dict[str, Tensor]) -> list[str]:
    """What the network needs and the checkpoint lacks; sizes and depths are read from the checkpoint itself."""
    names = {key.removeprefix('module.') for key in released}

    def depth(prefix: str) -> int:
        found = [int(match.group(1)) for name in names if (match := re.match(re.escape(prefix) + r'\.(\d+)\.', name))]
        return max(found, default=-1) + 1

    def both(prefix: str) -> list[str]:
        return [f'{prefix}.weight', f'{prefix}.bias']

    def attention(prefix: str) -> list[str]:
        return [f'{prefix}.in_proj_weight', f'{prefix}.in_proj_bias', *both(f'{prefix}.out_proj')]

    def deformable(prefix: str) -> list[str]:
        return [
            name
            for part in ('sampling_offsets', 'attention_weights', 'value_proj', 'output_proj')
            for name in both(f'{prefix}.{part}')
        ]

    needed = ['query_embed.weight', 'voc.query_embed.weight', 'voc.fq_pos.weight', 'transformer.level_embed']
    for prefix in (
        'transformer.reference_points',
        'txt_proj.fc',
        'txt_proj.layer_norm',
        'voc.decoder_norm',
        'backbone.0.body.patch_embed.proj',
        'backbone.0.body.patch_embed.norm',
        'spatial_decoder.out_lay',
        *(f'spatial_decoder.lay{i}' for i in range(1, 6)),
        *(f'spatial_decoder.gn{i}' for i in range(1, 6)),
        *(f'spatial_decoder.adapter{i}' for i in range(1, 4)),
        *(f'controller.layers.{i}' for i in range(3)),
        *(f'input_proj.{i}.{j}' for i in range(4) for j in range(2)),
        'text_encoder.pooler.dense',
        'text_encoder.embeddings.LayerNorm',
    ):
        needed += both(prefix)
    needed += [f'text_encoder.embeddings.{kind}_embeddings.weight' for kind in ('word', 'position', 'token_type')]
    for layer in range(max(depth('text_encoder.encoder.layer'), 1)):
        for part in (
            'attention.self.query',
            'attention.self.key',
            'attention.self.value',
            'attention.output.dense',
            'attention.output.LayerNorm',
            'intermediate.dense',
            'output.dense',
            'output.LayerNorm',
        ):
            needed += both(f'text_encoder.encoder.layer.{layer}.{part}')
    for name in ('vlf', 'lvf'):
        needed += attention(f'{name}.multihead_attn')
    for stage in range(4):
        prefix = f'backbone.0.body.layers.{stage}.blocks'
        for block in range(max(depth(prefix), 2)):
            for part in ('norm1', 'norm2', 'attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2'):
                needed += both(f'{prefix}.{block}.{part}')
            needed += [f'{prefix}.{block}.attn.relative_position_{kind}' for kind in ('bias_table', 'index')]
        if stage < 3:
            needed += [
                f'backbone.0.body.downsamples.{stage}.reduction.weight',
                *both(f'backbone.0.body.downsamples.{stage}.norm'),
            ]
    for layer in range(3):
        needed += both(f'class_embed.{layer}')
        for fc in range(3):
            needed += both(f'bbox_embed.{layer}.layers.{fc}') + both(
                f'transformer.decoder.bbox_embed.{layer}.layers.{fc}'
            )
        for side, norms in (('encoder', 2), ('decoder', 3)):
            prefix = f'transformer.{side}.layers.{layer}'
            for part in ('linear1', 'linear2', *(f'norm{i + 1}' for i in range(norms))):
                needed += both(f'{prefix}.{part}')
        needed += deformable(f'transformer.encoder.layers.{layer}.self_attn')
        needed += deformable(f'transformer.decoder.layers.{layer}.cross_attn')
        needed += attention(f'transformer.decoder.layers.{layer}.self_attn')
        for part, inner in (
            ('transformer_self_attention_layers', 'self_attn'),
            ('enc_self_attn', 'self_attn'),
            ('transformer_cross_attention_layers', 'multihead_attn'),
        ):
            needed += attention(f'voc.{part}.{layer}.{inner}') + both(f'voc.{part}.{layer}.norm')
        for part in ('transformer_ffn_layers', 'enc_ffn'):
            for inner in ('linear1', 'linear2', 'norm'):
                needed += both(f'voc.{part}.{layer}.{inner}')
    return [name for name in needed if name not in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='IN', help='checkpoint of the released implementation')
    parser.add_argument('target', metavar='OUT', help='mmsoc checkpoint to write')
    args = parser.parse_args()
    if not Path(args.source).is_file():
        sys.exit(f'{args.source}: no such file')
    try:
        checkpoint = torch.load(args.source, map_location='cpu', weights_only=True)
    except Exception as error:
        sys.exit(
            f'{args.source}: not a checkpoint that can be read without running its code ({type(error).__name__}: {error})'
        )
    state_dict = checkpoint.get('model_state_dict', checkpoint) if isinstance(checkpoint, dict) else checkpoint
    if not isinstance(state_dict, dict) or not all(isinstance(value, Tensor) for value in state_dict.values()):
        found = sorted(map(str, checkpoint))[:10] if isinstance(checkpoint, dict) else type(checkpoint).__name__
        sys.exit(f'{args.source}: expected weights under the key model_state_dict, found {found}')
    try:
        converted = convert(state_dict)
    except ValueError as error:
        sys.exit(f'{args.source}: {error}')
    target = Path(args.target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + '.tmp')
    torch.save(dict(state_dict=converted, meta=dict(converted_from=Path(args.source).name)), temporary)
    os.replace(temporary, target)
    print(f'{len(state_dict)} released keys -> {len(converted)} mmsoc keys: {target}')


if __name__ == '__main__':
    main()
