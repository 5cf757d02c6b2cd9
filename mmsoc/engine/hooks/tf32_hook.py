from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmsoc.registry import HOOKS
from mmsoc.utils.precision import set_tf32


@HOOKS.register_module()
class TF32Hook(Hook):
    """Whether a run multiplies float32 numbers in TF32 on GPUs that can (Ampere and newer).

    PyTorch's default is neither: TF32 in convolutions, float32 in matrix products. Predictions have a setting of their own,
    ``model.test_cfg.precision``.

    Args:
        enabled: TF32 in matrix products and convolutions; otherwise in neither. False by default.
    """

    def __init__(self, enabled: bool = False) -> None:
        self.enabled = enabled

    def before_run(self, runner: Runner) -> None:
        set_tf32(self.enabled)
