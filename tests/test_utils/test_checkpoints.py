"""Checkpoints of others: what MMEngine and PyTorch write is read; what is hostile is refused, and nothing in it is executed."""

import collections
import io
import os
import pickle
import struct
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version
from torch import nn

from mmsoc.engine.hooks.plain_checkpoint_hook import plain
from mmsoc.utils.checkpoints import config_of_checkpoint, read_checkpoint, weights_of
from mmsoc.utils.config_text import MAX_CHARACTERS
from mmsoc.utils.errors import UserError

GIB = 2**30
CONFIG = "model = dict(type='SOC')\n"


def save(path: Path, weights=None, config=CONFIG, **kwargs) -> Path:
    """A checkpoint as MMEngine writes it, with one weight unless ``weights`` are given."""
    weights = {'w': torch.arange(8.0)} if weights is None else weights
    torch.save(dict(state_dict=weights, meta=dict(cfg=config)), path, **kwargs)
    return path


def rewrite(path: Path, change, names=lambda name: name, compression=zipfile.ZIP_STORED) -> Path:
    """The zip archive with other contents and names."""
    with zipfile.ZipFile(path) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, content in entries:
            archive.writestr(names(name), change(name, content))
    return path


def with_pickle(path: Path, change) -> Path:
    """The checkpoint with another pickle."""
    return rewrite(save(path), lambda name, content: change(content) if name.endswith('data.pkl') else content)


