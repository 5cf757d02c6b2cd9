"""Configs in checkpoints are data: what MMEngine writes is read exactly, and nothing is executed."""

import pytest
from mmengine import Config

from mmsoc.utils.config_text import MAX_CHARACTERS, config_of_text, read_config_text
from mmsoc.utils.errors import UserError
from tests.conftest import ROOT

CONFIGS = sorted((ROOT / 'configs').rglob('*.py'))
ALL_KINDS = """\
number = -1
exponent = 1e-05
text = 'a "quoted" word, \\n'
several = [1, (2,), (), {3, 4}, None, True, -0.5]
nested = dict(type='SOC', inner=dict({'a b': 1, 2: 'x'}), empty=dict())
again = nested
model = {'neck': nested, 'sizes': [
    number, number
]}
"""


def same(a, b) -> bool:
    """Equal, and of the same types all the way down."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: str(path.relative_to(ROOT / 'configs')))
def test_every_config_comes_back(path):
    original = Config.fromfile(path)
    text = original.pretty_text
    assert len(text) < MAX_CHARACTERS / 10
    config = config_of_text(text, 'w.pth')
    assert same(config.to_dict(), original.to_dict())
    assert config.text == text


def test_every_kind_of_value():
    nested = dict(type='SOC', inner={'a b': 1, 2: 'x'}, empty={})
    assert same(
        read_config_text(ALL_KINDS, ''),
        dict(
            number=-1,
            exponent=0.00001,
            text='a "quoted" word, \n',
            several=[1, (2,), (), {3, 4}, None, True, -0.5],
            nested=nested,
            again=nested,
            model=dict(neck=nested, sizes=[-1, -1]),
        ),
    )
    assert read_config_text('a = 1\na = 2', '') == dict(a=2)
    assert read_config_text('', '') == {}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('x = open("f", "w")', 'expected a literal, found a call of `open`'),
        ('x = "".join([])', 'found a call'),
        ('x = lambda: 1', 'found a lambda'),
        ('x = [y for y in (1,)]', 'found a comprehension'),
        ('x = f"{1}"', 'found an f-string'),
        ('x = dict.__class__', 'found attribute access'),
        ('x = (y := 1)', 'found an assignment expression'),
        ('x = 9 ** 9 ** 9', 'found an operation'),
        ('x = "a" * 99999999', 'found an operation'),
        ('x = +1', 'found UnaryOp'),
        ('x = [*[1]]', 'found unpacking'),
        ('x = {**{}}', 'found unpacking'),
        ('x = dict(**{})', 'found unpacking'),
        ('x = [1][0]', 'found a subscript'),
        ('x = 1 if True else 2', 'found a conditional expression'),
        ('x = 1j', 'found a value of type complex'),
        ('x = b"a"', 'found a value of type bytes'),
        ('x = ...', 'found a value of type ellipsis'),
        ('x = 0x' + 'f' * 5000, 'an integer of 20000 bits: expected at most 64'),
        ('x = ' + '1' * 5000, '(an integer of 16610 bits|Exceeds the limit)'),
        ('x = inf', 'the name `inf` is not assigned above'),
        ('x = {{ fileDirname }}', 'the name `fileDirname` is not assigned above'),
        ('x = {(1, 2): 3}', 'as a key or an element of a set, found a tuple'),
        ('x = {(1, 2)}', 'as a key or an element of a set, found a tuple'),
        ('x = dict(a=1, a=2)', '(with one name twice|keyword argument repeated)'),
        ('x = dict([("a", 1)])', r'expected dict\(name=value'),
        ('x = dict({}, {})', r'expected dict\(name=value'),
        ('x, y = 1, 2', 'expected an assignment to one name'),
        ('x = y = 1', 'expected an assignment to one name'),
        ('x.y = 1', 'expected an assignment to one name'),
        ('_base_ = "other.py"', '`_base_` names another file'),
        ('x: int = 1', 'expected an assignment of literals, found AnnAssign'),
        ('x += 1', 'expected an assignment of literals, found an augmented assignment'),
        ('import os', 'found an import'),
        ('from os import system', 'found an import'),
        ('print(1)', 'found a call of `print`'),
        ('@print\ndef f(): pass', 'found a function'),
        ('class A: pass', 'found a class'),
        ('with x: pass', 'found With'),
        ('del x', 'found Delete'),
        ('x = (', 'it is not Python: '),
        ('x = "\0"', 'it is not Python'),
    ],
)
def test_everything_else_is_refused_with_its_line(text, message):
    with pytest.raises(UserError, match=message) as error:
        read_config_text(f'a = 1\n{text}', 'w.pth: config (meta.cfg)')
    assert str(error.value).startswith('w.pth: config (meta.cfg)')
    assert '--config FILE' in str(error.value)
    if 'not Python' not in str(error.value) and 'Exceeds' not in str(error.value):
        assert text.split('\n')[-1][:90] in str(error.value) and ', line ' in str(error.value)


def laughs(levels: int) -> str:
    lines = ['a0 = [1]', *(f'a{i} = [{", ".join([f"a{i - 1}"] * 10)}]' for i in range(1, levels))]
    return '\n'.join(lines)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('x = ' + '[' * 10_000 + ']' * 10_000, '(not Python|nested)'),
        ('x = ' + 'dict(a=' * 10_000 + '1' + ')' * 10_000, '(not Python|nested)'),
        ('x = ' + '[' * 60 + ']' * 60, 'more than 50 nested containers'),
        (
            'x0 = []\n' + '\n'.join(f'x{i} = [x{i - 1}]' for i in range(1, 5000)),
            'line 51: more than 50 nested containers',
        ),
        ('x = ' + '-' * 50_000 + '1', '(not Python|UnaryOp)'),
        ('x = ' + '+'.join('1' * 50_000), '(not Python|an operation)'),
        ('x = a' + '.b' * 50_000, '(not Python|attribute access)'),
        (laughs(100), 'line 7: more than 1,048,576 values'),
        ('x = "' + 'y' * 100_000 + '"\nz = [' + 'x, ' * 10_000 + ']', 'line 2: more than 1,048,576 values'),
        (
            'x = dict(' + ', '.join(f'a{i}=1' for i in range(9999)) + ')\n' + 'y = dict(x)\n' * 9999,
            'more than 1,048,576',
        ),
        ('x = 1\n' * 50_000, 'has 300,000 characters: expected at most 262,144'),
    ],
    ids=['lists', 'dicts', '60 deep', 'deep by names', 'minus', 'plus', 'dots', 'laughs', 'strings', 'copies', 'long'],
)
def test_bombs(text, message):
    with pytest.raises(UserError, match=message) as error:
        read_config_text(text, 'w.pth')
    assert len(str(error.value)) < 1000


def test_custom_imports(tmp_path, monkeypatch):
    (tmp_path / 'my_parts_of_a_test.py').write_text(f'open({str(tmp_path / "imported")!r}, "w")')
    monkeypatch.syspath_prepend(tmp_path)
    text = "custom_imports = dict(imports=['my_parts_of_a_test'])\nmodel = dict(type='SOC')"
    with pytest.raises(
        UserError, match='`custom_imports` would import and run my_parts_of_a_test; .*allow_imports=True'
    ):
        config_of_text(text, 'w.pth')
    assert not (tmp_path / 'imported').exists()
    assert config_of_text(text, 'w.pth', allow_imports=True).model == dict(type='SOC')
    assert (tmp_path / 'imported').exists()
    assert config_of_text('custom_imports = None', 'w.pth').custom_imports is None


@pytest.mark.parametrize(
    'name',
    [
        'os.system',
        'os',
        'json',
        'builtins.eval',
        'mmengine.load',
        'mmengine.Config',
        'mmdet.os.system',
        'mmdet.json',
        'subprocess.run',
    ],
)
@pytest.mark.parametrize('text', ['model = dict(type={!r})', 'x = [(1, dict(a=dict(constructor={!r})))]'])
def test_types_that_are_import_paths(name, text):
    """MMEngine's registries import what they do not know: ``dict(type='os.system', command='...')`` runs the command."""
    with pytest.raises(UserError, match=rf'(model\.type|x\[0\]\[1\]\.a\.constructor) = .{name}. is the import path'):
        config_of_text(text.format(name), 'w.pth')
    assert config_of_text(text.format(name), 'w.pth', allow_imports=True)


def test_scopes_that_are_packages():
    with pytest.raises(UserError, match=r"model\._scope_ = 'xml' would import the package xml"):
        config_of_text("model = dict(_scope_='xml', type='SOC')", 'w.pth')
    text = "default_scope = 'mmsoc'\nmodel = dict(type='SOC', neck=dict(type='mmdet.ChannelMapper'), head=dict(type='mmpose.X'))"
    assert config_of_text(text, 'w.pth').model.neck.type == 'mmdet.ChannelMapper'


def test_reserved_names():
    with pytest.raises(UserError, match='w.pth: filename is reserved for config file'):
        config_of_text('filename = 1', 'w.pth')
