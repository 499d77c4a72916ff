"""Which values vLLM's engine options take, read from the source of its configuration: importing it takes many seconds."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import Field, TypeAdapter, ValidationError

from batchinfer.engines.vllm_source import ENGINE_ARGUMENTS, class_of, statements

CONFIG = "config/__init__.py"
# Where an option's default does not say whose field it becomes, it is the one of that name.
BY_NAME = ("ModelConfig", "CacheConfig", "ParallelConfig", "SchedulerConfig")
PLAIN = {"int": int, "float": float, "bool": bool, "str": str}
BOUNDS = {"gt", "ge", "lt", "le", "multiple_of"}


def value_fault(name: str, value: Any) -> str | None:
    """Why vLLM would refuse a value of an engine option, as far as its source says it in types and bounds; None if it would not."""
    try:
        TypeAdapter(_values_of(name)).validate_python(value)
    except ValidationError as exc:
        said = exc.errors()[0]["msg"]
        return f"{said[:1].lower()}{said[1:]} (it is {value!r})."
    return None


@functools.cache
def _values_of(name: str) -> Any:
    """The values of an option as a type for pydantic; Any where the source does not say."""
    arguments = class_of(ENGINE_ARGUMENTS, "EngineArgs")
    option = None if arguments is None else _field(arguments, name)
    if option is None:
        return Any
    linked = _linked(option)
    for config, attribute in [linked] if linked else [(each, name) for each in BY_NAME]:
        file = _file_of(config)
        owner = None if file is None else class_of(file, config)
        field = None if owner is None else _field(owner, attribute)
        if file is not None and owner is not None and field is not None:
            type_ = Any if attribute in _converted(owner) else _type(field.annotation, file)
            return type_ if type_ is Any else Annotated[Optional[type_], Field(**_bounds(field))]  # noqa: UP045
    return Any


def _field(owner: ast.ClassDef, name: str) -> ast.AnnAssign | None:
    found = (node for node in owner.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name)
    return next(found, None)


def _linked(option: ast.AnnAssign) -> tuple[str, str] | None:
    """The configuration and its field whose default an option has: Config.field, or get_field(Config, "field")."""
    match option.value:
        case ast.Attribute(value=ast.Name(id=config), attr=attribute):
            return config, attribute
        case ast.Call(func=ast.Name(id="get_field"), args=[ast.Name(id=config), ast.Constant(value=str(attribute))]):
            return config, attribute
    return None


def _file_of(config: str) -> str | None:
    """The file of a configuration's class."""
    for node in statements(CONFIG):
        if isinstance(node, ast.ImportFrom) and any(alias.name == config for alias in node.names):
            return f"{str(node.module).removeprefix('vllm.').replace('.', '/')}.py"
    return None


def _converted(owner: ast.ClassDef) -> set[str]:
    """The fields whose values a function of vLLM's changes before they are judged."""
    calls = (decorator for node in owner.body if isinstance(node, ast.FunctionDef) for decorator in node.decorator_list)
    found: set[str] = set()
    for call in calls:
        if isinstance(call, ast.Call) and any(ast.unparse(keyword) == "mode='before'" for keyword in call.keywords):
            found |= {argument.value for argument in call.args if isinstance(argument, ast.Constant)}  # type: ignore[misc]
    return {str(node.target.id) for node in _fields(owner)} if "*" in found else found


def _fields(owner: ast.ClassDef) -> Iterator[Any]:
    return (node for node in owner.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name))


def _bounds(field: ast.AnnAssign) -> dict[str, Any]:
    keywords = field.value.keywords if isinstance(field.value, ast.Call) else []
    return {
        str(keyword.arg): ast.literal_eval(keyword.value)
        for keyword in keywords
        if keyword.arg in BOUNDS and isinstance(keyword.value, ast.Constant | ast.UnaryOp)
    }


def _type(node: ast.expr, file: str) -> Any:
    """The type that an annotation means; Any where it is not made of plain values, Literal and |."""
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name) if name in PLAIN:
            return PLAIN[name]
        case ast.Name(id=name):
            return _alias(name, file)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            parts = (_type(left, file), _type(right, file))
            return Any if Any in parts else Union[parts]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id="Literal"), slice=values):
            return _literal(values)
    return Any


def _literal(values: ast.expr) -> Any:
    items = values.elts if isinstance(values, ast.Tuple) else [values]
    if not all(isinstance(item, ast.Constant) for item in items):
        return Any
    return Literal[tuple(ast.literal_eval(item) for item in items)]


def _alias(name: str, file: str) -> Any:
    """The type that a name stands for in its file."""
    for node in statements(file):
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            return _type(node.value, file)
    return Any
