import re
from collections.abc import Mapping, Sequence

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, find_latest_checkpoint
from torch import nn
from torch.distributed.fsdp import FullStateDictConfig, FullyShardedDataParallel, StateDictType

from mmsoc.registry import HOOKS
from mmsoc.utils.errors import UserError

_SHOWN = 10


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Refuses a checkpoint that does not fit the model, where MMEngine would log a warning and run with random weights.

    Args:
        allow_missing: regular expressions (``re.search``) of names that the model has and the checkpoint may lack.
        allow_unexpected: the same for names that only the checkpoint has. A tensor of another shape is both missing and
            unexpected, so it needs to match both lists.

    Raises:
        ValueError: on load, listing up to ten names each that are missing, unexpected or of another shape.
    """

    def __init__(self, *, allow_missing: Sequence[str] = (), allow_unexpected: Sequence[str] = ()) -> None:
        for key, patterns in (('allow_missing', allow_missing), ('allow_unexpected', allow_unexpected)):
            if isinstance(patterns, str):
                raise UserError(
                    f'StrictLoadHook.{key} is the string {patterns!r}: expected a list of regular expressions'
                )
        self.allow_missing = [re.compile(pattern) for pattern in allow_missing]
        self.allow_unexpected = [re.compile(pattern) for pattern in allow_unexpected]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        source = runner._load_from or (find_latest_checkpoint(runner.work_dir) if runner._resume else None)
        problem = self.mismatch(whole_state_dict(runner.model), checkpoint.get('state_dict', checkpoint))
        if problem:
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            raise UserError(
                f'checkpoint {source or "(file not known)"} does not fit the model {type(model).__name__}:\n{problem}'
            )

    def mismatch(self, expected: Mapping, found: Mapping) -> str:
        """How the state dict ``found`` differs from a model's state dict ``expected``; '' if it fits."""
        found = {re.sub(r'^module\.', '', str(key)): value for key, value in found.items()}
        if not any(isinstance(value, torch.Tensor) for value in found.values()):
            return (
                'it holds no tensors, expected a state dict or a dict with the key `state_dict`; found the keys '
                f'{sorted(found)[:_SHOWN]}'
            )

        def allowed(patterns: list[re.Pattern], name: str) -> bool:
            return any(pattern.search(name) for pattern in patterns)

        # BatchNorm's counter is absent from old checkpoints and changes nothing.
        missing = [
            f'{name} {shape(value)}'
            for name, value in expected.items()
            if name not in found and not name.endswith('num_batches_tracked') and not allowed(self.allow_missing, name)
        ]
        unexpected = [
            f'{name} {shape(value)}'
            for name, value in found.items()
            if name not in expected and not allowed(self.allow_unexpected, name)
        ]
        reshaped = [
            f'{name}: {shape(value)} in the model, {shape(found[name])} in the checkpoint'
            for name, value in expected.items()
            if name in found
            and shape(value) != shape(found[name])
            and not (allowed(self.allow_missing, name) and allowed(self.allow_unexpected, name))
        ]
        if not (missing or unexpected or reshaped):
            return ''
        fits = sum(1 for name, value in expected.items() if name in found and shape(value) == shape(found[name]))
        lines = [f"  {fits} of the model's {len(expected)} tensors fit; the checkpoint has {len(found)}."]
        if fits < len(expected) / 2:
            lines.append(
                '  Less than half fits: is it a checkpoint of another architecture, or does it need a converter '
                '(tools/model_converters)?'
            )
        for title, names in (
            ('missing from the checkpoint', missing),
            ('not in the model', unexpected),
            ('of another shape', reshaped),
        ):
            if names:
                lines.append(f'  {len(names)} {title}:')
                lines += [f'    {name}' for name in names[:_SHOWN]]
                if len(names) > _SHOWN:
                    lines.append(f'    ... and {len(names) - _SHOWN} more')
        lines.append(
            '  If this is meant, allow the names by regular expressions in the config: '
            "custom_hooks = [dict(type='StrictLoadHook', allow_missing=[...], allow_unexpected=[...]), ...] "
            '(another shape: in both).'
        )
        return '\n'.join(lines)


def whole_state_dict(model: nn.Module) -> Mapping[str, torch.Tensor]:
    """The state dict of the model inside its wrapper, with whole tensors on every process if it is sharded."""
    if isinstance(model, FullyShardedDataParallel):
        whole = FullStateDictConfig(rank0_only=False, offload_to_cpu=False)
        with FullyShardedDataParallel.state_dict_type(model, StateDictType.FULL_STATE_DICT, whole):
            return model.state_dict()
    return (model.module if is_model_wrapper(model) else model).state_dict()


def shape(value: object) -> tuple:
    """A tensor's shape; of anything else (extra state) the empty tuple."""
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()
