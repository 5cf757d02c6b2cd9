"""A device that does not exist: shows on any machine what would mix devices on a GPU, or make the host wait for it.

    with PretendDevice() as device:
        model.to(DEVICE)
        model(inputs.to(DEVICE), samples, mode='loss')
    device.waits  # Counter of (operation, 'file:line')

A tensor of the device wraps a CPU tensor, which does the arithmetic: results are those of the CPU. What the device adds:

- An operation on tensors of both kinds raises, as on CUDA. CUDA lets through copies, index tensors, and numbers without a dimension
  in pointwise operations; so does this.
- Every operation for which CUDA makes the host wait is counted at the line that asked for it (`PretendDevice.waits`).
- mmcv's compiled deformable attention checks its arguments as its CUDA code does, then runs in PyTorch.

Importing this module registers the device. PyTorch takes one such backend per process, for good: only a process of its own may
import it. Missing are autocast, streams, events, a second device, and what asks ``torch.cuda.is_available()``, such as mmcv's
compiled focal loss.
"""

import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import mmcv.ops
import mmcv.ops.multi_scale_deform_attn as mmcv_attention
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = re.compile(r'.*/(?:site|dist)-packages/(.+)')
# Code that says nothing about who asked for an operation.
PASSED_OVER = re.compile(
    r'.*/(?:site|dist)-packages/(?:torch|einops)/|<|'
    + '|'.join(re.escape(path) for path in (sysconfig.get_path('stdlib') + '/', __file__))
)

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
TAKE_NUMBERS = {aten.fill_, aten.masked_fill, aten.masked_fill_, aten.index_put, aten.index_put_}
# The size of their result, or the result itself, is a number that the host needs.
WAITING = {
    aten._local_scalar_dense: 'item',
    aten.equal: 'equal',
    aten.nonzero: 'nonzero',
    aten.masked_select: 'masked_select',
    aten.bincount: 'bincount',
    aten.repeat_interleave: 'repeat_interleave',  # unless it is given `output_size`
    aten._unique: 'unique',
    aten._unique2: 'unique',
    aten.unique_dim: 'unique',
    aten.unique_consecutive: 'unique_consecutive',
    aten.unique_dim_consecutive: 'unique_consecutive',
    aten._linalg_check_errors: 'check of linalg',
}


def synchronize(*_: Any) -> None:
    """The host waits until the device is done: as ``torch.cuda.synchronize``.

    Reached by ``torch.get_device_module(device).synchronize()`` and ``torch.accelerator.synchronize()``.
    """
    if PretendDevice.active is not None:
        PretendDevice.active.wait('synchronize')


_setup_privateuseone_for_python_backend(
    'pretend',
    backend_module=SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        device=lambda index: nullcontext(),
        manual_seed_all=lambda seed: None,
        synchronize=synchronize,
        get_amp_supported_dtype=lambda: [torch.float16, torch.bfloat16],  # asked for by autocast(enabled=False) too
        _is_in_bad_fork=lambda: False,
    ),
)
DEVICE = torch.device('pretend', 0)


class PretendTensor(torch.Tensor):
    """A tensor on `DEVICE`.

    Attributes:
        held: the CPU tensor with its numbers, of the same shape and strides.
        from_number: PyTorch made it from a Python number for ``x[...] = number``.
    """

    held: Tensor
    from_number: bool
    # What mmcv and mmsoc ask when they choose the compiled operation.
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> 'PretendTensor':
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, layout=held.layout, device=DEVICE
        )
        tensor.held, tensor.from_number = held, False
        return tensor

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:  # type: ignore[override]  # PyTorch's runs operations on the tensor, which end here
        return f'PretendTensor({self.held})'

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return _run(function, args, kwargs or {})


