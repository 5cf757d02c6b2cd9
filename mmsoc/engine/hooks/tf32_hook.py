from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmsoc.registry import HOOKS
from mmsoc.utils.precision import set_tf32


@HOOKS.register_module()
class TF32Hook(Hook):
    """Switches TF32 products of float32 numbers on or off, for GPUs that support them (Ampere and newer).

    PyTorch's default is mixed: TF32 in convolutions, float32 in matrix products. Predictions have a separate setting,
    ``model.test_cfg.precision``.

    Args:
        enabled: TF32 in matrix products and convolutions; otherwise in neither. False by default.
    """

    def __init__(self, enabled: bool = False) -> None:
        self.enabled = enabled

    def before_run(self, runner: Runner) -> None:
        set_tf32(self.enabled)
