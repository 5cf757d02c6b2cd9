import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import mmaction
import torch
import torch.nn.functional as F
from einops import rearrange
from mmaction.registry import MODELS as MMACTION_MODELS
from mmengine.logging import print_log
from mmengine.runner.checkpoint import _load_checkpoint
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmsoc.models.layers.recompute import map_chunks
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


class _Shift(NamedTuple):
    """Which windows of a shifted grid hold what was not side by side before the shift, and what of it must not meet."""

    #: (number of windows,) int64: windows sorted so that those with the same mask lie together.
    order: Tensor
    #: How many windows have each mask.
    counts: list[int]
    #: (N, N) float32 each, 0 or -100 between the tokens of a window.
    masks: list[Tensor]

    @classmethod
    def of_grid(cls, grid: Sequence[int], window: Sequence[int], shift: Sequence[int], device: torch.device) -> '_Shift':
        """
        Rolling a map by ``shift`` brings its first rows behind its last ones.  Along each axis that concerns the last window alone,
        whose last ``shift`` places hold what came from the front.  So a window's mask depends on whether it is the last along each
        of three axes: there are at most eight different masks, where the released implementation keeps one for each window.
        """
        is_last = [torch.arange(n, device=device) == (n - 1 if s else n) for n, s in zip(grid, shift, strict=True)]
        came_round = [torch.arange(w, device=device) >= w - s for w, s in zip(window, shift, strict=True)]
        # (number of windows, 3) and (N, 3), in the order in which `_Block` cuts a map into windows.
        last_W3 = torch.stack(torch.meshgrid(*is_last, indexing='ij'), -1).flatten(0, 2)
        round_N3 = torch.stack(torch.meshgrid(*came_round, indexing='ij'), -1).flatten(0, 2)
        kinds, kind_of_window = last_W3.unique(dim=0, return_inverse=True)
        masks = []
        for kind in kinds:
            part = round_N3 & kind
            masks.append((part[:, None] != part[None]).any(-1).float() * -100.)
        return cls(kind_of_window.argsort(stable=True), kind_of_window.bincount().tolist(), masks)


class _WindowAttention(_swin.WindowAttention3D):  # type: ignore[name-defined, misc]
    """mmaction2's window attention through PyTorch's fused kernel.

    Its N x N weights (N = 392 tokens in a window of 8 x 7 x 7) are the largest part of a training step's memory.  The kernel does
    not make them; where a gradient has to reach the position bias it does, and then they are made for few windows at once, and
    again in the backward pass.
    """

    def forward(self, x: Tensor, shift: _Shift | None = None) -> Tensor:
        """
        Args:
            x (Tensor): (W, B, N, C), the windows of B clips.
            shift (_Shift, optional): then the windows are in its order.
        """
        num_tokens = x.shape[2]
        index = self.relative_position_index[:num_tokens, :num_tokens]
        bias_HNN = self.relative_position_bias_table[index].permute(2, 0, 1)
        counts, masks = (shift.counts, shift.masks) if shift is not None else ([len(x)], [None])
        with_gradient = torch.is_grad_enabled()
        attend = self._attend if with_gradient else self._project_and_attend
        out = [attend(part.flatten(0, 1), bias_HNN if mask is None else bias_HNN + mask)
               for part, mask in zip((self.qkv(x) if with_gradient else x).split(counts), masks, strict=True)]
        return self.proj_drop(self.proj(torch.cat(out).view(x.shape)))

    def _project_and_attend(self, x: Tensor, bias_HNN: Tensor) -> Tensor:
        """Without a gradient: queries, keys and values of all windows would be the largest part of a prediction's memory."""
        return map_chunks(lambda part: self._attend(self.qkv(part), bias_HNN), (x, ), 3 * x.numel(), chunk_always=True)

    def _attend(self, qkv: Tensor, bias_HNN: Tensor) -> Tensor:

        def attend(qkv: Tensor) -> Tensor:
            q, k, v = rearrange(qkv, 'w n (three h c) -> three w h n c', three=3, h=self.num_heads)
            dropout = self.attn_drop.p if self.training else 0.
            out = F.scaled_dot_product_attention(q, k, v, bias_HNN.to(q.dtype)[None], dropout, scale=self.scale)
            return rearrange(out, 'w h n c -> w n (h c)')

        return map_chunks(attend, (qkv, ), len(qkv) * bias_HNN.numel(), chunk_always=False)