class PretendDevice(TorchDispatchMode):
    """The block in which tensors can be made on the device, and in which waits are counted.

    A wait is

    - reading a number (``item()``, ``bool()``, ``tolist()``, ``torch.equal``), or an operation whose result has a size that depends
      on the numbers (``nonzero``, ``unique``, ``bincount``, indexing by bool, ...);
    - a copy to the CPU. One with ``non_blocking=True`` is no wait, but has garbage in it until the next wait of any kind: call
      ``synchronize``, which is one for however many copies;
    - a copy to the device, such as `torch.tensor(..., device=)` and index tensors on the CPU, unless it is ``non_blocking=True``.
      CUDA also wants pinned memory then, which cannot exist without a GPU: ``pin_memory()`` makes a plain copy.

    Attributes:
        waits: how often the host waited, by operation and place: 'file:line', and behind it the line of ours that called it, where
            the first is a library's.
    """

    active: 'PretendDevice | None' = None

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self._under_way: list[tuple[Tensor, Tensor]] = []  # CPU tensors, and what a copy writes into them
        self._patches = ExitStack()

    def __enter__(self) -> 'PretendDevice':
        operations = SimpleNamespace(
            ms_deform_attn_forward=deformable_attention, ms_deform_attn_backward=deformable_attention
        )
        for patch in (
            mock.patch.multiple(mmcv_attention, IS_CUDA_AVAILABLE=True, ext_module=operations),
            mock.patch.object(mmcv.ops, 'get_compiling_cuda_version', lambda: '12.8'),
            mock.patch.object(torch.accelerator, 'synchronize', synchronize),
            mock.patch.object(PretendDevice, 'active', self),
        ):
            self._patches.enter_context(patch)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is aten._pin_memory.default:
            return args[0].clone()
        if kwargs.get('pin_memory'):
            kwargs = {**kwargs, 'pin_memory': False}
        return _run(function, args, kwargs)

    def report(self) -> str:
        """The number of waits, and a line for each operation and place."""
        lines = [f'{count:4} x {operation} at {place}' for (operation, place), count in self.waits.most_common()]
        return '\n'.join([f'{self.waits.total()} waits', *lines])

    def wait(self, operation: str) -> None:
        """The host waits here: all copies that are under way arrive."""
        self.waits[operation, _place()] += 1
        arrived, self._under_way = self._under_way, []
        for target, source in arrived:
            target.copy_(source)

    def copy_later(self, target: Tensor, source: Tensor) -> None:
        """A copy into a CPU tensor, which holds garbage until the host waits."""
        self._under_way.append((target, source.clone()))
        target.copy_(torch.full_like(source, torch.nan) if source.is_floating_point() else ~source)


def _run(function: Any, args: tuple, kwargs: dict) -> Any:
    """One operation of PyTorch's, on the CPU tensors that its arguments hold."""
    tensors = _tensors((args, list(kwargs.values())))
    on_cpu = [tensor for tensor in tensors if not isinstance(tensor, PretendTensor)]
    pretended = len(on_cpu) < len(tensors)
    device = kwargs.get('device')
    to_pretend = pretended if device is None else torch.device(device).type == DEVICE.type
    if not pretended and not to_pretend:
        return function(*args, **kwargs)
    if pretended and torch.Tag.inplace_view in function.tags:
        raise NotImplementedError(f'{function}: the pretend device cannot change the shape of a tensor in place')
    if pretended and function not in COPIES:
        _check_devices(function, args, on_cpu)
    later = False
    active = PretendDevice.active
    if active is not None:
        if function in COPIES and tensors:
            later = _note_copy(active, function, args, kwargs, tensors, to_pretend)
        elif pretended:
            _note_wait(active, function, args, kwargs, on_cpu)
    if device is not None and to_pretend:
        kwargs = {**kwargs, 'device': 'cpu'}
    result = function(*_map(_held, args), **{name: _map(_held, value) for name, value in kwargs.items()})
    if later:
        active.copy_later(result, _held(tensors[-1]).to(result.dtype).expand_as(result))
    written = _written(function)
    if written is not None:
        index, name = written
        return kwargs[name] if name in kwargs else args[index]
    if not to_pretend:
        return result
    result = _map(_pretend, result)
    if function is aten.scalar_tensor.default:
        result.from_number = True
    return result


