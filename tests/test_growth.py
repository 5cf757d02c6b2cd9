"""What users see must not grow without a line in the documentation, and numbers must not move unnoticed."""

import ast
import re
from dataclasses import fields
from importlib import import_module

import pytest

from mmsoc.inference import PredictionConfig
from tests.conftest import ROOT

PACKAGES = ('apis', 'datasets', 'engine', 'evaluation', 'inference', 'models', 'visualization', 'weights')


def flags_of(tree):
    """The ``--flags`` that code adds to a parser, and the names of the functions of mmsoc/engine/cli.py that it calls."""
    flags, shared = set(), set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
        if name == 'add_argument':
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            hidden = any(
                keyword.arg == 'help' and 'SUPPRESS' in ast.unparse(keyword.value) for keyword in node.keywords
            )
            flags |= {text for text in texts if text.startswith('--') and not hidden}
        elif re.fullmatch(r'add_\w+_arguments', name):
            shared.add(name)
    return flags, shared


def section(page, title):
    """The text below a heading, up to the next heading of any level."""
    found = re.search(rf'^#+ {re.escape(title)}$\n(.*?)(?=^#|\Z)', page, re.M | re.S)
    return found[1] if found else None


def documented(text):
    """The flags or names in the first column of a section's table."""
    return set(re.findall(r'^\| `([^`]+)`', text, re.M))


FLAGS = {
    str(path.relative_to(ROOT)): flags_of(ast.parse(path.read_text()))
    for path in sorted((ROOT / 'tools').rglob('*.py'))
}


@pytest.mark.parametrize('tool', [tool for tool, (flags, shared) in FLAGS.items() if flags or shared])
def test_flags_of_tools(tool):
    flags, shared = FLAGS[tool]
    text = section((ROOT / 'docs/tools.md').read_text(), tool)
    assert text is not None, f'docs/tools.md has no section {tool}'
    assert documented(text) == flags, f'docs/tools.md, section {tool}'
    for name in shared:
        assert f'`{name}`' in text, f'docs/tools.md, section {tool}, does not name the shared options {name}'


def test_shared_flags():
    page, source = (ROOT / 'docs/tools.md').read_text(), ROOT / 'mmsoc/engine/cli.py'
    functions = [node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        if not re.fullmatch(r'add_\w+_arguments', function.name):
            continue
        text = section(page, function.name)
        assert text is not None and documented(text) == flags_of(function)[0], f'docs/tools.md, section {function.name}'


def test_the_prediction_slot():
    text = section((ROOT / 'docs/inference.md').read_text(), 'Settings of a prediction')
    assert text is not None and documented(text) == {field.name for field in fields(PredictionConfig)}


@pytest.mark.parametrize('package', PACKAGES)
def test_names_of_packages(package):
    text = section((ROOT / 'docs/api/names.md').read_text(), f'mmsoc.{package}')
    assert text is not None and documented(text) == set(import_module(f'mmsoc.{package}').__all__)
