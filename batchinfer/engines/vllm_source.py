"""What vLLM takes, read from its source: importing it takes many seconds, and fails where its device is missing."""

from __future__ import annotations
import __future__

import ast
import contextlib
import functools
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LLM, ENGINE_ARGUMENTS = "entrypoints/llm.py", "engine/arg_utils.py"
QUANTIZATION = "model_executor/layers/quantization/__init__.py"
XGRAMMAR, SAMPLING = "v1/structured_output/backend_xgrammar.py", "sampling_params.py"

SchemaCheck = Callable[[Any], bool]


@functools.cache
def engine_options() -> frozenset[str] | None:
    """The names of all options of the engine; None where vLLM is not installed, or is not as it was."""
    arguments, llm = class_of(ENGINE_ARGUMENTS, "EngineArgs"), class_of(LLM, "LLM")
    if arguments is None or llm is None:
        return None
    fields = {
        node.target.id
        for node in arguments.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    [made] = [node for node in llm.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    named = {argument.arg for argument in (*made.args.args, *made.args.kwonlyargs)} - {"self"}
    return frozenset(fields | named)


@functools.cache
def quantization_methods() -> frozenset[str] | None:
    """The names of all quantisation methods; None where they cannot be read."""
    for node in statements(QUANTIZATION):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "QuantizationMethods":
            texts = {part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)}
            return frozenset(text for text in texts if isinstance(text, str)) or None
    return None


@functools.cache
def too_deep() -> SchemaCheck | None:
    """Whether vLLM refuses a JSON Schema since it is nested too deeply; None where its check cannot be read."""
    found = _functions(SAMPLING)
    check, limit = found.get("_exceeds_json_nesting"), found.get("MAX_STRUCTURED_OUTPUT_JSON_NESTING")
    return None if check is None or limit is None else lambda schema: bool(check(schema, limit))


@functools.cache
def unsupported_by_xgrammar() -> SchemaCheck | None:
    """Whether vLLM refuses a JSON Schema for its keywords; None where its check cannot be read."""
    check: SchemaCheck | None = _functions(XGRAMMAR).get("has_xgrammar_unsupported_json_features")
    return check


def _functions(file: str) -> dict[str, Any]:
    """The plain functions and constants of a file of vLLM's, in a namespace of their own."""
    kept: list[ast.stmt] = []
    for node in statements(file):
        is_function = isinstance(node, ast.FunctionDef) and not node.decorator_list
        if is_function or (isinstance(node, ast.Assign) and _is_literal(node.value)):
            kept.append(node)
    names: dict[str, Any] = {"Any": Any, "json_mod": json}
    code = compile(ast.Module(kept, []), file, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)
    exec(code, names)  # noqa: S102 - they are what the engine itself runs
    return names


def _is_literal(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError):
        return False
    return True


def class_of(file: str, name: str) -> ast.ClassDef | None:
    """A class of a file of vLLM's; None where it is not there."""
    return next((node for node in statements(file) if isinstance(node, ast.ClassDef) and node.name == name), None)


@functools.cache
def statements(file: str) -> Sequence[ast.stmt]:
    """The statements of a file of vLLM's; none where it cannot be read."""
    try:
        found = importlib.util.find_spec("vllm")
    except (ImportError, ValueError):
        return []
    for folder in (found and found.submodule_search_locations) or ():
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            return ast.parse((Path(folder) / file).read_text(encoding="utf-8")).body
    return []
