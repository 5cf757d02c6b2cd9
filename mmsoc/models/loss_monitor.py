import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import MessageHub
from torch import Tensor

# Consecutive iterations whose losses may overflow in float16 before training stops: a scale of 65,536 needs 16 to fall
# to 1.
MAX_OVERFLOWS = 50


class LossMonitor:
    """Checks that all values are finite and logs the losses: the only wait for the device in a training step."""

    def __init__(self) -> None:
        self._overflows = 0  # consecutive iterations
        self._logged: dict[str, tuple[Tensor, float]] = {}  # the last losses, as tensors and as numbers

    def check(self, losses: Mapping[str, Tensor], suspects: Mapping[str, Tensor], source: str) -> None:
        """Records the losses, and stops a diverging training.

        Args:
            losses: scalars.
            suspects: other values that must be finite, by their names in the message.
            source: the videos and sentences, for the message.

        Raises:
            FloatingPointError: a value is not finite; in float16 only after `MAX_OVERFLOWS` consecutive iterations,
                since until then the scaler skips the step and lowers its scale.
        """
        sums = {name: value.detach().sum(dtype=torch.float32) for name, value in suspects.items()} | {
            name: value.detach().float() for name, value in losses.items()
        }
        numbers = dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))
        self._logged = {name: (value.detach(), numbers[name]) for name, value in losses.items()}
        wrong = [name for name, number in numbers.items() if not math.isfinite(number)]
        if not wrong:
            self._overflows = 0
            return
        self._overflows += 1
        in_half = _autocast_dtype(next(iter(losses.values())).device) == torch.float16
        if in_half and self._overflows < MAX_OVERFLOWS:
            return
        iteration = MessageHub.get_current_instance().get_info('iter', None)
        raise FloatingPointError(
            f'not finite in iteration {iteration}: {", ".join(wrong)} ({source})'
            + (f', and in the {self._overflows - 1} before' if in_half else '')
            + '. Lower the learning rate, check `optim_wrapper.clip_grad`, or leave out --amp.'
        )

    def parse(self, losses: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any]] | None:
        """Like ``BaseModel.parse_losses``, with the numbers that `check` has read; None for other losses."""
        logged, self._logged = self._logged, {}
        if logged.keys() != losses.keys() or any(
            logged[name][0].data_ptr() != losses[name].data_ptr() for name in losses
        ):
            return None
        total = torch.stack([value for name, value in losses.items() if 'loss' in name]).sum()
        numbers = {name: number for name, (_, number) in logged.items()}
        return total, dict(loss=sum(number for name, number in numbers.items() if 'loss' in name), **numbers)


def _autocast_dtype(device: torch.device) -> torch.dtype:
    """The dtype of products; float32 if autocast is off."""
    return torch.mm(*torch.empty((2, 1, 1), device=device)).dtype