class _Block(_swin.SwinTransformerBlock3D):  # type: ignore[name-defined, misc]

    def forward(self, x: Tensor, shift: _Shift | None) -> Tensor:
        """
        Args:
            x (Tensor): (B, T, H, W, C).
            shift (_Shift): of the shifted grid; a block that does not shift ignores it.
        """
        shift = shift if any(self.shift_size) else None
        x = x + self.drop_path(self._part(self._attention, x, shift))
        return x + self._part(self._feed_forward, x)

    def _part(self, function: Callable[..., Tensor], *args: Any) -> Tensor:
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(function, *args, use_reentrant=False)
        return function(*args)

    def _attention(self, x: Tensor, shift: _Shift | None) -> Tensor:
        size = x.shape[1:4]
        window, shift_size = _swin.get_window_size(size, self.window_size, self.shift_size)
        x = self.norm1(x)
        # Padding takes part in the attention, as it did when the published weights were trained.
        padding = [-n % w for n, w in zip(size, window, strict=True)]
        x = F.pad(x, (0, 0, 0, padding[2], 0, padding[1], 0, padding[0]))
        padded = x.shape[1:4]
        if shift is not None:
            x = x.roll([-s for s in shift_size], (1, 2, 3))
        grid = dict(zip(('t', 'h', 'w'), (n // w for n, w in zip(padded, window, strict=True)), strict=True))
        windows = rearrange(x, 'b (t wt) (h wh) (w ww) c -> (t h w) b (wt wh ww) c', **grid, wt=window[0], wh=window[1])
        if shift is None:
            windows = self.attn(windows)
        else:
            windows = self.attn(windows[shift.order], shift)[shift.order.argsort()]
        x = rearrange(windows, '(t h w) b (wt wh ww) c -> b (t wt) (h wh) (w ww) c', **grid, wt=window[0], wh=window[1])
        if shift is not None:
            x = x.roll(list(shift_size), (1, 2, 3))
        return x[:, :size[0], :size[1], :size[2]]


    def _feed_forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            rows = x.flatten(0, -2)
            elements = len(rows) * self.mlp.fc1.out_features
            out = map_chunks(lambda part: self.mlp(self.norm2(part)), (rows, ), elements, chunk_always=True)
            return self.drop_path(out.view(x.shape))
        # What the non-linearity gives is as large as what it takes; the first can be had again from the second.
        hidden = self.mlp.fc1(self.norm2(x)).flatten(0, -2)
        out = map_chunks(lambda part: self.mlp.fc2(self.mlp.act(part)), (hidden, ), hidden.numel(), chunk_always=True)
        return self.drop_path(out.view(x.shape))


class _Stage(_swin.BasicLayer):  # type: ignore[name-defined, misc]

    def shift(self, size: Sequence[int], device: torch.device) -> _Shift | None:
        """Of the shifted grid of a map of ``size`` (T, H, W); None if one window holds it all."""
        window, shift_size = _swin.get_window_size(size, self.window_size, self.shift_size)
        if not any(shift_size):
            return None
        return _Shift.of_grid([-(-n // w) for n, w in zip(size, window, strict=True)], window, shift_size, device)

    def forward(self, x: Tensor, shift: _Shift | None) -> tuple[Tensor, Tensor | None]:
        """(B, T, H, W, C) -> the stage's output, same shape, and the next stage's input, None behind the last."""
        for block in self.blocks:
            x = block(x, shift)
        return x, self.downsample(x) if self.downsample is not None else None


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
        # mmaction2's modules name each other's classes in their code and take no others.  The same modules and weights, run by
        # the classes above.
        for stage in self.layers:
            stage.__class__ = _Stage
            for block in stage.blocks:
                block.__class__ = _Block
                block.attn.__class__ = _WindowAttention

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
        x_BTHWC = rearrange(x_BCTHW, 'b c t h w -> b t h w c').contiguous()
        outputs = []
        for stage, shift in zip(self.layers, self._shifts(x_BTHWC.shape[1:4], x_BTHWC.device), strict=True):
            level_BTHWC, x_BTHWC = stage(x_BTHWC, shift)
            outputs.append(rearrange(level_BTHWC, 'b t h w c -> (b t) c h w').contiguous())
        return tuple(outputs)

    @torch.compiler.disable  # how many windows share a mask is read from a tensor: here once, all else is one graph
    def _shifts(self, size: Sequence[int], device: torch.device) -> list[_Shift | None]:
        """The shifted grid of each stage, for a map of ``size`` (T, H, W) in the first."""
        frames, height, width = size
        # Merging halves rows and columns, rounded up.
        sizes = [(frames, -(-height // 2**i), -(-width // 2**i)) for i in range(len(self.layers))]
        return [stage.shift(size, device) for stage, size in zip(self.layers, sizes, strict=True)]

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
            checkpoint = self._read(pretrained)
            self.load_state_dict(self.convert_state_dict(checkpoint.get('state_dict', checkpoint), source=pretrained))
            print_log(f'VideoSwin: weights of {pretrained}', logger='current')

    @staticmethod
    def _read(source: str) -> dict:
        is_url = '://' in source
        if is_url:
            print_log(f'VideoSwin: weights of {source}, in {torch.hub.get_dir()}/checkpoints or to be downloaded there', 'current')
        try:
            return _load_checkpoint(source, map_location='cpu')
        except OSError as error:  # no such file; no network (URLError and HTTPError are OSErrors)
            raise FileNotFoundError(
                f'the backbone weights {source} (config key `model.backbone.pretrained`) cannot be '
                f'{"downloaded" if is_url else "read"} ({error}); '
                + (f'on a machine with a network `wget {source}`, then give the file' if is_url else 'give another file')
                + ': --cfg-options model.backbone.pretrained=FILE') from error

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
