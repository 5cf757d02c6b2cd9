import functools
import importlib.util
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import mmcv
import torch
import torch.nn.functional as F
from einops import rearrange
from mmengine.logging import print_log
from mmengine.utils import digit_version
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmsoc.models.layers.attention import attend_with_bias
from mmsoc.models.layers.recompute import linear_of_gelu, map_chunks, max_elements
from mmsoc.registry import MODELS
from mmsoc.utils.device import to_device
from mmsoc.utils.errors import UserError
from mmsoc.weights import WeightsNotFoundError, load_checkpoint


def _import_mmaction() -> ModuleType:
    """mmaction2, which refuses mmcv 2.2 and newer at import. What is used of it works with OneDL's fork, mmcv 2.3."""
    version = mmcv.__version__
    if digit_version(version) >= digit_version('2.2'):
        mmcv.__version__ = '2.1.0'
    try:
        return importlib.import_module('mmaction')
    finally:
        mmcv.__version__ = version


def _load_mmaction_swin() -> ModuleType:
    """mmaction2's ``swin`` module, without importing ``mmaction.models``.

    ``import mmaction.models`` fails with the released mmaction2 1.2.0 (open-mmlab/mmaction2#2714, and it imports timm
    and removed parts of transformers), while the one file needed here works alone. The file registers its class, and
    registering a name twice is an error: so an already imported module is reused, and one loaded here leaves the
    registry unchanged, so that all of mmaction2 can be imported later.
    """
    mmaction = _import_mmaction()
    registry = importlib.import_module('mmaction.registry').MODELS
    name = 'mmaction.models.backbones.swin'
    if name in sys.modules:
        return sys.modules[name]
    registered = registry.module_dict.get('SwinTransformer3D')
    if registered is not None:
        return sys.modules[registered.__module__]
    path = Path(mmaction.__path__[0]) / 'models' / 'backbones' / 'swin.py'
    spec = importlib.util.spec_from_file_location('mmsoc.models.backbones._mmaction_swin', path)
    assert spec is not None and spec.loader is not None, f'{path} is not a Python file'
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    registry.module_dict.pop('SwinTransformer3D')
    return module


_swin = _load_mmaction_swin()

# Attention weights too small to be split over several calls: 1 MiB of float32.
SMALL = 2**18


class _Grid(NamedTuple):
    """Layout of a map's tokens in the windows of a grid, and the masks of tokens that must not attend to each other.

    Shifting a map by ``shift`` moves its first rows after its last ones. Along each axis this affects only the last
    window, whose last ``shift`` places hold tokens from the front. So a window's mask depends only on whether it is the
    last along each of three axes: there are at most eight different masks, where mmaction2 keeps one per window.

    Letters: B clips of P = T*H*W tokens, V windows of all clips with N tokens each; windows with the same mask are
    adjacent. A place is a token's position in a window; there are V*N.
    """

    #: (V*N,) int64: the token (of B*P) in each place; 0 where the map was padded to whole windows.
    token_of_place: Tensor
    #: The padded places; None if there are none.
    empty_places: Tensor | None
    #: (B*P,) int64: the place of each token.
    place_of_token: Tensor
    #: N
    num_tokens: int
    #: Number of windows with each mask.
    counts: list[int]
    #: These masks, (N, N) float32, 0 or -100 between tokens of a window; None where no pair is masked.
    masks: list[Tensor | None]
    #: (V, N, N), the mask of each window; None if it would be large, or if all windows share one.
    mask_of_window: Tensor | None
    #: (3*V*H*N,) int32: indices of each window's queries, keys and values per head among those of the tokens,
    #: (B*P + 1)*3*H; padding has those of a last token.
    split: Tensor
    #: (B*P*3*H,) int32: the reverse.
    split_back: Tensor
    #: (number of padded places * 3*H,) int32: those of the padding, in each window; None without padding.
    split_empty: Tensor | None


