import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import mmaction
import torch
from einops import rearrange
from mmaction.registry import MODELS as MMACTION_MODELS
from mmengine.logging import print_log
from mmengine.runner.checkpoint import _load_checkpoint
from torch import Tensor

from mmsoc.registry import MODELS


def _load_mmaction_swin() -> ModuleType:
    """mmaction2's ``swin`` module, without importing ``mmaction.models``.

    ``import mmaction.models`` fails with the released mmaction2 1.2.0 (open-mmlab/mmaction2#2714, and it imports timm and parts of
    transformers that are gone), while the one file that is wanted here works alone.  The file registers its class, and a second
    registration of the name is an error: so a module that somebody has imported already is taken, and one that is loaded here
    leaves the registry as it was found, ready for a later import of the whole of mmaction2.
    """
    name = 'mmaction.models.backbones.swin'
    if name in sys.modules:
        return sys.modules[name]
    registered = MMACTION_MODELS.module_dict.get('SwinTransformer3D')
    if registered is not None:
        return sys.modules[registered.__module__]
    path = Path(mmaction.__file__).parent / 'models' / 'backbones' / 'swin.py'
    spec = importlib.util.spec_from_file_location('mmsoc.models.backbones._mmaction_swin', path)
    assert spec is not None and spec.loader is not None, f'{path} is not a Python file'
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    MMACTION_MODELS.module_dict.pop('SwinTransformer3D')
    return module


_swin = _load_mmaction_swin()


@MODELS.register_module()
class VideoSwin(_swin.SwinTransformer3D):  # type: ignore[name-defined, misc]
    """Video Swin Transformer as SOC uses it (paper section 3.1): four un-normed maps per frame.

    mmaction2's `SwinTransformer3D` with a temporal patch of one frame, the output of each stage before it is merged into the next,
    and no norm behind a stage.

    Args:
        arch (str | dict): ``'tiny'``, ``'small'``, ``'base'``, ``'large'``, or a dict of embed_dims, depths, num_heads.
        pretrained (str, optional): file or URL of a Video Swin checkpoint of mmaction2's, read in `init_weights`.  A temporal
            patch of more than one frame is summed over time (a video that stands still then gives the same patches).
        window_size (Sequence[int]): frames, rows and columns of an attention window.
        drop_path_rate (float): stochastic depth of the last block.
        frozen_stages (int): stages that are not trained; -1 for none, 0 for the patch embedding alone.
        with_cp (bool): recompute the blocks in the backward pass (less memory, more time).
        patch_embed (dict, optional): another patch embedding than the published one of a single 4x4 convolution, e.g.
            `ConvPatchEmbed`: maps (B, 3, T, H, W) to (B, embed_dims, T, ceil(H / 4), ceil(W / 4)).
    """

    def __init__(self,
                 *,
                 arch: str | dict = 'tiny',
                 pretrained: str | None = None,
                 window_size: Sequence[int] = (8, 7, 7),
                 drop_path_rate: float = 0.2,
                 frozen_stages: int = -1,
                 with_cp: bool = False,
                 patch_embed: dict | None = None,
                 init_cfg: dict | list | None = None) -> None:
        kwargs: dict[str, Any] = {} if init_cfg is None else {'init_cfg': init_cfg}
        self.pretrained: str | None
        super().__init__(
            arch=arch,
            pretrained=pretrained,
            pretrained2d=False,
            patch_size=(1, 4, 4),
            window_size=tuple(window_size),
            drop_path_rate=drop_path_rate,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            out_indices=(0, 1, 2, 3),
            **kwargs)
        if patch_embed is not None:
            self.patch_embed = MODELS.build(patch_embed)
        for index in self.out_indices:
            delattr(self, f'norm{index}')

    @property
    def out_channels(self) -> tuple[int, ...]:
        return tuple(self.num_features)

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            clip (Tensor): (B, T, 3, H, W), or (B, 3, H, W) for single images.

        Returns:
            tuple[Tensor]: (B*T, C_i, ceil(H / s), ceil(W / s)) for s = 4, 8, 16, 32.
        """
        if clip.dim() == 4:
            clip = clip.unsqueeze(1)
        x_BCTHW = self.pos_drop(self.patch_embed(rearrange(clip, 'b t c h w -> b c t h w')))
        outputs = []
        for layer in self.layers:
            x_BTHWC = layer(x_BCTHW.contiguous(), do_downsample=False)
            outputs.append(rearrange(x_BTHWC, 'b t h w c -> (b t) c h w').contiguous())
            if layer.downsample is not None:
                x_BCTHW = rearrange(layer.downsample(x_BTHWC), 'b t h w c -> b c t h w')
        return tuple(outputs)

    def train(self, mode: bool = True) -> 'VideoSwin':
        super().train(mode)  # mmaction2's returns None, so that model.eval() could not be chained
        return self

    def init_weights(self) -> None:
        """Fresh weights, then those of ``pretrained``, every key accounted for.

        Raises:
            ValueError: if the file lacks a weight of this backbone, holds one that it does not have, or of another shape.
        """
        pretrained: str | None = self.pretrained
        self.pretrained = None
        super().init_weights()  # with `pretrained` set, it would load without looking at the keys
        self.pretrained = pretrained
        if pretrained:
            checkpoint = _load_checkpoint(pretrained, map_location='cpu')
            self.load_state_dict(self.convert_state_dict(checkpoint.get('state_dict', checkpoint), source=pretrained))
            print_log(f'VideoSwin: weights of {pretrained}', logger='current')

    def convert_state_dict(self, state_dict: dict[str, Tensor], source: str = 'the checkpoint') -> dict[str, Tensor]:
        """A Video Swin recogniser's or backbone's weights as weights of this module.

        Raises:
            ValueError: see `init_weights`.
        """
        # The recogniser's head and its last norm have no place here; the index tables are made, not learned.
        if any(key.startswith('backbone.') for key in state_dict):
            state_dict = {key[len('backbone.'):]: value for key, value in state_dict.items() if key.startswith('backbone.')}
        known_unused = ('norm.', 'norm0.', 'norm1.', 'norm2.', 'norm3.', 'head.')
        state_dict = {key: value for key, value in state_dict.items()
                      if not key.startswith(known_unused) and not key.endswith('attn_mask')}
        own = self.state_dict()
        for key in own:
            if key.endswith('relative_position_index'):
                state_dict[key] = own[key]
        kernel = state_dict.get('patch_embed.proj.weight')
        if kernel is not None and kernel.dim() == 5 and kernel.shape[2] > 1:
            state_dict['patch_embed.proj.weight'] = kernel.sum(2, keepdim=True)

        missing, unexpected = sorted(own.keys() - state_dict.keys()), sorted(state_dict.keys() - own.keys())
        shapes = [f'{key}: expected {tuple(own[key].shape)}, found {tuple(state_dict[key].shape)}'
                  for key in own if key in state_dict and own[key].shape != state_dict[key].shape]
        if missing or unexpected or shapes:
            def shorten(keys: list[str]) -> str:
                return f'{len(keys)}' + (f' ({", ".join(keys[:5])}{", ..." if len(keys) > 5 else ""})' if keys else '')
            raise ValueError(
                f'{source} does not hold the weights of this VideoSwin (config key `backbone.pretrained`): missing '
                f'{shorten(missing)}, unexpected {shorten(unexpected)}, of another shape {shorten(shapes)}. '
                "Does `backbone.arch` name the checkpoint's architecture?")
        return {key: value.to(torch.float32) if value.is_floating_point() else value for key, value in state_dict.items()}
