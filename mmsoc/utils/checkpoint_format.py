"""Compares what a checkpoint file declares with its content, before PyTorch reads it.

``torch.load(weights_only=True)`` alone is not enough: it allocates whatever the file declares. PyTorch 2.1, the oldest
version that mmsoc supports, also loads TorchScript, unpacks tar archives, and reads out of bounds if the pickle
declares a storage larger than the one in the file.
"""

import io
import pickle
import pickletools
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from mmsoc.utils.errors import UserError

MAX_PICKLE = 2**24
"""bytes of a checkpoint that are not weights: thousands of times the size of a config, optimizer bookkeeping and a
schedule"""
_MAX_TUPLE = 100_000
_MAX_TUPLE_DEPTH = 100
_ZIP = b'PK\x03\x04'
_LEGACY = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
"""first bytes of a file written by PyTorch before 1.6"""
# Functions with which `torch.save` rebuilds tensors and plain values. PyTorch accepts more, some of which allocate
# arbitrary memory.
_CALLABLE = {
    'torch': ('Size', 'device'),
    'torch._tensor': ('_rebuild_from_type_v2',),
    'torch._utils': (
        '_rebuild_meta_tensor_no_storage',
        '_rebuild_nested_tensor',
        '_rebuild_parameter',
        '_rebuild_parameter_with_state',
        '_rebuild_qtensor',
        '_rebuild_sparse_csr_tensor',
        '_rebuild_sparse_tensor',
        '_rebuild_tensor',
        '_rebuild_tensor_v2',
        '_rebuild_tensor_v3',
    ),
    'torch.serialization': ('_get_layout',),
    'collections': ('Counter', 'OrderedDict'),
    '_codecs': ('encode',),
    # as written by pickle protocol 2 and newer
    '__builtin__': ('complex', 'set'),
    'builtins': ('complex', 'set'),
}
_CLASSES = {'torch': ('Tensor',), 'torch.nn.parameter': ('Parameter',)}
# Bytes of a value, by the type of a tensor's storage. PyTorch writes all newer dtypes as bytes, UntypedStorage.
_STORAGES = {
    ('torch', f'{name}Storage'): size
    for size, names in {
        1: ('Bool', 'Byte', 'Char', 'QInt8', 'QUInt2x4', 'QUInt4x2', 'QUInt8'),
        2: ('BFloat16', 'Half', 'Short'),
        4: ('Float', 'Int', 'QInt32'),
        8: ('ComplexFloat', 'Double', 'Long'),
        16: ('ComplexDouble',),
    }.items()
    for name in names
} | {('torch.storage', 'UntypedStorage'): 1}


def check_format(path: Path, where: str) -> None:
    """
    Args:
        where: prefix of every message.

    Raises:
        UserError: PyTorch did not write the file, it is truncated, calls functions other than those that rebuild
            tensors and plain values, or declares more than it contains.
    """
    size = path.stat().st_size
    with path.open('rb') as file:
        start = file.read(512)
        file.seek(0)
        if start.startswith(_ZIP):
            _check_zip(file, size, where)
        elif start.startswith(_LEGACY):
            _check_legacy(file, size, where)
        else:
            found = f'a file that begins with {start[:12]!r}' if start else 'an empty file'
            raise UserError(f'{where}: expected what torch.save wrote, found {found}')


def _check_zip(file: BinaryIO, size: int, where: str) -> None:
    _check_directory(file, size, where)
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # zipfile raises many types, some of them undocumented
        raise UserError(f'{where}: it is truncated or broken: {error}') from None
    records = _records(archive, size, where)
    if 'constants.pkl' in records:
        raise UserError(f'{where}: expected what torch.save wrote, found a TorchScript archive')
    if 'data.pkl' not in records:
        raise UserError(f'{where}: expected what torch.save wrote, found a zip archive without data.pkl')
    entry = records['data.pkl']
    if entry.file_size > MAX_PICKLE:
        _refuse_pickle(entry.file_size, where)
    try:
        stream = io.BytesIO(archive.read(entry))
    except Exception as error:
        raise UserError(f'{where}: it is broken: {error}') from None
    for key, nbytes in _outline(stream, where).items():
        record = records.get(f'data/{key}'.lower())
        held = 0 if record is None else record.file_size
        if nbytes > held:
            raise UserError(f'{where}: a tensor has {nbytes:,} bytes of the entry data/{key}, which holds {held:,}')