# An entry takes 16 bytes for each token and 24 for each of its heads: 10 MB for 8 frames of 360x640 in Video-Swin-T's first stage.
@functools.lru_cache(maxsize=32)
def _grid(
    num_clips: int,
    size: tuple[int, ...],
    window: tuple[int, ...],
    shift: tuple[int, ...],
    num_heads: int,
    device: torch.device,
) -> _Grid:
    """The grid of maps of ``size`` (T, H, W). Computed on the CPU, since a GPU would make the host wait."""
    with torch.inference_mode(False):  # the cached tensors are used in training too
        numbers = [-(-n // w) for n, w in zip(size, window, strict=True)]
        num_tokens = num_clips * math.prod(size)
        padding = [n * w - length for n, w, length in zip(numbers, window, size, strict=True)]
        tokens = F.pad(
            torch.arange(num_tokens).view(num_clips, *size), (0, padding[2], 0, padding[1], 0, padding[0]), value=-1
        )
        tokens = tokens.roll([-s for s in shift], (1, 2, 3))
        tokens_VN = rearrange(
            tokens, 'b (t wt) (h wh) (w ww) -> (b t h w) (wt wh ww)', wt=window[0], wh=window[1], ww=window[2]
        )

        is_last = [torch.arange(n) == (n - 1 if s else n) for n, s in zip(numbers, shift, strict=True)]
        wrapped = [torch.arange(w) >= w - s for w, s in zip(window, shift, strict=True)]
        last_W3 = torch.stack(torch.meshgrid(*is_last, indexing='ij'), -1).flatten(0, 2)
        wrapped_N3 = torch.stack(torch.meshgrid(*wrapped, indexing='ij'), -1).flatten(0, 2)
        kinds, kind_of_window = last_W3.unique(dim=0, return_inverse=True)
        kind_of_window = kind_of_window.repeat(num_clips)
        order = kind_of_window.argsort(stable=True)
        parts_KN3 = wrapped_N3 & kinds[:, None]
        masks_KNN = (parts_KN3[:, :, None] != parts_KN3[:, None]).any(-1).float() * -100.0

        tokens_VN = tokens_VN[order]
        num_windows, in_window = tokens_VN.shape
        token_of_place = tokens_VN.flatten()
        real, empty = (token_of_place >= 0).nonzero()[:, 0], (token_of_place < 0).nonzero()[:, 0]
        place_of_token = torch.empty(num_tokens, dtype=torch.long)
        place_of_token[token_of_place[real]] = real

        kind, head = torch.arange(3).view(3, 1, 1, 1), torch.arange(num_heads)[:, None]
        tokens_V1N = torch.where(tokens_VN < 0, num_tokens, tokens_VN)[:, None]
        split = (tokens_V1N * 3 + kind) * num_heads + head

        def places_of_heads(places: Tensor) -> Tensor:
            """(n,) places -> (n, 3, H), the indices of their queries, keys and values among 3*V*H*N."""
            window, token = places[:, None, None] // in_window, places[:, None, None] % in_window
            return (
                (torch.arange(3)[:, None] * num_windows + window) * num_heads + torch.arange(num_heads)
            ) * in_window + token

        def send(index: Tensor) -> Tensor:
            return to_device(index.flatten().int(), device)

        several = len(kinds) > 1
        small = num_windows * in_window**2 <= SMALL
        return _Grid(
            token_of_place=to_device(token_of_place.clamp(min=0), device),
            empty_places=to_device(empty, device) if len(empty) else None,
            place_of_token=to_device(place_of_token, device),
            num_tokens=in_window,
            counts=kind_of_window.bincount().tolist(),
            masks=[to_device(mask, device) if mask.any() else None for mask in masks_KNN],
            mask_of_window=to_device(masks_KNN[kind_of_window[order]], device) if several and small else None,
            split=send(split),
            split_back=send(places_of_heads(place_of_token)),
            split_empty=send(places_of_heads(empty)) if len(empty) else None,
        )


class _Split(torch.autograd.Function):
    """Pads, shifts and splits queries, keys and values into windows and heads, in one copy."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, grid: _Grid, num_heads: int) -> Tensor:
        """(B*P, 3*C), with a last row for the padding if there is any -> (3, V, H, N, c)."""
        ctx.grid, ctx.shape = grid, qkv.shape
        channels = qkv.shape[1] // (3 * num_heads)
        return torch.embedding(qkv.view(-1, channels), grid.split).view(3, -1, num_heads, grid.num_tokens, channels)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        grid = ctx.grid
        rows = grad.reshape(-1, grad.shape[-1])
        if grid.split_empty is None:
            return torch.embedding(rows, grid.split_back).view(ctx.shape), None, None
        out = grad.new_empty(ctx.shape)
        torch.index_select(rows, 0, grid.split_back, out=out[:-1].view(-1, rows.shape[1]))
        torch.sum(torch.embedding(rows, grid.split_empty).view(-1, ctx.shape[1]), 0, out=out[-1])
        return out, None, None


class _Join(torch.autograd.Function):
    """The inverse of `_Split` for the attention's output; drops padding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: _Grid) -> Tensor:
        """(V, N, C) -> (B*P, C)."""
        ctx.grid, ctx.shape = grid, x.shape
        return torch.embedding(x.flatten(0, 1), grid.place_of_token)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _to_places(grad, ctx.grid).view(ctx.shape), None


def _to_places(tokens: Tensor, grid: _Grid) -> Tensor:
    """(B*P, C) -> (V*N, C), with zeros where the map was padded."""
    places = torch.embedding(tokens, grid.token_of_place)
    return places if grid.empty_places is None else places.index_fill_(0, grid.empty_places, 0.0)


class _WindowAttention(_swin.WindowAttention3D):  # type: ignore[name-defined, misc]
    """mmaction2's window attention in bounded memory.

    Its N x N weights (N = 392 tokens in a window of 8 x 7 x 7) dominate a training step's memory. PyTorch's fused
    kernels do not store them; where no kernel has the gradient of the position bias, `attend_with_bias` avoids storing
    them.
    """

    def forward(self, x: Tensor, grid: _Grid) -> Tensor:
        """(B*P, C) -> the same shape."""
        num_tokens = grid.num_tokens
        index = self.relative_position_index[:num_tokens, :num_tokens]
        # Contiguous, as PyTorch's GPU kernels require.
        bias_HNN = self.relative_position_bias_table[index].permute(2, 0, 1).contiguous()
        masks = list(zip(grid.counts, grid.masks, strict=True))
        if not torch.is_grad_enabled():
            windows = _to_places(x, grid).unflatten(0, (-1, num_tokens)).split(grid.counts)
            parts = [
                self._project_and_attend(part, bias_HNN if mask is None else bias_HNN + mask)
                for part, mask in zip(windows, grid.masks, strict=True)
            ]
            out = parts[0] if len(parts) == 1 else torch.cat(parts)
            return self.proj_drop(self.proj(torch.embedding(out.flatten(0, 1), grid.place_of_token)))

        # Padding takes part in the attention, as in the training of the published weights: as one more token of zeros.
        qkv = self.qkv(x if grid.empty_places is None else F.pad(x, (0, 0, 0, 1)))
        bias = bias_HNN
        if grid.mask_of_window is not None and self.num_heads * grid.mask_of_window.numel() <= SMALL:
            bias, masks = bias_HNN + grid.mask_of_window[:, None], []  # all windows in one call
        dropout = self.attn_drop.p if self.training else 0.0
        out = attend_with_bias(_Split.apply(qkv, grid, self.num_heads), bias, self.scale, dropout, masks)
        return self.proj_drop(self.proj(_Join.apply(out, grid)))

    def _project_and_attend(self, x: Tensor, bias: Tensor) -> Tensor:
        """Some windows (w, N, C), without a gradient; all at once would dominate a prediction's memory."""

        def attend(part: Tensor) -> Tensor:
            q, k, v = self.qkv(part).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
            out = F.scaled_dot_product_attention(q, k, v, bias.to(q.dtype)[None], scale=self.scale)
            return out.transpose(1, 2).flatten(-2)

        return map_chunks(attend, (x,), 3 * x.numel(), chunk_always=True)


class _Kept(NamedTuple):
    """The clips of a batch for which stochastic depth keeps a branch; the others are not computed."""

    #: Their number.
    num_clips: int
    #: (num_clips,) int64; None for all of them.
    clips: Tensor | None
    #: The branch's scale, 1 / (1 - p).
    scale: float


class _Skip(torch.autograd.Function):
    """A branch that no clip keeps. Its parameters get zero gradients, so that weight decay and DDP work as usual."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, *(
            torch.zeros_like(p) if needed else None
            for p, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True)
        )


class _Block(_swin.SwinTransformerBlock3D):  # type: ignore[name-defined, misc]
    def forward(self, x: Tensor, grid: _Grid | None, kept: tuple[_Kept, _Kept] | None) -> Tensor:
        """
        Args:
            x: (B, P, C).
            grid: of the clips that keep the attention; None if there are none.
            kept: stochastic depth of the attention and of the feed-forward network; None: all
                clips keep both.
        """
        x = self._branch(self._attention, (self.norm1, self.attn), x, kept and kept[0], grid)
        return self._branch(self._feed_forward, (self.norm2, self.mlp), x, kept and kept[1])

    def _branch(
        self, function: Callable[..., Tensor], modules: Sequence[nn.Module], x: Tensor, kept: _Kept | None, *args: Any
    ) -> Tensor:
        """``x`` plus the residual branch ``function(x, *args)``, which runs ``modules``."""
        if kept is None:
            return x + self._part(function, x, *args)
        if not kept.num_clips:
            return _Skip.apply(x, *(p for module in modules for p in module.parameters()))
        if kept.clips is None:
            return torch.add(x, self._part(function, x, *args), alpha=kept.scale)
        branch = self._part(function, x.index_select(0, kept.clips), *args)
        return torch.index_add(x, 0, kept.clips, branch.to(x.dtype), alpha=kept.scale)

    def _part(self, function: Callable[..., Tensor], *args: Any) -> Tensor:
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(function, *args, use_reentrant=False)
        return function(*args)

    def _attention(self, x: Tensor, grid: _Grid) -> Tensor:
        return self.attn(self.norm1(x).flatten(0, 1), grid).view(x.shape)

    def _feed_forward(self, x: Tensor) -> Tensor:
        mlp = self.mlp
        if not torch.is_grad_enabled():
            rows = x.flatten(0, -2)
            elements = len(rows) * mlp.fc1.out_features
            return map_chunks(lambda part: mlp(self.norm2(part)), (rows,), elements, chunk_always=True).view(x.shape)
        hidden = mlp.fc1(self.norm2(x))
        if (
            hidden.numel() > max_elements(hidden.device)
            and type(mlp.act) is nn.GELU
            and not (mlp.drop.p and self.training)
        ):
            return linear_of_gelu(hidden, mlp.fc2.weight, mlp.fc2.bias, mlp.act.approximate)
        return mlp.drop(mlp.fc2(mlp.drop(mlp.act(hidden))))


class _Stage(_swin.BasicLayer):  # type: ignore[name-defined, misc]
    def grids(self, num_clips: Sequence[int], size: Sequence[int], device: torch.device) -> list[_Grid | None]:
        """The grid of each block, for a number of maps of ``size`` (T, H, W); None for no map."""
        windows = [_swin.get_window_size(size, block.window_size, block.shift_size) for block in self.blocks]
        return [
            _grid(count, tuple(size), tuple(window), tuple(shift), block.attn.num_heads, device) if count else None
            for count, block, (window, shift) in zip(num_clips, self.blocks, windows, strict=True)
        ]

    def forward(
        self, x: Tensor, grids: Sequence[_Grid | None], kept: Sequence[tuple[_Kept, _Kept] | None]
    ) -> tuple[Tensor, Tensor | None]:
        """(B, T, H, W, C) -> the stage's output, same shape, and the next stage's input, None after the last."""
        tokens = x.flatten(1, 3)
        for block, grid, of_block in zip(self.blocks, grids, kept, strict=True):
            tokens = block(tokens, grid, of_block)
        x = tokens.view(x.shape)
        return x, self.downsample(x) if self.downsample is not None else None


@MODELS.register_module()
class VideoSwin(_swin.SwinTransformer3D):  # type: ignore[name-defined, misc]
    """Video Swin Transformer as SOC uses it (paper section 3.1): four unnormalized maps per frame.

    mmaction2's `SwinTransformer3D` with a temporal patch of one frame, each stage's output before patch merging, and no
    norm after a stage.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'``, ``'large'``, or a dict of embed_dims, depths, num_heads.
        pretrained: file or URL of a Video Swin checkpoint of mmaction2's, read in `init_weights`. A temporal
            patch of more than one frame is summed over time (which gives the same patches for a still video).
        window_size: frames, rows and columns of an attention window.
        drop_path_rate: stochastic depth of the last block.
        frozen_stages: number of frozen stages; -1 for none, 0 for the patch embedding only.
        with_cp: recompute the blocks in the backward pass (less memory, more time).
        patch_embed: replaces the published patch embedding, a single 4x4 convolution, e.g. `ConvPatchEmbed`: maps (B,
            3, T, H, W) to (B, embed_dims, T, ceil(H / 4), ceil(W / 4)).
    """

    def __init__(
        self,
        *,
        arch: str | dict = 'tiny',
        pretrained: str | None = None,
        window_size: Sequence[int] = (8, 7, 7),
        drop_path_rate: float = 0.2,
        frozen_stages: int = -1,
        with_cp: bool = False,
        patch_embed: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        kwargs: dict[str, Any] = {} if init_cfg is None else {'init_cfg': init_cfg}
        self.pretrained: str | None
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='torch.meshgrid')  # mmaction2 passes no `indexing`
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
                **kwargs,
            )
        if patch_embed is not None:
            self.patch_embed = MODELS.build(patch_embed)
        for index in self.out_indices:
            delattr(self, f'norm{index}')
        # mmaction2's modules hard-code each other's classes. The same modules and weights, run by the classes above.
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
            clip: (B, T, 3, H, W), or (B, 3, H, W) for single images.

        Returns:
            (B*T, C_i, ceil(H / s), ceil(W / s)) for s = 4, 8, 16, 32.
        """
        if clip.dim() == 4:
            clip = clip.unsqueeze(1)
        x_BCTHW = self.pos_drop(self.patch_embed(rearrange(clip, 'b t c h w -> b c t h w')))
        x_BTHWC = rearrange(x_BCTHW, 'b c t h w -> b t h w c').contiguous()
        outputs = []
        depth = self._stochastic_depth(len(x_BTHWC), x_BTHWC.device)
        num_clips = [[len(x_BTHWC) if kept is None else kept[0].num_clips for kept in of_blocks] for of_blocks in depth]
        grids = self._grids(num_clips, x_BTHWC.shape[1:4], x_BTHWC.device)
        for stage, of_blocks, kept in zip(self.layers, grids, depth, strict=True):
            level_BTHWC, x_BTHWC = stage(x_BTHWC, of_blocks, kept)
            # Not copied: convolutions are faster with the channels innermost, and tokens have them there.
            outputs.append(rearrange(level_BTHWC, 'b t h w c -> (b t) c h w'))
        return tuple(outputs)

    @torch.compiler.disable  # it reads numbers from tensors; the rest is one graph
    def _grids(
        self, num_clips: Sequence[Sequence[int]], size: Sequence[int], device: torch.device
    ) -> list[list[_Grid | None]]:
        """The grids of each stage's blocks, for a number of maps of ``size`` (T, H, W) in the first stage."""
        frames, height, width = size
        # Merging halves rows and columns, rounded up.
        return [
            stage.grids(counts, (frames, -(-height // 2**i), -(-width // 2**i)), device)
            for i, (stage, counts) in enumerate(zip(self.layers, num_clips, strict=True))
        ]

    def _stochastic_depth(self, num_clips: int, device: torch.device) -> list[list[tuple[_Kept, _Kept] | None]]:
        """For each block of each stage the clips that keep its two branches; None if nothing is ever dropped.

        Drawn on the CPU, so that the host knows what to skip without waiting for the device.
        """
        rates = [[getattr(block.drop_path, 'drop_prob', 0.0) for block in stage.blocks] for stage in self.layers]
        flat = [rate for stage in rates for rate in stage]
        if not self.training or not any(flat):
            return [[None] * len(stage) for stage in rates]
        keeps_2KB = torch.rand((2, len(flat), num_clips)) >= torch.tensor(flat)[:, None]
        clips_2KB = to_device(keeps_2KB.byte().argsort(stable=True, dim=-1, descending=True), device)
        kept = [
            [
                _Kept(count, None if count == num_clips else clips[:count], 1 / (1 - rate))
                for count, clips, rate in zip(counts, clips_KB, flat, strict=True)
            ]
            for counts, clips_KB in zip(keeps_2KB.sum(-1).tolist(), clips_2KB, strict=True)
        ]
        blocks = iter(zip(*kept, strict=True))
        return [[of_block if rate else None for rate, of_block in zip(stage, blocks, strict=False)] for stage in rates]

    def train(self, mode: bool = True) -> 'VideoSwin':
        super().train(mode)  # mmaction2's returns None, so that model.eval() could not be chained
        return self

    def init_weights(self) -> None:
        """Initializes the weights, then loads ``pretrained`` strictly.

        Raises:
            ValueError: the file lacks a weight of this backbone, or has an additional one or one of another shape.
        """
        pretrained: str | None = self.pretrained
        self.pretrained = None
        super().init_weights()  # with `pretrained` set, it would load without checking the keys
        self.pretrained = pretrained
        if pretrained:
            checkpoint = self._read(pretrained)
            self.load_state_dict(self.convert_state_dict(checkpoint.get('state_dict', checkpoint), source=pretrained))

    @staticmethod
    def _read(source: str) -> dict:
        print_log(f'VideoSwin: weights of {source}', 'current')
        try:
            return load_checkpoint(source, what='backbone weights (config key `model.backbone.pretrained`)')
        except (FileNotFoundError, WeightsNotFoundError) as error:
            raise type(error)(f'{error}\nto use another file: --cfg-options model.backbone.pretrained=FILE') from error

    def convert_state_dict(self, state_dict: dict[str, Tensor], source: str = 'the checkpoint') -> dict[str, Tensor]:
        """Converts the weights of a Video Swin recognizer or backbone to weights of this module.

        Raises:
            ValueError: see `init_weights`.
        """
        # The recognizer's head and last norm are not used here; the index tables are computed, not learned.
        if any(key.startswith('backbone.') for key in state_dict):
            state_dict = {
                key[len('backbone.') :]: value for key, value in state_dict.items() if key.startswith('backbone.')
            }
        known_unused = ('norm.', 'norm0.', 'norm1.', 'norm2.', 'norm3.', 'head.')
        state_dict = {
            key: value
            for key, value in state_dict.items()
            if not key.startswith(known_unused) and not key.endswith('attn_mask')
        }
        own = self.state_dict()
        for key in own:
            if key.endswith('relative_position_index'):
                state_dict[key] = own[key]
        kernel = state_dict.get('patch_embed.proj.weight')
        if kernel is not None and kernel.dim() == 5 and kernel.shape[2] > 1:
            state_dict['patch_embed.proj.weight'] = kernel.sum(2, keepdim=True)

        missing, unexpected = sorted(own.keys() - state_dict.keys()), sorted(state_dict.keys() - own.keys())
        shapes = [
            f'{key}: expected {tuple(own[key].shape)}, found {tuple(state_dict[key].shape)}'
            for key in own
            if key in state_dict and own[key].shape != state_dict[key].shape
        ]
        if missing or unexpected or shapes:

            def shorten(keys: list[str]) -> str:
                return f'{len(keys)}' + (f' ({", ".join(keys[:5])}{", ..." if len(keys) > 5 else ""})' if keys else '')

            raise UserError(
                f'{source} does not hold the weights of this VideoSwin (config key `backbone.pretrained`): missing '
                f'{shorten(missing)}, unexpected {shorten(unexpected)}, of another shape {shorten(shapes)}. '
                "Does `backbone.arch` name the checkpoint's architecture?"
            )
        return {
            key: value.to(torch.float32) if value.is_floating_point() else value for key, value in state_dict.items()
        }