class Call:
    """Pickled, it calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# ---------------------------------------------------------------------------------------------------------------- what is read


def test_what_mmengine_writes(tmp_path):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    meta = plain(
        dict(
            cfg=CONFIG,
            epoch=3,
            seed=2**40,
            big=2**70,
            rate=1e-5,
            none=None,
            flags=(True, False),
            names={'a', 'b'},
            array=np.eye(2),
            nested=[dict(a=((1, (2,)),))],
            text='ä\n',
        ),
        'meta',
    )
    written = dict(
        meta=meta,
        state_dict=model.state_dict(),
        optimizer=optimizer.state_dict(),
    )
    torch.save(written, tmp_path / 'a.pth')
    read = read_checkpoint(tmp_path / 'a.pth')
    assert {key: value for key, value in read.items() if key not in ('state_dict', 'optimizer')} == {
        key: value for key, value in written.items() if key not in ('state_dict', 'optimizer')
    }
    model.load_state_dict(read['state_dict'])
    assert read['state_dict']._metadata == model.state_dict()._metadata
    optimizer.load_state_dict(read['optimizer'])
    assert config_of_checkpoint(read, 'a.pth').model == dict(type='SOC')


@pytest.mark.skipif(digit_version(torch.__version__) < digit_version('2.6'), reason='PyTorch 2.6 reads them')
def test_other_plain_values(tmp_path):
    values = dict(
        size=torch.Size([2, 3]),
        dtype=torch.bfloat16,
        device=torch.device('cpu'),
        kinds={1, 2},
        counts=collections.Counter('aab'),
        raw=b'\x00\xff',
        z=1j,
    )
    torch.save(dict(state_dict={'w': torch.ones(1)}, meta=values), tmp_path / 'a.pth')
    assert read_checkpoint(tmp_path / 'a.pth')['meta'] == values


@pytest.mark.parametrize(
    'dtype',
    [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32]
    + [torch.int64, torch.bool],
)
@pytest.mark.parametrize('legacy', [False, True])
def test_dtypes_and_formats(tmp_path, dtype, legacy):
    weights = {'a': torch.tensor([[0, 1], [1, 1]], dtype=dtype), 'empty': torch.zeros(0, dtype=dtype)}
    path = save(tmp_path / 'a.pth', weights, _use_new_zipfile_serialization=not legacy)
    read = weights_of(read_checkpoint(str(path)))
    assert list(read) == ['a', 'empty']
    assert all(torch.equal(read[name], weights[name]) and read[name].dtype == dtype for name in weights)


def test_large_values_are_finite(tmp_path):
    """Their sum is not."""
    weights = {
        str(dtype): torch.full((4,), torch.finfo(dtype).max, dtype=dtype) for dtype in (torch.float16, torch.float32)
    }
    assert set(weights_of(read_checkpoint(save(tmp_path / 'a.pth', weights)))) == set(weights)


def test_shared_and_sliced_tensors(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    weights = {
        'whole': whole,
        'again': whole,
        'slice': whole[1:, ::2],
        'turned': whole.T,
        'parameter': nn.Parameter(whole),
    }
    read = weights_of(read_checkpoint(save(tmp_path / 'a.pth', weights)))
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    assert read['whole'].data_ptr() == read['again'].data_ptr()


def test_where_the_weights_are(tmp_path):
    torch.save({'w': torch.ones(1)}, tmp_path / 'alone.pth')
    assert list(weights_of(read_checkpoint(tmp_path / 'alone.pth'))) == ['w']
    torch.save(dict(model_state_dict={'w': torch.ones(1)}, epoch=3), tmp_path / 'released.pth')
    read = read_checkpoint(tmp_path / 'released.pth', weights_key='model_state_dict')
    assert list(weights_of(read, 'model_state_dict')) == ['w'] and read['epoch'] == 3
    with pytest.raises(
        UserError,
        match='released.pth: expected weights under the key state_dict, or a state dict alone, found epoch, model_state_dict',
    ):
        read_checkpoint(tmp_path / 'released.pth')


def test_safetensors(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    path = tmp_path / 'a.safetensors'
    save_file({'w': torch.arange(3.0)}, path)
    assert torch.equal(weights_of(read_checkpoint(path))['w'], torch.arange(3.0))
    assert list(read_checkpoint(path, weights_key='model_state_dict')) == ['model_state_dict']
    save_file({'w': torch.tensor([float('nan')])}, path)
    with pytest.raises(UserError, match=r'w \(1 of 1\)'):
        read_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match='a.safetensors cannot be read: it is not a safetensors file'):
        read_checkpoint(path)
    monkeypatch.setitem(__import__('sys').modules, 'safetensors.torch', None)
    with pytest.raises(UserError, match='needs the package safetensors .pip install safetensors'):
        read_checkpoint(path)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='the checkpoint no.pth: there is no such file .looked in'):
        read_checkpoint('no.pth', what='the checkpoint')
    with pytest.raises(FileNotFoundError, match='it is a folder'):
        read_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match='weights /dev/zero'):
        read_checkpoint('/dev/zero')


def test_no_config():
    for checkpoint in ({}, dict(meta=None), dict(meta=dict(cfg=None)), dict(meta=[CONFIG])):
        with pytest.raises(UserError, match=r'weights w\.pth hold no config .meta\.cfg.*--config configs/soc/NAME\.py'):
            config_of_checkpoint(checkpoint, 'w.pth')


# ------------------------------------------------------------------------------------------------------------- what is refused

HOSTILE = {}


def hostile(message: str):
    """Registers a maker of a hostile file, with what the refusal has to say."""

    def register(make):
        HOSTILE[make.__name__] = make, message
        return make

    return register


def hostile_config(name: str, text: str, message: str) -> None:
    HOSTILE[name] = lambda path, canary: save(path, config=text.replace('CANARY', str(canary))), message


hostile_config(
    'config_system', "x = __import__('os').system('touch CANARY')", 'line 1: expected a literal, found a call'
)
hostile_config('config_open', "x = open('CANARY', 'w')", 'found a call of `open`')
hostile_config('config_exec', "exec(\"open('CANARY', 'w')\")", 'found a call of `exec`')
hostile_config('config_lambda', "x = (lambda: open('CANARY', 'w'))()", 'found a call')
hostile_config('config_comprehension', "x = [open('CANARY', 'w') for _ in 'a']", 'found a comprehension')
hostile_config('config_f_string', "x = f\"{open('CANARY', 'w')}\"", 'found an f-string')
hostile_config('config_attribute', 'x = dict.__class__.__base__', 'found attribute access')
hostile_config('config_walrus', "x = (y := open('CANARY', 'w'))", 'found an assignment expression')
hostile_config('config_decorator', '@print\ndef f():\n    pass', 'found a function')
hostile_config('config_import', 'import antigravity', 'found an import')
hostile_config('config_base', "_base_ = 'CANARY.py'", '`_base_` names another file')
hostile_config(
    'config_custom_imports', "custom_imports = dict(imports=['evil'])", '`custom_imports` would import and run evil'
)
hostile_config(
    'config_type',
    "model = dict(type='os.system', command='touch CANARY')",
    r"model\.type = 'os\.system' is the import path of Python code",
)
hostile_config('config_deep', 'x = ' + 'dict(a=' * 10_000 + '1' + ')' * 10_000, 'not Python|nested')
hostile_config(
    'config_laughs', 'a0 = [1]\n' + '\n'.join(f'a{i} = [{f"a{i - 1}," * 10}]' for i in range(1, 50)), 'more than'
)
hostile_config('config_power', 'x = 9 ** 9 ** 9', 'found an operation')
hostile_config('config_2_mb', 'x = 1\n' * 350_000, f'2,100,000 characters: expected at most {MAX_CHARACTERS:,}')
hostile_config('config_50_mb', 'x = 1\n' * 8_400_000, 'not weights but a pickle: expected at most 16,777,216')


@hostile('it names posix.system')
def pickle_system(path, canary):
    return save(path, {'w': Call(os.system, f'touch {canary}')})


@hostile('it names posix.system')
def pickle_system_in_the_old_format(path, canary):
    return save(path, {'w': Call(os.system, f'touch {canary}')}, _use_new_zipfile_serialization=False)


@hostile('it names os.system')
def pickle_system_by_hand(path, canary):
    call = b'cos\nsystem\nX' + struct.pack('<I', len(f'touch {canary}')) + f'touch {canary}'.encode() + b'\x85R.'
    return with_pickle(path, lambda _: b'\x80\x02' + call)


@hostile('it names __builtin__.eval')
def pickle_eval(path, canary):
    return save(path, {'w': torch.ones(1), 'x': Call(eval, f'open({str(canary)!r}, "w")')})


@hostile('it names mmengine.logging.history_buffer.HistoryBuffer')
def pickle_mmengine_class(path, canary):
    torch.save(dict(state_dict={'w': torch.ones(1)}, message_hub=HistoryBuffer()), path)
    return path


@hostile('it names __builtin__.bytearray')
def pickle_allocation(path, canary):
    return save(path, {'w': torch.ones(1)}, config=Call(bytearray, 100 * GIB))


@hostile('it names torch.serialization.load')
def pickle_torch_load(path, canary):
    return save(path, config=Call(torch.load, 'other.pth'))


@hostile('the instruction FRAME')
def pickle_protocol_4(path, canary):
    return with_pickle(path, lambda _: pickle.dumps(Call(os.system, f'touch {canary}'), protocol=4))


@hostile('a tuple of 131,071 values')
def pickle_nested_tuples(path, canary):
    """As a key, it would be hashed: 2^60 steps."""
    return with_pickle(path, lambda _: b'\x80\x02})' + b'q\x01h\x01\x86' * 60 + b'K\x01s.')


@hostile('a tensor has 262,144 bytes of the entry data/0, which holds 32')
def storage_that_is_too_small(path, canary):
    """The tensor would show foreign memory."""
    return with_pickle(path, lambda content: content.replace(b'K\x08tq', b'J\x00\x00\x01\x00tq'))


@hostile('a tensor has 32 bytes of the entry data/9, which holds 0')
def storage_that_is_not_there(path, canary):
    return with_pickle(path, lambda content: content.replace(b'X\x01\x00\x00\x000q', b'X\x01\x00\x00\x009q'))


@hostile('its tensors declare 4,000,000,000 bytes, the file has')
def storage_that_is_too_small_in_the_old_format(path, canary):
    content = save(path, _use_new_zipfile_serialization=False).read_bytes()
    path.write_bytes(content.replace(b'K\x08N', b'J\x00\xca\x9a\x3bN'))
    return path


@hostile('cannot be read: expected what torch.save wrote.*(not resizable|out of bounds)')
def size_that_is_too_large(path, canary):
    return with_pickle(path, lambda content: content.replace(b'K\x00K\x08\x85', b'K\x00J\x00\x00\x01\x00\x85'))


@hostile(r'w \(1,000,000,000,000 values of shape \(1000000, 1000000\), of which the file holds 1\)')
def expanded_storage(path, canary):
    return save(path, {'w': torch.ones(1).expand(10**6, 10**6)})


@hostile('its weights declare 8,000,000,000 bytes, the file has')
def shared_storage(path, canary):
    whole = torch.zeros(10**6)
    return save(path, {str(index): whole.view(1000, 1000) for index in range(2000)})


def bomb(path, compression):
    with zipfile.ZipFile(save(path), 'a', compression) as archive:
        archive.writestr('a/data/1', b'0' * 1000)
        archive.infolist()[-1].file_size = 10 * GIB
    return path


@hostile("its entry 'a/data/1' is compressed and declares 10,737,418,240 bytes")
def zip_bomb(path, canary):
    return bomb(path, zipfile.ZIP_DEFLATED)


@hostile('its entries declare 10,737,41[0-9],[0-9]+ bytes, the file has')
def zip_that_declares_too_much(path, canary):
    return bomb(path, zipfile.ZIP_STORED)


@hostile("its entry '../canary' leads out of the archive")
def zip_climbing(path, canary):
    return rewrite(save(path), lambda _, content: content, lambda name: '../canary' if name == 'a/version' else name)


@hostile("its entry '/tmp/x' leads out of the archive")
def zip_absolute(path, canary):
    return rewrite(save(path), lambda _, content: content, lambda name: '/tmp/x' if name == 'a/version' else name)


@hostile('are not in one folder or have the same name')
def zip_with_two_entries_of_one_name(path, canary):
    return rewrite(save(path), lambda _, content: content, lambda name: 'a/DATA.pkl' if name == 'a/version' else name)


@hostile('its zip directory is not where torch.save writes it')
def zip_with_two_directories(path, canary):
    """Python would look for the directory in another place than PyTorch."""
    content = save(path).read_bytes()
    path.write_bytes(content[:4] + b'\0' * 100 + content)
    return path


@hostile('found a TorchScript archive')
def torchscript(path, canary):
    return rewrite(
        save(path), lambda _, content: content, lambda name: 'a/constants.pkl' if name == 'a/version' else name
    )


@hostile('found a zip archive without data.pkl')
def zip_of_something_else(path, canary):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/b.txt', 'hello' * 100)
    return path


@hostile('it is truncated: the zip directory at its end is missing')
def truncated(path, canary):
    path.write_bytes(save(path).read_bytes()[:-700])
    return path


@hostile('truncated: the zip directory|it is broken')
def truncated_by_a_byte(path, canary):
    path.write_bytes(save(path).read_bytes()[:-1])
    return path


@hostile('it is truncated or broken')
def truncated_in_the_old_format(path, canary):
    path.write_bytes(save(path, _use_new_zipfile_serialization=False).read_bytes()[:200])
    return path


@hostile('found a tar archive')
def tar(path, canary):
    """Whose first name is what PyTorch's old format begins with."""
    entry = tarfile.TarInfo(pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2).decode('latin-1'))
    path.write_bytes(entry.tobuf(tarfile.USTAR_FORMAT, 'latin-1') + b'\0' * 1024)
    return path