def _check_directory(file: BinaryIO, size: int, where: str) -> None:
    """Checks that the zip directory is where both Python and PyTorch look for it, so that they see the same entries."""
    tail_size = 22 + 20 + 56  # end record, locator of the 64-bit end record, 64-bit end record
    file.seek(max(size - tail_size, 0))
    tail = file.read(tail_size)
    file.seek(0)
    if len(tail) < tail_size or not tail[-22:].startswith(b'PK\x05\x06'):
        raise UserError(f'{where}: it is truncated: the zip directory at its end is missing')
    length, offset, comment = struct.unpack('<LLH', tail[-10:])
    end = size - 22
    consistent = True
    if tail[-42:].startswith(b'PK\x06\x07'):
        end = size - tail_size
        length, offset = struct.unpack('<QQ', tail[40:56])
        consistent = tail.startswith(b'PK\x06\x06') and struct.unpack('<Q', tail[-34:-26])[0] == end
    if comment or not consistent or offset + length != end:
        raise UserError(f'{where}: it is broken: its zip directory is not where torch.save writes it')


def _records(archive: zipfile.ZipFile, size: int, where: str) -> dict[str, zipfile.ZipInfo]:
    """The entries by lower-case name, as PyTorch looks them up, without their common folder."""
    entries = archive.infolist()
    for entry in entries:
        name = entry.orig_filename
        if not name or name.startswith('/') or '..' in name.split('/') or set(name) & set('\\\0'):
            raise UserError(
                f'{where}: its entry {name!r} leads out of the archive: expected names as torch.save writes them'
            )
        if entry.compress_type != zipfile.ZIP_STORED:
            raise UserError(
                f'{where}: its entry {name!r} is compressed and declares {entry.file_size:,} bytes: torch.save compresses '
                'nothing'
            )
    total = sum(entry.file_size for entry in entries)
    if total > size:
        raise UserError(f'{where}: its entries declare {total:,} bytes, the file has {size:,}')
    folders = {entry.orig_filename.partition('/')[0] for entry in entries}
    records = {entry.orig_filename.partition('/')[2].lower(): entry for entry in entries}
    if len(folders) > 1 or len(records) < len(entries):
        raise UserError(f'{where}: its entries are not in one folder or have the same name')
    return records


def _check_legacy(file: BinaryIO, size: int, where: str) -> None:
    start = file.read(MAX_PICKLE + 1)
    if _is_tar(start[:512]):
        raise UserError(f'{where}: expected what torch.save wrote, found a tar archive')
    stream = io.BytesIO(start)
    storages: dict[str, int] = {}
    for _ in range(5):  # magic number, version, machine; the object; the keys of its storages, whose bytes follow
        storages.update(_outline(stream, where, size > MAX_PICKLE))
    if sum(storages.values()) > size:
        raise UserError(f'{where}: its tensors declare {sum(storages.values()):,} bytes, the file has {size:,}')


def _is_tar(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, 'utf-8', 'surrogateescape')
    except tarfile.TarError:
        return False
    return True


class _Global(NamedTuple):
    module: str
    name: str


class _Tuple(NamedTuple):
    items: tuple
    size: int
    """number of values and tuples, including nested ones"""
    depth: int


