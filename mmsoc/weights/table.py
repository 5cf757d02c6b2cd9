"""Weights by name: where they lie, which config they fit, what they score and who measured it."""

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .download import Address, WeightsNotFoundError, address_of

_MMACTION2 = 'https://download.openmmlab.com/mmaction/v1.0/recognition/swin/'
_SWIN_AUTHORS = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.4/'
_DRIVE = 'https://drive.google.com/uc?id='
_SWIN_LICENSE = 'Apache-2.0'
_NO_LICENSE = 'none given by the authors'

SHIPPED = Path(__file__).parent / 'files'
Layout = Literal['mmsoc', 'released', 'video-swin', 'hub']


@dataclass(frozen=True)
class Weights:
    """An entry of the table."""

    name: str
    what: str
    """one line"""
    layout: Layout
    """``mmsoc``: a SOC's state dict; ``released``: one with the names of the authors' code, which `load_checkpoint` converts;
    ``video-swin``: a backbone's, for ``pretrained`` of `VideoSwin`; ``hub``: a text encoder of the Hugging Face hub"""
    addresses: tuple[Address, ...]
    """are tried in order; none for a file that comes with the package"""
    license: str
    config: str | None = None
    """``mmsoc::soc/NAME.py``"""
    scores: dict[str, float] = field(default_factory=dict)
    scored_on: str | None = None
    measured_by: str | None = None
    shipped: str | None = None
    """the file's name in mmsoc/weights/files, if it comes with the package"""

    @property
    def shipped_path(self) -> Path | None:
        return None if self.shipped is None else SHIPPED / self.shipped

    @property
    def size_text(self) -> str:
        size = self.addresses[0].size if self.shipped_path is None else self.shipped_path.stat().st_size
        return 'size not known' if size is None else f'{size / 1e6:.1f} MB'


def _video_swin(name: str, what: str, theirs: str, mmaction2: str | None) -> Weights:
    addresses = [Address(f'{_SWIN_AUTHORS}{theirs}.pth')]
    if mmaction2 is not None:
        recipe, _, version = mmaction2.rpartition('_2')
        addresses.append(address_of(f'{_MMACTION2}{recipe}/{recipe}_2{version}.pth'))
    return Weights(name, what, 'video-swin', tuple(addresses), _SWIN_LICENSE)


def _released(name: str, what: str, drive_id: str, config: str, **scores: float) -> Weights:
    return Weights(
        f'{name}_released',
        f"the authors' {what}",
        'released',
        (Address(_DRIVE + drive_id, name=f'{name}_released.pth'),),
        _NO_LICENSE,
        f'mmsoc::soc/released/{config}.py',
        {key.replace('JF', 'J&F'): score for key, score in scores.items()},
        'A2D-Sentences' if 'mAP' in scores else 'Ref-YouTube-VOS',
        'the paper',
    )


