import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import MessageHub
from torch import Tensor

# Iterations in a row whose losses may overflow in float16 before training stops: a scale of 65,536 takes 16 to come down to 1.
MAX_OVERFLOWS = 50


class LossMonitor:
    """The one place of a training step where the host waits for the device: it checks that all is finite, and logs the losses."""

    def __init__(self) -> None:
        self._overflows = 0  # iterations in a row
        self._logged: dict[str, tuple[Tensor, float]] = {}  # the last losses, where they are and as numbers

    def check(self, losses: Mapping[str, Tensor], suspects: Mapping[str, Tensor], source: str) -> None:
        """Notes the losses, and stops a training that went astray.

        Args:
            losses: scalars.
            suspects: what else must be finite, by the names that the message gives them.
            source: the videos and sentences, for the message.

        Raises:
            FloatingPointError: something is not finite; in float16 only after `MAX_OVERFLOWS` iterations in a row, since until then
                the scaler skips the step and lowers its scale.
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
        """As ``BaseModel.parse_losses``, with the numbers that `check` knows; None if these are other losses."""
        logged, self._logged = self._logged, {}
        if logged.keys() != losses.keys() or any(
            logged[name][0].data_ptr() != losses[name].data_ptr() for name in losses
        ):
            return None
        total = torch.stack([value for name, value in losses.items() if 'loss' in name]).sum()
        numbers = {name: number for name, (_, number) in logged.items()}
        return total, dict(loss=sum(number for name, number in numbers.items() if 'loss' in name), **numbers)


def _autocast_dtype(device: torch.device) -> torch.dtype:
    """What products are computed in: float32 where autocast is off."""
    return torch.mm(*torch.empty((2, 1, 1), device=device)).dtype
