"""Configs as data: reads the text that ``Config.pretty_text`` writes, without executing it."""

import ast
import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import import_modules_from_strings

from mmsoc.utils.errors import UserError
from mmsoc.utils.files import listed

MAX_CHARACTERS = 2**18
"""maximum length of a config's text: more than ten times the largest in ``configs/``"""
_MAX_SIZE = 2**20
"""maximum number of values and string characters, with names replaced by their values"""
_MAX_DEPTH = 50
_MAX_INTEGER = 2**64
_REMEDY = 'give a config that you trust: --config FILE (in Python config=FILE)'

_Scalar = str | int | float | bool | None
# Names of the constructs most likely in a config that is a program; others are named after their AST node.
_KINDS: dict[type[ast.AST], str] = {
    ast.Attribute: 'attribute access',
    ast.AugAssign: 'an augmented assignment',
    ast.BinOp: 'an operation',
    ast.Call: 'a call',
    ast.ClassDef: 'a class',
    ast.DictComp: 'a comprehension',
    ast.FunctionDef: 'a function',
    ast.GeneratorExp: 'a generator expression',
    ast.IfExp: 'a conditional expression',
    ast.Import: 'an import',
    ast.ImportFrom: 'an import',
    ast.JoinedStr: 'an f-string',
    ast.Lambda: 'a lambda',
    ast.ListComp: 'a comprehension',
    ast.NamedExpr: 'an assignment expression',
    ast.SetComp: 'a comprehension',
    ast.Starred: 'unpacking',
    ast.Subscript: 'a subscript',
}
# Keys of a config whose values MMEngine looks up in a registry.
_TYPE_KEYS = ('type', 'constructor', 'runner_type')
_SCOPE_KEYS = ('default_scope', '_scope_')


def config_of_text(text: str, where: str, allow_imports: bool = False) -> Config:
    """The config that ``text`` describes, without executing it.

    The text may assign literals to names: numbers, strings, True, False, None, lists, tuples, sets, dicts, ``dict(...)``, and names
    that were assigned above. MMEngine would import the modules of ``custom_imports``, and its registries import and
    call any function whose import path is given instead of a registered name (``dict(type='os.system', command=...)``).
    Both are rejected.

    Args:
        where: source of the text, for messages.
        allow_imports: accept both, and import the modules of ``custom_imports``.

    Raises:
        UserError: the text is too long, is not Python, contains anything but the above (with its line), or would import
            modules.
    """
    values = read_config_text(text, where)
    if not allow_imports:
        _check_imports(values, where)
    try:
        config = Config(values, cfg_text=text)
    except KeyError as error:  # MMEngine's reserved names
        raise UserError(f'{where}: {error.args[0]}; {_REMEDY}') from None
    if allow_imports and values.get('custom_imports'):
        import_modules_from_strings(**values['custom_imports'])
    return config


def read_config_text(text: str, where: str) -> dict[str, Any]:
    """The values that ``text`` assigns, by name; see `config_of_text`."""
    if len(text) > MAX_CHARACTERS:
        raise UserError(f'{where} has {len(text):,} characters: expected at most {MAX_CHARACTERS:,}; {_REMEDY}')
    return _Reader(text, where).read()


class _Value(NamedTuple):
    value: Any
    depth: int
    """maximum depth of nested containers"""


class _Name(NamedTuple):
    value: _Value
    size: int
    """see `_MAX_SIZE`"""


