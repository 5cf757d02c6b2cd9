import argparse
import re

import pytest

from mmsoc.engine.cli import add_common_arguments, load_config
from mmsoc.utils.errors import UserError


def parse(*options, config='c.py'):
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    return parser.parse_args([config, '--cfg-options', *options])


@pytest.mark.parametrize(
    'text, value',
    [
        ('1', 1),
        ('1e-4', 1e-4),
        ('true', True),
        ('None', None),
        ('/a folder/b', '/a folder/b'),
        ('', ''),
        ('x=1', 'x=1'),
        ('1,2', [1, 2]),
        ('[a,b]', ['a', 'b']),
        ('[(1,2),[a]]', [(1, 2), ['a']]),
        ("['a b', 'c,d']", ['a b', 'c,d']),
        ("'1'", '1'),
        ("{'a': 1}", {'a': 1}),
        ('[]', []),
    ],
)
def test_option_values(text, value):
    assert parse(f'a.b={text}').cfg_options == {'a.b': value}


def test_options_are_collected(capsys):
    assert parse('a=1', 'b=2', '--cfg-options', 'c=3').cfg_options == dict(a=1, b=2, c=3)
    for wrong in ('abc', '=1'):
        with pytest.raises(SystemExit):
            parse(wrong)
        assert f'--cfg-options {wrong}: expected KEY=VALUE' in capsys.readouterr().err


def test_work_dir(tmp_path):
    file = tmp_path / 'a_config.py'
    file.write_text('a = dict(b=1)\n')
    args = parse('a.b=2', config=str(file))
    cfg = load_config(args)
    assert cfg.a.b == 2 and cfg.work_dir == 'work_dirs/a_config' and cfg.launcher == 'none'
    assert load_config(parse('work_dir=there', config=str(file))).work_dir == 'there'
    args.work_dir = 'here'
    assert load_config(args).work_dir == 'here'


def test_a_variable_of_the_config_is_not_what_it_stands_for(tmp_path, monkeypatch):
    """``max_epochs`` at the top of a config has been used when an option could change it: said, with what to set instead."""
    file = tmp_path / 'knobs.py'
    file.write_text(
        'max_epochs = 30\nwith_cp = False\ntrain_cfg = dict(max_epochs=max_epochs)\n'
        'param_scheduler = [dict(begin=0, end=max_epochs)]\nmodel = dict(backbone=dict(with_cp=with_cp))\nresume = False\n'
    )
    lines = []  # the logger of another test may write anywhere
    monkeypatch.setattr('mmsoc.engine.cli.print_log', lambda message, **kwargs: lines.append(message))
    cfg = load_config(parse('max_epochs=1', 'with_cp=True', 'resume=True', 'new=3', config=str(file)))
    assert cfg.train_cfg.max_epochs == 30
    assert len(lines) == 2
    assert 'max_epochs=1: ' in lines[0] and 'is a variable of the config file' in lines[0]
    assert 'Set what it stands for: train_cfg.max_epochs, param_scheduler.0.end' in lines[0]
    assert 'with_cp=True' in lines[1] and lines[1].endswith('Set what it stands for: model.backbone.with_cp')


def test_loaders_pin_memory_where_there_is_a_gpu(tmp_path, monkeypatch):
    file = tmp_path / 'loaders.py'
    file.write_text(
        'train_dataloader = dict(batch_size=1)\nval_dataloader = dict(pin_memory=False)\ntest_dataloader = None\n'
    )
    assert 'pin_memory' not in load_config(parse('a.b=2', config=str(file))).train_dataloader
    monkeypatch.setattr('mmsoc.engine.cli.get_device', lambda: 'cuda')
    cfg = load_config(parse('a.b=2', config=str(file)))
    assert (
        cfg.train_dataloader.pin_memory is True
        and cfg.val_dataloader.pin_memory is False
        and cfg.test_dataloader is None
    )


@pytest.mark.parametrize(
    'text, message',
    [
        ('a = b', r"config .*c\.py cannot be read: NameError: name 'b' is not defined \(.*c\.py, line 1\)"),
        ('a = 1\nb = dict(c=1)[a]', r'cannot be read: KeyError: 1 \(.*c\.py, line 2\)'),
        ('a = (', 'cannot be read: SyntaxError: '),
        ("a = '{{$MMSOC_NO_SUCH_VARIABLE:}}'", 'cannot be read: KeyError: .*MMSOC_NO_SUCH_VARIABLE.* cannot be found'),
        ("_base_ = ['a.py', 'b.py']", 'cannot be read: KeyError: Duplicate key is not allowed among bases'),
        (
            "custom_imports = dict(imports=['no_such_module'])",
            'cannot be read: ImportError: Failed to import custom modules',
        ),
        ("_base_ = 'no_such_package::a/b.py'", 'cannot be read: .*no_such_package'),
    ],
)
def test_a_config_that_cannot_be_read_is_a_mistake_of_the_user(tmp_path, text, message):
    file = tmp_path / 'c.py'
    file.write_text(text + '\n')
    for base in ('a', 'b'):
        (tmp_path / f'{base}.py').write_text('x = 1\n')
    with pytest.raises(UserError, match=message):
        load_config(parse('y=2', config=str(file)))


def test_a_config_of_another_kind(tmp_path):
    file = tmp_path / 'c.txt'
    file.write_text('a = 1\n')
    with pytest.raises(UserError, match=r'config .*c\.txt cannot be read: OSError: Only py/yml/yaml/json type'):
        load_config(parse('a=2', config=str(file)))


def test_a_base_that_is_missing(tmp_path):
    file = tmp_path / 'c.py'
    file.write_text("_base_ = 'none.py'\n")
    with pytest.raises(FileNotFoundError, match=r'config .*c\.py: there is no file .*none\.py'):
        load_config(parse('a=2', config=str(file)))


@pytest.mark.parametrize(
    'options, named, found',
    [
        (['new=2', 'new.x=1'], 'new=2 new.x=1', "'int' object"),  # each of them fits
        (['x=1', 'lr.x=1'], 'lr.x=1', 'x.*cannot inherit from base because lr is a dict in the child config'),
        (['steps.5=1'], 'steps.5=1', 'Index 5 exceeds the length of list'),
        (['steps.0=1'], 'steps.0=1', "'int' object"),
    ],
)
def test_options_that_do_not_fit_are_mistakes_of_the_user(tmp_path, options, named, found):
    file = tmp_path / 'c.py'
    file.write_text('lr = 1\nsteps = [1, 2]\n')
    with pytest.raises(
        UserError, match=f'--cfg-options {re.escape(named)}: expected keys of the config .*; found .*{found}'
    ):
        load_config(parse(*options, config=str(file)))