_MARK = object()
_ANY = object()  # with irrelevant content
_LITERALS: dict[str, Any] = {
    'NONE': None,
    'NEWTRUE': True,
    'NEWFALSE': False,
    'EMPTY_TUPLE': _Tuple((), 1, 1),
    'EMPTY_LIST': _ANY,
    'EMPTY_DICT': _ANY,
    'EMPTY_SET': _ANY,
    'MARK': _MARK,
}
_ARGUMENTS = {'BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE', 'SHORT_BINSTRING'}
# Instructions that pop the stack, with the number of values; None: all down to the mark.
_USED_UP = {'APPEND': 1, 'APPENDS': None, 'SETITEM': 2, 'SETITEMS': None, 'BUILD': 1}
_TUPLES = {'TUPLE': None, 'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


def _outline(stream: BinaryIO, where: str, is_long: bool = False) -> dict[str, int]:
    """Interprets a pickle's instructions (those that PyTorch reads with ``weights_only``) without building its objects.

    Args:
        is_long: whether a pickle that ends before its last instruction continues in the file.

    Returns:
        The number of bytes of each storage that its tensors use.
    """
    try:
        return _Outline(where).follow(stream)
    except UserError:
        raise
    except Exception as error:  # a broken pickle can raise anything
        if is_long and not stream.read(1):
            _refuse_pickle(MAX_PICKLE, where)
        raise UserError(f'{where}: it is truncated or broken: {error}') from None


class _Outline:
    def __init__(self, where: str) -> None:
        self._where = where
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, int] = {}

    def follow(self, stream: BinaryIO) -> dict[str, int]:
        for opcode, argument, _ in pickletools.genops(stream):
            self._step(opcode.name, argument)
        return self._storages

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _LITERALS:
            stack.append(_LITERALS[name])
        elif name in _ARGUMENTS:
            stack.append(argument)
        elif name in _TUPLES:
            stack.append(self._tuple(self._pop(_TUPLES[name])))
        elif name in _USED_UP:
            self._pop(_USED_UP[name])
        elif name in ('BINPUT', 'LONG_BINPUT'):
            self._memo[argument] = stack[-1]
        elif name in ('BINGET', 'LONG_BINGET'):
            stack.append(self._memo[argument])
        elif name == 'GLOBAL':
            stack.append(self._global(argument))
        elif name == 'REDUCE':
            self._call(*self._pop(2))
            stack.append(_ANY)
        elif name == 'BINPERSID':
            self._storage(stack.pop().items)
            stack.append(_ANY)
        elif name not in ('PROTO', 'STOP'):
            raise UserError(f'{self._where}: its pickle has the instruction {name}, which torch.save does not write')

    def _pop(self, count: int | None) -> list[Any]:
        if count is None:
            items = []
            while (item := self._stack.pop()) is not _MARK:
                items.append(item)
            return items[::-1]
        items, self._stack[-count:] = self._stack[-count:], []
        if len(items) < count:
            raise ValueError('an instruction without its operands')
        return items

    def _tuple(self, items: list[Any]) -> _Tuple:
        inside = [item for item in items if isinstance(item, _Tuple)]
        size = 1 + len(items) - len(inside) + sum(item.size for item in inside)
        depth = 1 + max((item.depth for item in inside), default=0)
        if size > _MAX_TUPLE or depth > _MAX_TUPLE_DEPTH:
            raise UserError(f'{self._where}: its pickle has a tuple of {size:,} values, nested {depth} deep')
        return _Tuple(tuple(items), size, depth)

    def _global(self, argument: str) -> _Global:
        found = _Global(*argument.split(' ', 1))
        if not (
            found.name in _CALLABLE.get(found.module, ())
            or found.name in _CLASSES.get(found.module, ())
            or _is_kind(found)
            or found in _STORAGES
        ):
            raise UserError(
                f'{self._where}: it names {found.module}.{found.name}: expected tensors and plain Python values only, since '
                'anything else can run code'
            )
        return found

    def _call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, _Global) or function.name not in _CALLABLE.get(function.module, ()):
            raise ValueError('it calls what is not a function')
        if not isinstance(arguments, _Tuple):
            raise ValueError('it calls a function without arguments')

    def _storage(self, items: tuple) -> None:
        label, kind, key, _, count = items[:5]
        if (
            label != 'storage'
            or kind not in _STORAGES
            or not isinstance(key, str)
            or not isinstance(count, int)
            or count < 0
        ):
            raise ValueError('it refers to something else than the storage of a tensor')
        self._storages[key] = max(self._storages.get(key, 0), count * _STORAGES[kind])


def _is_kind(found: _Global) -> bool:
    """``torch.float32``, ``torch.strided`` and the like."""
    return found.module == 'torch' and isinstance(
        getattr(torch, found.name, None), (torch.dtype, torch.layout, torch.qscheme)
    )


def _refuse_pickle(size: int, where: str) -> None:
    raise UserError(
        f'{where}: {size:,} bytes or more of it are not weights but a pickle: expected at most {MAX_PICKLE:,}'
    )