@hostile("found a file that begins with b'import os")
def text(path, canary):
    path.write_text(f'import os\nos.system("touch {canary}")')
    return path


@hostile('found a file that begins with')
def plain_pickle(path, canary):
    path.write_bytes(pickle.dumps({'w': Call(os.system, f'touch {canary}')}))
    return path


@hostile('found an empty file')
def empty(path, canary):
    path.write_bytes(b'')
    return path


@hostile('expected a dict, found a value of type list')
def a_list(path, canary):
    torch.save([torch.ones(1)], path)
    return path


@hostile('expected a dict, found a value of type Tensor')
def a_tensor(path, canary):
    torch.save(torch.ones(1), path)
    return path


@hostile('expected weights by name, found a key of type int')
def keys_that_are_numbers(path, canary):
    return save(path, {3: torch.ones(1)})


@hostile('expected weights under the key state_dict, found b, c')
def values_that_are_no_tensors(path, canary):
    return save(path, {'a': torch.ones(1), 'c': [torch.ones(1)], 'b': 3})


@hostile('expected weights under the key state_dict, found nothing')
def no_weights(path, canary):
    return save(path, {})


@hostile('expected weights under the key state_dict, found a value of type list')
def weights_in_a_list(path, canary):
    return save(path, [torch.ones(1)])


