"""Golden files: outputs, losses and gradient norms of the released implementation on weights made by a rule."""

import json
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import Config
from mmengine.runner.checkpoint import load_state_dict
from torch import Tensor

from mmsoc.conversion import ReferFormerStateDictAdapter, ReleasedStateDictAdapter
from mmsoc.conversion.layout import StateDictAdapter
from mmsoc.registry import MODELS
from tests.helpers import TINY_ROBERTA, make_sample, stack_clips

_QUERIES = ('query_embed.weight', 'voc.query_embed.weight', 'voc.fq_pos.weight', 'transformer.level_embed')
_ALIAS = 'transformer.decoder.'


@dataclass(frozen=True)
class Family:
    """A network with golden files."""

    name: str
    """as `released_to_mmsoc.py --model` has it"""
    folder: str
    config: str
    """with the backbone's name in braces"""
    prefix: str
    """of the files that list the weights"""
    key: str
    """of the weights in a checkpoint"""
    adapter: type[StateDictAdapter]
    losses: dict[str, str]
    """the golden files' names of the losses"""


SOC = Family(
    'soc',
    'golden',
    'configs/soc/released/soc_{}_ytvos.py',
    'soc_{}',
    'model_state_dict',
    ReleasedStateDictAdapter,
    dict(
        loss_mask='loss_sigmoid_focal',
        loss_dice='loss_dice',
        loss_contrastive='loss_con',
        loss_cls='loss_cls',
        loss_bbox='loss_bbox',
        loss_giou='loss_giou',
    ),
)
REFERFORMER = Family(
    'referformer',
    'golden_referformer',
    'configs/referformer/referformer_video-{}_ytvos.py',
    'rf_video-{}',
    'model',
    ReferFormerStateDictAdapter,
    dict(
        loss_mask='loss_mask',
        loss_dice='loss_dice',
        loss_cls='loss_ce',
        loss_bbox='loss_bbox',
        loss_giou='loss_giou',
    ),
)


def released_weights(shapes: dict[str, list[int]], salt: str, fresh_buffers: dict[str, Tensor]) -> dict[str, Tensor]:
    """The released module's state dict by the rule of released_soc.md section 5."""
    weights: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name.endswith('relative_position_index'):
            weights[name] = fresh_buffers[name]
            continue
        r = np.random.default_rng(zlib.crc32((salt + name).encode())).standard_normal(shape).astype(np.float32)
        if name in _QUERIES:
            r = 4 * r
        elif r.ndim >= 2:
            r = r / np.sqrt(np.prod(shape[1:])).astype(np.float32)
        elif name.endswith('weight'):
            r = 1 + np.float32(0.1) * r
        else:
            r = np.float32(0.1) * r
        weights[name] = torch.from_numpy(r)
        if 'bbox_embed.' in name:  # two names of the same tensors: the later one's values hold
            alias = name.removeprefix(_ALIAS) if name.startswith(_ALIAS) else _ALIAS + name
            if alias in weights:
                weights[alias] = weights[name]
    return weights


def golden_model(
    case: dict[str, Any], golden: Path, root: Path, work_dir: Path, family: Family = SOC
) -> torch.nn.Module:
    """The released configuration with the case's weights, brought in by the real converter."""
    backbone = str(case['backbone']).removeprefix('video-')
    cfg = Config.fromfile(root / family.config.format(backbone)).model
    ids, attention = case['input_ids'], case['attention_mask']
    rows = [row[mask.astype(bool)].tolist() for row, mask in zip(ids, attention, strict=True)]
    cfg.text_encoder.update(
        pretrained='golden', config=TINY_ROBERTA, tokenizer=dict(type='FixedTokenizer', rows=rows), dropout=0.0
    )
    cfg.head.num_classes = int(case['num_classes'])
    cfg.backbone.drop_path_rate = 0.0
    model = MODELS.build(cfg)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0

    shapes = json.loads((golden / f'{family.prefix.format(backbone)}_tiny-roberta_state_dict.json').read_text())
    classes = int(case['num_classes'])
    for layer in range(model.sim.num_layers):
        shapes[f'class_embed.{layer}.weight'][0] = shapes[f'class_embed.{layer}.bias'][0] = classes
    index = {
        f'backbone.0.body.{name.removeprefix("backbone.")}': value
        for name, value in model.state_dict().items()
        if name.endswith('relative_position_index')
    }
    source, target = work_dir / 'released.pth', work_dir / 'mmsoc.pth'
    torch.save({family.key: released_weights(shapes, str(case['salt']), index)}, source)
    subprocess.run(
        [
            *(sys.executable, root / 'tools' / 'model_converters' / 'released_to_mmsoc.py'),
            *('--model', family.name, source, target),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    load_state_dict(model, torch.load(target, weights_only=True)['state_dict'], strict=True)
    return model


def golden_batch(case: dict[str, Any]) -> tuple[Tensor, list]:
    """Inputs and samples of a golden file, padded as the preprocessor does."""
    num_clips, num_frames = int(case['B']), int(case['T'])
    inputs = stack_clips([torch.from_numpy(case[f'video{b}']) for b in range(num_clips)])
    assert tuple(inputs.shape[-2:]) == tuple(case['padded']) if 'padded' in case else True
    annotated = [t for t in range(num_frames) if f'target_mask_t{t}_b0' in case]
    samples = []
    for b in range(num_clips):
        size = tuple(case[f'video{b}'].shape[-2:])
        cx, cy, w, h = np.stack([case[f'target_box_t{t}_b{b}'][0] for t in annotated]).T
        boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1) * [size[1], size[0], size[1], size[0]]
        masks = np.concatenate([case[f'target_mask_t{t}_b{b}'] for t in annotated])
        sample = make_sample(
            size,
            [str(b)],
            masks,
            boxes,
            [bool(case[f'target_visible_t{t}_b{b}']) for t in annotated],
            int(np.ravel(case[f'target_label_b{b}'])[0]),
            padded=tuple(inputs.shape[-2:]),
        )
        if 'valid' in case:
            # One annotated frame of many: its target is written down as that of frame 0.
            frames = [sample[0].clone() for _ in range(num_frames)]
            sample.video_data_samples = frames
            sample.key_frames_inds = [int(case['valid'])]
        samples.append(sample)
    return inputs, samples


def loss_weights(model: torch.nn.Module) -> dict[str, float]:
    """By which each loss is multiplied in the total; golden files hold them unweighted."""
    attributes = dict(
        loss_mask='loss_mask', loss_dice='loss_dice', loss_cls='loss_cls', loss_bbox='loss_bbox', loss_giou='loss_iou'
    )
    return dict(loss_contrastive=1.0) | {
        name: getattr(model.criterion, attribute).loss_weight for name, attribute in attributes.items()
    }