class _Reader:
    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._names: dict[str, _Name] = {}
        self._size = 0

    def read(self) -> dict[str, Any]:
        try:
            module = ast.parse(self._text)
        except SyntaxError as error:
            self._refuse(error.lineno, f'it is not Python: {error.msg}')
        except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nested too deeply for the parser
            self._refuse(None, f'it is not Python that can be parsed: {str(error) or type(error).__name__}')
        for statement in module.body:
            self._assign(statement)
        return {name: found.value.value for name, found in self._names.items()}

    def _assign(self, statement: ast.stmt) -> None:
        if not isinstance(statement, ast.Assign):
            self._unexpected(statement)
        target = statement.targets[0]
        if len(statement.targets) > 1 or not isinstance(target, ast.Name):
            self._refuse(statement.lineno, 'expected an assignment to one name')
        if target.id == '_base_':
            self._refuse(statement.lineno, '`_base_` names another file')
        before = self._size
        value = self._value(statement.value)
        self._names[target.id] = _Name(value, self._size - before)

    def _value(self, node: ast.expr) -> _Value:
        # The parser accepts at most 200 nested brackets, which bounds this recursion.
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float()) as operand):
                return _Value(-self._constant(operand).value, 0)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                parts = [self._value(element) for element in elements]
                items = [part.value for part in parts]
                return self._container(node, parts, items if isinstance(node, ast.List) else tuple(items))
            case ast.Set(elts=elements):
                parts = [self._scalar(element) for element in elements]
                return self._container(node, parts, {part.value for part in parts})
            case ast.Dict():
                return self._dict(node)
            case ast.Call(func=ast.Name(id='dict')):
                return self._dict_call(node)
            case ast.Name(id=name):
                if name not in self._names:
                    self._refuse(node.lineno, f'the name `{name}` is not assigned above')
                self._count(node, self._names[name].size)
                return self._names[name].value
        self._unexpected(node)

    def _constant(self, node: ast.Constant) -> _Value:
        value = node.value
        if not isinstance(value, _Scalar):
            self._refuse(node.lineno, f'expected a number or a string, found a value of type {type(value).__name__}')
        if isinstance(value, int) and value > _MAX_INTEGER:
            self._refuse(node.lineno, f'an integer of {value.bit_length()} bits: expected at most 64')
        self._count(node, 1 + len(value) if isinstance(value, str) else 1)
        return _Value(value, 0)

    def _scalar(self, node: ast.expr) -> _Value:
        """A dict's key or a set's element."""
        found = self._value(node)
        if not isinstance(found.value, _Scalar):
            kind = type(found.value).__name__
            self._refuse(node.lineno, f'expected a number or a string as a key or an element of a set, found a {kind}')
        return found

    def _dict(self, node: ast.Dict) -> _Value:
        keys = [self._unpacking(node) if key is None else self._scalar(key) for key in node.keys]
        values = [self._value(value) for value in node.values]
        items = {key.value: value.value for key, value in zip(keys, values, strict=True)}
        return self._container(node, values, items)

    def _dict_call(self, node: ast.Call) -> _Value:
        names = [self._unpacking(node) if keyword.arg is None else keyword.arg for keyword in node.keywords]
        if len(set(names)) < len(names):
            self._refuse(node.lineno, 'dict(...) with one name twice')
        positional = [self._value(argument) for argument in node.args]
        # MMEngine writes dict({...}) if a key is not an identifier.
        if len(positional) > 1 or not all(isinstance(part.value, dict) for part in positional):
            self._refuse(node.lineno, 'expected dict(name=value, ...) or dict({...})')
        values = [self._value(keyword.value) for keyword in node.keywords]
        items = dict(positional[0].value) if positional else {}
        items.update(zip(names, (value.value for value in values), strict=True))
        return self._container(node, [*positional, *values], items)

    def _container(self, node: ast.expr, parts: Sequence[_Value], value: Any) -> _Value:
        self._count(node, 1)
        depth = 1 + max((part.depth for part in parts), default=0)
        if depth > _MAX_DEPTH:
            self._refuse(node.lineno, f'more than {_MAX_DEPTH} nested containers')
        return _Value(value, depth)

    def _count(self, node: ast.expr, size: int) -> None:
        self._size += size
        if self._size > _MAX_SIZE:
            self._refuse(
                node.lineno, f'more than {_MAX_SIZE:,} values and characters once names are replaced by their values'
            )

    def _unpacking(self, node: ast.expr) -> NoReturn:
        self._refuse(node.lineno, 'expected a literal, found unpacking')

    def _unexpected(self, node: ast.stmt | ast.expr) -> NoReturn:
        inner = node.value if isinstance(node, ast.Expr) else node
        kind = _KINDS.get(type(inner), type(inner).__name__)
        if isinstance(inner, ast.Call):
            kind = f'a call of `{ast.unparse(inner.func)[:40]}`' if isinstance(inner.func, ast.Name) else kind
        expected = 'an assignment of literals' if isinstance(node, ast.stmt) else 'a literal'
        self._refuse(node.lineno, f'expected {expected}, found {kind}')

    def _refuse(self, line: int | None, reason: str) -> NoReturn:
        lines = self._text.split('\n')
        if line is None or line > len(lines):
            raise UserError(f'{self._where}: {reason}; {_REMEDY}')
        shown = lines[line - 1].strip()
        shown = shown[:100] + ('...' if len(shown) > 100 else '')
        raise UserError(f'{self._where}, line {line}: {reason}; {_REMEDY}\n    {shown}')


def _check_imports(values: dict[str, Any], where: str) -> None:
    """
    Raises:
        UserError: building this config would import more than OpenMMLab's packages.
    """
    remedy = f'{_REMEDY}, or, if you trust this file, allow its imports (allow_imports=True)'
    imports = values.get('custom_imports')
    if imports:
        modules = imports.get('imports') if isinstance(imports, dict) else imports
        names = listed([modules] if isinstance(modules, str) else list(modules or ()))
        raise UserError(f'{where}: `custom_imports` would import and run {names}; {remedy}')
    for path, key, name in _strings(values):
        if key in _SCOPE_KEYS and name not in _known_scopes():
            raise UserError(
                f'{where}: {path} = {name!r} would import the package {name}: expected one of {sorted(_known_scopes())}; {remedy}'
            )
        if key in _TYPE_KEYS and _names_python_code(name):
            raise UserError(
                f'{where}: {path} = {name!r} is the import path of Python code: expected the name of a registered '
                f'class, NAME or SCOPE.NAME; {remedy}'
            )


def _known_scopes() -> set[str]:
    return {'mmengine', 'mmcv', *MODULE2PACKAGE}


def _names_python_code(name: str) -> bool:
    """Whether a registry that does not know ``name`` would import a module or take a function from one."""
    scope, _, member = name.rpartition('.')
    if not scope:
        return _is_importable(name)
    if scope not in _known_scopes():
        return True
    try:
        package = importlib.import_module(scope)
    except ImportError:  # not installed: the registry will report it
        return _is_importable(member)
    return hasattr(package, member) or _is_importable(member)


def _is_importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # ValueError: a module without a spec, such as __main__
        return True


def _strings(node: Any, path: str = '', key: Any = None) -> Iterator[tuple[str, Any, str]]:
    """The strings of a nested config: dotted path, key of the dict that holds it, the string."""
    if isinstance(node, str):
        yield path, key, node
    elif isinstance(node, dict):
        for name, value in node.items():
            yield from _strings(value, f'{path}.{name}' if path else str(name), name)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _strings(value, f'{path}[{index}]', None)
