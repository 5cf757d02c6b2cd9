"""Fully sharded training (``runner_type='FlexibleRunner'``, ``FSDPStrategy``)."""

from typing import Any

import torch
import torch.distributed as dist
from mmengine._strategy import FSDPStrategy as MMEngineFSDPStrategy
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from mmsoc.registry import FUNCTIONS, OPTIM_WRAPPERS, STRATEGIES
from mmsoc.utils.errors import UserError


@FUNCTIONS.register_module()
def wrap_layers(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """An ``auto_wrap_policy`` for FSDP: each transformer layer is a separate unit.

    These layers are called as modules. Modules that SOC calls by other methods (SIM, the head) belong to the outermost
    unit, which is unsharded while SOC runs.
    """
    return ModuleWrapPolicy(_layer_classes())(module, recurse, nonwrapped_numel)


def _layer_classes() -> set[type[nn.Module]]:
    # Imported here: every tool imports this package, and importing the models of mmdet and transformers takes seconds.
    from mmdet.models.layers import DetrTransformerDecoderLayer, DetrTransformerEncoderLayer
    from transformers.models.roberta.modeling_roberta import RobertaLayer

    from mmsoc.models.backbones.video_swin import _Block

    return {_Block, RobertaLayer, DetrTransformerEncoderLayer, DetrTransformerDecoderLayer}


@STRATEGIES.register_module()
class FSDPStrategy(MMEngineFSDPStrategy):
    """MMEngine's FSDP strategy, with resumption fixed and with CPU support.

    MMEngine passes the arguments that restore the optimizer in an order that PyTorch >= 2.1 does not accept.

    Args:
        model_wrapper: of `MMFullyShardedDataParallel`.
        state_dict_cfg: ``'full'`` or ``'local'``, or MMEngine's dict.
    """

    def __init__(
        self, *, model_wrapper: dict | None = None, state_dict_cfg: str | dict = 'local', **kwargs: Any
    ) -> None:
        if get_device() == 'cpu':
            # MMEngine's default is the local rank, a CUDA device.
            model_wrapper = {'type': 'MMFullyShardedDataParallel', **(model_wrapper or {}), 'device_id': 'cpu'}
            if state_dict_cfg == 'full':
                # MMEngine's 'full' means "offload to the CPU", which on a CPU copies nothing: the checkpoint would
                # refer to memory that FSDP has freed.
                state_dict_cfg = dict(
                    state_dict_type='FULL_STATE_DICT',
                    state_dict_config=dict(type='FullStateDictConfig', offload_to_cpu=False, rank0_only=False),
                    optim_state_dict_config=dict(
                        type='FullOptimStateDictConfig', offload_to_cpu=False, rank0_only=False
                    ),
                )
        super().__init__(model_wrapper=model_wrapper, state_dict_cfg=state_dict_cfg, **kwargs)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        optimizer = self.optim_wrapper.optimizer
        self.optim_wrapper.load_state_dict(
            FullyShardedDataParallel.optim_state_dict_to_load(
                model=self.model, optim=optimizer, optim_state_dict=state_dict
            )
        )


@OPTIM_WRAPPERS.register_module()
class ShardedOptimWrapper(OptimWrapper):
    """`OptimWrapper` that clips by the norm of the whole gradient, of which each process holds a part.

    MMEngine clips by the norm of each process's part, which would scale the parts of one gradient differently.
    """

    def _clip_grad(self) -> None:
        settings = dict(self.clip_grad_kwargs)
        kind = settings.pop('type', 'norm')
        max_norm, norm_type = settings.get('max_norm'), settings.get('norm_type', 2)
        if kind != 'norm' or norm_type != 2 or max_norm is None:
            raise UserError(
                f'optim_wrapper.clip_grad={self.clip_grad_kwargs}: ShardedOptimWrapper clips by the 2-norm only; '
                'expected dict(max_norm=..., norm_type=2)'
            )
        gradients = [
            parameter.grad
            for group in self.optimizer.param_groups
            for parameter in group['params']
            if parameter.grad is not None
        ]
        device = gradients[0].device if gradients else self.optimizer.param_groups[0]['params'][0].device
        squared = sum((gradient.float().square().sum() for gradient in gradients), torch.zeros((), device=device))
        if dist.is_initialized():
            dist.all_reduce(squared)
        norm = squared.sqrt()
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale.to(gradient.dtype))
        self.message_hub.update_scalar('train/grad_norm', float(norm))