@hostile(r'1 of its 2 weights cannot be used: head\.w \(complex64\)')
def complex_numbers(path, canary):
    return save(path, {'a': torch.ones(1), 'head.w': torch.ones(2, dtype=torch.complex64)})


@hostile(r'w \(qint8\)|cannot be read.*_rebuild_qtensor')  # PyTorch 2.1 reads none
def quantized(path, canary):
    return save(path, {'w': torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)})


@hostile(r'w \(sparse_coo\)')
def sparse(path, canary):
    return save(path, {'w': torch.eye(3).to_sparse()})


@hostile(r'w \(on the device meta, without values\)')
def on_meta(path, canary):
    return save(path, {'w': torch.ones(3, device='meta')})


@hostile(r'w \(float8_e4m3fn\)')
def float8(path, canary):
    try:
        return save(path, {'w': torch.ones(3).to(torch.float8_e4m3fn)})
    except KeyError:
        pytest.skip('PyTorch 2.1 cannot write them')


@hostile(
    r'2 of its 3 weights have values that are NaN or infinite: head\.kernel_branch\.bias \(2 of 4\), b \(1 of 1\)\. Training '
    'diverged'
)
def not_finite(path, canary):
    """With such weights a prediction has scores and no masks, and nothing fails."""
    nan, inf = float('nan'), float('inf')
    return save(
        path,
        {
            'a': torch.ones(1),
            'head.kernel_branch.bias': torch.tensor([1, nan, inf, 0]),
            'b': torch.tensor([-inf]).half(),
        },
    )


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_checkpoint(name, tmp_path, monkeypatch):
    make, message = HOSTILE[name]
    for folder in ('made', 'working', 'temporary'):
        (tmp_path / folder).mkdir()
    canary = tmp_path / 'canary'
    path = make(tmp_path / 'made' / 'a.pth', canary)
    monkeypatch.chdir(tmp_path / 'working')
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
    before, start = sorted(tmp_path.rglob('*')), time.perf_counter()
    with pytest.raises(UserError, match=message) as error:
        config_of_checkpoint(read_checkpoint(path), path)
    assert time.perf_counter() - start < 3
    assert sorted(tmp_path.rglob('*')) == before and not canary.exists()
    assert str(path) in str(error.value) and len(str(error.value)) < 1000


def test_the_canary_of_the_hostile_files_is_alive(tmp_path):
    """MMEngine's way to read a config and Python's to read a pickle do what is refused above."""
    from mmengine import Config

    from mmsoc.registry import MODELS

    for number, (name, run) in enumerate(
        {
            'config_system': lambda path: Config.fromstring(torch.load(path)['meta']['cfg'], '.py'),
            'config_type': lambda path: MODELS.build(Config.fromstring(torch.load(path)['meta']['cfg'], '.py').model),
            'pickle_system': lambda path: torch.load(path, weights_only=False),
            'plain_pickle': lambda path: pickle.load(io.BytesIO(path.read_bytes())),
        }.items()
    ):
        canary = tmp_path / f'canary_{number}'
        run(HOSTILE[name][0](tmp_path / 'a.pth', canary))
        assert canary.exists(), name