def _map(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same lists and tuples with ``function`` of everything in them."""
    return type(tree)([_map(function, part) for part in tree]) if isinstance(tree, (list, tuple)) else function(tree)


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, (list, tuple)):
        return [tensor for part in tree for tensor in _tensors(part)]
    return [tree] if isinstance(tree, Tensor) else []


def _held(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, PretendTensor) else leaf


def _pretend(leaf: Any) -> Any:
    return PretendTensor(leaf) if type(leaf) is Tensor else leaf


@cache
def _written(function: Any) -> tuple[int, str] | None:
    """Place and name of the argument that an operation in place, or with ``out=``, returns."""
    schema = function._schema
    if len(schema.returns) == 1 and schema.returns[0].alias_info is not None:
        for index, argument in enumerate(schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                return index, argument.name
    return None  # a view, or a new tensor


def _check_devices(function: Any, args: tuple, on_cpu: Sequence[Tensor]) -> None:
    """Raises where CUDA would say that all tensors must be on one device."""
    indices = {id(index) for index in _tensors(args[1])} if function in INDEXING else set()
    takes_numbers = torch.Tag.pointwise in function.tags or function.overloadpacket in TAKE_NUMBERS
    for tensor in on_cpu:
        if id(tensor) not in indices and (tensor.dim() or not takes_numbers):
            raise RuntimeError(f'{function}: a CPU tensor {tuple(tensor.shape)} among those on {DEVICE}, at {_place()}')


def _note_copy(
    device: PretendDevice, function: Any, args: tuple, kwargs: dict, tensors: Sequence[Tensor], to_pretend: bool
) -> bool:
    """Counts a copy between CPU and device if the host waits for it; whether it is one to the CPU that arrives later."""
    target = to_pretend if function is aten._to_copy.default else isinstance(tensors[0], PretendTensor)
    if target == isinstance(tensors[-1], PretendTensor):
        return False
    if function is aten.copy_.default and len(args) > 2:
        non_blocking = args[2]
    else:
        non_blocking = kwargs.get('non_blocking', False)
    if not non_blocking:
        device.wait('copy to the device' if target else 'copy to the CPU')
    return non_blocking and not target


def _note_wait(device: PretendDevice, function: Any, args: tuple, kwargs: dict, on_cpu: Sequence[Tensor]) -> None:
    """Counts any other operation for which the host waits."""
    if function in INDEXING:
        value = args[2] if len(args) > 2 else None
        # CUDA fills where a mask is true without a wait; under other indices it copies the number to the device first.
        number = value is not None and (value.from_number if isinstance(value, PretendTensor) else not value.dim())
        if any(index.dtype == torch.bool for index in _tensors(args[1])):
            if not number:
                device.wait('index by bool')
        elif number or on_cpu:
            device.wait('copy to the device')
    elif function.overloadpacket in WAITING and kwargs.get('output_size') is None:
        device.wait(WAITING[function.overloadpacket])


def _place() -> str:
    """The innermost line outside of PyTorch; where that is a library's, also the line of ours that led there."""
    found: list[str] = []
    frame = sys._getframe(1)
    while frame is not None:
        name, line = frame.f_code.co_filename, frame.f_lineno
        library = LIBRARY.match(name)
        if library and not found and not PASSED_OVER.match(name):
            found.append(f'{library[1]}:{line}')
        elif not library and not PASSED_OVER.match(name):
            name = str(Path(name).relative_to(ROOT)) if Path(name).is_relative_to(ROOT) else name
            return ' < '.join([*found, f'{name}:{line}'])
        frame = frame.f_back
    return found[0] if found else 'the backward pass'  # which has no Python lines


def deformable_attention(
    value: Tensor,
    shapes: Tensor,
    starts: Tensor,
    locations: Tensor,
    weights: Tensor,
    *gradients: Tensor,
    im2col_step: int,
) -> Tensor:
    """mmcv's compiled operation, forward; backward, if given the output's gradient and where three gradients go.

    Raises:
        RuntimeError: the arguments are not as ``ms_deform_attn_cuda.cu`` asks, or larger than its int32 offsets reach.
    """
    inputs = dict(value=value, shapes=shapes, starts=starts, locations=locations, weights=weights)
    for number, gradient in enumerate(gradients):
        inputs[f'gradient {number}'] = gradient
    for name, tensor in inputs.items():
        _require(isinstance(tensor, PretendTensor), f'{name} is not on {DEVICE}')
        _require(tensor.is_contiguous(), f'{name} is not contiguous')
        expected = torch.int64 if name in ('shapes', 'starts') else value.dtype
        _require(tensor.dtype == expected, f'{name} is {tensor.dtype}, expected {expected}')
    _require(value.dtype in (torch.float32, torch.float16), f'{value.dtype} is neither float32 nor float16')
    batch = len(value)
    step = min(batch, im2col_step)
    _require(batch % step == 0, f'a batch of {batch} is no multiple of im2col_step, {step}')
    _require(batch * max(value[0].numel(), locations[0].numel()) < 2**31, 'more elements than int32 offsets reach')

    with torch.set_grad_enabled(bool(gradients)):
        leaves = [tensor.held.detach().requires_grad_(bool(gradients)) for tensor in (value, locations, weights)]
        sampled = mmcv_attention.multi_scale_deformable_attn_pytorch(leaves[0], shapes.held, leaves[1], leaves[2])
    if gradients:
        found = torch.autograd.grad(sampled, leaves, gradients[0].held)
        for target, gradient in zip(gradients[1:], found, strict=True):
            target.held.copy_(gradient)
    return PretendTensor(sampled)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise RuntimeError(f'ms_deform_attn: {message}, at {_place()}')


# `torch.tensor(..., device=)` and `new_tensor()` switch the mode off: these two reach the device past it.
_LIBRARY = torch.library.Library('aten', 'IMPL')
_LIBRARY.impl(
    'empty_strided',
    lambda size, stride, dtype=None, **_: PretendTensor(torch.empty_strided(size, stride, dtype=dtype, device='cpu')),
    'PrivateUse1',
)
_LIBRARY.impl('_copy_from', lambda source, target, *_: _run(aten.copy_.default, (target, source), {}), 'PrivateUse1')