_RECIPE = 'p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb_20220930'
TABLE: dict[str, Weights] = {
    weights.name: weights
    for weights in (
        Weights(
            'soc-mini',
            'a small SOC on MovingShapes (configs/soc/soc_mini_moving-shapes.py)',
            'mmsoc',
            (),
            'Apache-2.0',
            scores={'J&F_appearance': 91.9, 'J&F_relation': 93.7, 'J&F_change': 88.2, 'J&F_order': 78.0, 'J&F': 88.0},
            scored_on='MovingShapes',
            measured_by='mmsoc',
            shipped='soc-mini-d92c9ff1.safetensors',
        ),
        Weights(
            'soc-mini_pretrained',
            'what soc-mini started from, and its text encoder: `load_from` of the ablations on MovingShapes',
            'mmsoc',
            (),
            'Apache-2.0',
            shipped='soc-mini_pretrained-1c3a5358.safetensors',
        ),
        _released(
            'soc_swin-t_ytvos',
            'SOC, Video-Swin-T, Ref-YouTube-VOS',
            '179Xv5t1pGTbloMnjf7OurRYo7TlfpmYy',
            'soc_swin-t_ytvos',
            JF=59.2,
            J=57.8,
            F=60.5,
        ),
        _released(
            'soc_swin-t_refcoco-pre_ytvos',
            'SOC, Video-Swin-T, RefCOCO, then Ref-YouTube-VOS',
            '1YzeUonrccqyglYvMK04lrbJBDStS51lV',
            'soc_swin-t_ytvos',
            JF=62.4,
            J=61.1,
            F=63.7,
        ),
        _released(
            'soc_swin-b_refcoco-pre_ytvos',
            'SOC, Video-Swin-B, RefCOCO, then Ref-YouTube-VOS',
            '1DX47RbXKI1_INIgyxh3ZuAiRMq7rMkql',
            'soc_swin-b_ytvos',
            JF=66.0,
            J=64.1,
            F=67.9,
        ),
        _released(
            'soc_swin-t_joint',
            'SOC, Video-Swin-T, jointly on RefCOCO and Ref-YouTube-VOS',
            '15mHrg2mry01PllEyZql9arAa6-zYHfGu',
            'soc_swin-t_ytvos',
            JF=65.0,
            J=63.3,
            F=66.7,
        ),
        _released(
            'soc_swin-b_joint',
            'SOC, Video-Swin-B, jointly on RefCOCO and Ref-YouTube-VOS',
            '1SaDLcQOn_a1L-Bw8LGB2CiQIGkZAO3Wu',
            'soc_swin-b_ytvos',
            JF=67.3,
            J=65.3,
            F=69.3,
        ),
        _released(
            'soc_swin-t_a2d',
            'SOC, Video-Swin-T, A2D-Sentences',
            '1ILmfHRRcOZ1CWo2l4fATF9SYYnc8ryTP',
            'soc_swin-t_a2d',
            mAP=50.4,
        ),
        _released(
            'soc_swin-t_refcoco-pre_a2d',
            'SOC, Video-Swin-T, RefCOCO, then A2D-Sentences',
            '1sJ40p6ql2k2JLYkUltPst-_51GdvGgC4',
            'soc_swin-t_a2d',
            mAP=54.8,
        ),
        _released(
            'soc_swin-b_refcoco-pre_a2d',
            'SOC, Video-Swin-B, RefCOCO, then A2D-Sentences',
            '10937_A8QUkTpD-fUjHg8_qN9HWMCXRG3',
            'soc_swin-b_a2d',
            mAP=57.3,
        ),
        _video_swin(
            'video-swin-t',
            'Video Swin-T, ImageNet-1k, then Kinetics-400',
            'swin_tiny_patch244_window877_kinetics400_1k',
            f'swin-tiny-{_RECIPE}-241016b2',
        ),
        _video_swin(
            'video-swin-s',
            'Video Swin-S, ImageNet-1k, then Kinetics-400',
            'swin_small_patch244_window877_kinetics400_1k',
            f'swin-small-{_RECIPE}-e91ab986',
        ),
        _video_swin(
            'video-swin-b',
            'Video Swin-B, ImageNet-1k, then Kinetics-400',
            'swin_base_patch244_window877_kinetics400_1k',
            f'swin-base-{_RECIPE}-182ec6cc',
        ),
        _video_swin(
            'video-swin-b_22k',
            'Video Swin-B, ImageNet-22k, then Kinetics-400',
            'swin_base_patch244_window877_kinetics400_22k',
            None,
        ),
        Weights(
            'roberta-base',
            'RoBERTa, the text encoder of the paper',
            'hub',
            (Address('hf://FacebookAI/roberta-base'),),
            'MIT',
        ),
    )
}


def find(name: str) -> Weights:
    """The entry of this name.

    Raises:
        WeightsNotFoundError: there is none; the message has the nearest names.
    """
    if name not in TABLE:
        nearest = difflib.get_close_matches(name, TABLE, n=3, cutoff=0.5) or list(TABLE)
        raise WeightsNotFoundError(
            f'there is no file {name!r} and no weights of this name; the nearest names: {", ".join(nearest)} '
            '(all: tools/weights.py list)'
        )
    return TABLE[name]


def markdown_table() -> str:
    """The table of docs/model_zoo.md."""
    lines = ['| name | what | config | licence | size | scores |', '|---|---|---|---|---|---|']
    for weights in TABLE.values():
        scores = ' / '.join(f'{score:g}' for score in weights.scores.values())
        names = ' / '.join(weights.scores)
        cells = [
            f'`{weights.name}`',
            weights.what,
            f'`{weights.config}`' if weights.config else '',
            weights.license,
            weights.size_text,
            f'{names} {scores} on {weights.scored_on} ({weights.measured_by})' if scores else '',
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)
