"""The config key ``model.test_cfg``."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from einops import rearrange
from mmengine.logging import print_log
from torch import Tensor, nn

from mmsoc.registry import TASK_UTILS
from mmsoc.utils.errors import UserError
from mmsoc.utils.precision import use_tf32

from .memory import FrameMemory, ThinnedFrames
from .outputs import MaskOutput, ThresholdedMasks
from .selectors import QueryByLength, QuerySelector

PRECISIONS = ('fp32', 'tf32', 'bf16', 'fp16')
_SLOTS = dict(selector='QueryByLength', output='ThresholdedMasks', memory='ThinnedFrames')
_EARLIER_DEFAULTS = dict(selector='QueryPerVideo')  # in base configs of earlier versions, hence not a choice


@dataclass(frozen=True)
class PredictionConfig:
    """How a `SOC` predicts. Immutable: ``dataclasses.replace`` makes another one.

    Raises:
        UserError: a value is out of range.
    """

    predict_layer: int = -1
    """the decoder layer that predicts: -1, the last (the paper); 0, the first (the released implementation)"""
    frames_per_pass: int = 32
    """number of frames that run at once after the backbone, counted once per sentence. A clip's frames always run
    together, so a long clip runs one sentence at a time."""
    frames_per_clip: int | None = None
    """cut longer videos into clips of this many frames, predicted independently, each with its own query. The published
    protocol of Ref-DAVIS17 uses 36; None: never"""
    precision: str = 'fp32'
    """one of `PRECISIONS`. tf32 affects GPUs only; with bf16 and fp16 (PyTorch's autocast) deformable attention samples
    in float32."""
    compile: bool = False
    """compile the backbone with ``torch.compile`` for predictions"""
    selector: QuerySelector = field(default_factory=QueryByLength)
    """chooses the queries whose masks a sentence gets: `QueryByLength`, `QueryPerVideo` (the paper), `QueryPerFrame`,
    `AllQueries`"""
    output: MaskOutput = field(default_factory=ThresholdedMasks)
    """how logits become masks: `ThresholdedMasks`, `MasksAndLogits`, `A2DMasks`"""
    memory: FrameMemory = field(default_factory=ThinnedFrames)
    """chooses the frames that a live stream keeps for the cluster: `ThinnedFrames`, `RecentFrames`"""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(f'model.test_cfg.precision={self.precision!r}: expected one of {PRECISIONS}')
        if self.frames_per_pass < 1:
            raise UserError(f'model.test_cfg.frames_per_pass={self.frames_per_pass}: expected at least 1')
        if self.frames_per_clip is not None and self.frames_per_clip < 1:
            raise UserError(f'model.test_cfg.frames_per_clip={self.frames_per_clip}: expected at least 1, or None')
        for slot in _SLOTS:
            found, base = getattr(self, slot), _base_of(slot)
            if not isinstance(found, base):
                raise UserError(f'model.test_cfg.{slot}={found!r}: expected dict(type=...) of a {base.__name__}')

    @classmethod
    def from_dict(cls, cfg: Mapping[str, Any] | None) -> 'PredictionConfig':
        """Builds the slots from ``dict(type=...)``; a slot without ``type`` keeps its default type.

        Raises:
            UserError: an unknown key or type, or a value out of range.
        """
        options = _with_new_keys(dict(cfg or {}))
        known = [item.name for item in fields(cls)]
        unknown = sorted(options.keys() - set(known))
        if unknown:
            raise UserError(f'model.test_cfg: unknown {unknown}; expected some of {known}')
        for slot, default in _SLOTS.items():
            if isinstance(options.get(slot), Mapping):
                options[slot] = _build(slot, dict(type=default) | dict(options[slot]))
        return cls(**options)

    def layer_of(self, num_layers: int) -> int:
        """``predict_layer`` counted from 0.

        Raises:
            UserError: the decoder has no such layer.
        """
        if not -num_layers <= self.predict_layer < num_layers:
            raise UserError(f'model.test_cfg.predict_layer={self.predict_layer}: the decoder has {num_layers} layers')
        return self.predict_layer % num_layers

    def sentences_at_once(self, num_frames: int) -> int:
        """Number of sentences that run at once for a clip of this many frames."""
        return max(self.frames_per_pass // num_frames, 1)

    @contextmanager
    def autocast(self, device: torch.device) -> Iterator[None]:
        """A context in which everything runs in ``precision``."""
        half = dict(bf16=torch.bfloat16, fp16=torch.float16).get(self.precision)
        with use_tf32(self.precision == 'tf32'), torch.autocast(device.type, half) if half else nullcontext():
            yield

    def backbone_of(self, model: nn.Module) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """The model's backbone, compiled if ``compile`` is set; training never sees the compiled one."""
        return _compiled(model.backbone) if self.compile else model.backbone


def _build(slot: str, cfg: dict) -> Any:
    if isinstance(cfg['type'], str) and TASK_UTILS.get(cfg['type']) is None:
        kinds = TASK_UTILS.module_dict.items()
        known = sorted(name for name, kind in kinds if isinstance(kind, type) and issubclass(kind, _base_of(slot)))
        raise UserError(f'model.test_cfg.{slot}: there is no type {cfg["type"]!r}; there are {known}')
    return TASK_UTILS.build(cfg)


def _base_of(slot: str) -> type:
    return dict(selector=QuerySelector, output=MaskOutput, memory=FrameMemory)[slot]


def _with_new_keys(options: dict[str, Any]) -> dict[str, Any]:
    """Translates keys of older configs to the current ones."""
    if options.get('all_queries') and options.get('return_logits'):
        raise UserError(
            'model.test_cfg: all_queries and return_logits do not go together; expected at most one of them'
        )
    chosen: dict[str, dict[str, Any]] = {}
    if options.pop('query_per_frame', False):
        chosen['query_per_frame'] = dict(selector=dict(type='QueryPerFrame'))
    if options.pop('all_queries', False):
        chosen['all_queries'] = dict(selector=dict(type='AllQueries'), output=dict(type='A2DMasks'))
    if options.pop('return_logits', False):
        chosen['return_logits'] = dict(output=dict(type='MasksAndLogits'))
    if 'mask_threshold' in options:
        chosen['mask_threshold'] = dict(output=dict(mask_threshold=options.pop('mask_threshold')))
    given = dict(_SLOTS)
    for slot, default in _SLOTS.items():
        if isinstance(options.get(slot), Mapping):
            given[slot] = options[slot].get('type', default)
    for old, slots in chosen.items():
        new = ', '.join(f'{slot}={_as_written(values)}' for slot, values in slots.items())
        print_log(f'model.test_cfg.{old} is now {new}', logger='current', level=logging.WARNING)
        for slot, values in slots.items():
            if 'type' in values and given[slot] not in (_SLOTS[slot], _EARLIER_DEFAULTS.get(slot), values['type']):
                # Set explicitly, for example by an option, while the stored config has the old key.
                message = f'model.test_cfg.{slot}.type={given[slot]!r} counts, not {old}'
                print_log(message, logger='current', level=logging.WARNING)
                continue
            options[slot] = dict(options.get(slot) or {}) | values
    return options


def _as_written(values: dict[str, Any]) -> str:
    return f'dict({", ".join(f"{key}={value!r}" for key, value in values.items())})'


def _compiled(module: nn.Module) -> Callable[..., Any]:
    """``torch.compile`` of a module, made once and cached without registering it as a submodule."""
    found = module.__dict__.get('_mmsoc_compiled')
    if found is None:
        # Without symbolic sizes, to which PyTorch switches at the second size: deriving windows from them takes
        # minutes.
        found = torch.compile(module, dynamic=False)
        # einops caches each tensor type that it sees; a new type would trigger recompilation.
        for tensor in (torch.zeros(1), nn.Parameter(torch.zeros(1))):
            rearrange(tensor, 'n -> n')
        module.__dict__['_mmsoc_compiled'] = found
    return found
