"""What vLLM takes, read from its source: importing it takes many seconds, and fails where its device is missing."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path

LLM, ENGINE_ARGUMENTS = "entrypoints/llm.py", "engine/arg_utils.py"
QUANTIZATION = "model_executor/layers/quantization/__init__.py"


@functools.cache
def engine_options() -> frozenset[str] | None:
    """The names of all options of the engine; None where vLLM is not installed, or is not as it was."""
    arguments, llm = _class(ENGINE_ARGUMENTS, "EngineArgs"), _class(LLM, "LLM")
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
    for node in _statements(QUANTIZATION):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "QuantizationMethods":
            texts = {part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)}
            return frozenset(text for text in texts if isinstance(text, str)) or None
    return None


def _class(file: str, name: str) -> ast.ClassDef | None:
    return next((node for node in _statements(file) if isinstance(node, ast.ClassDef) and node.name == name), None)


def _statements(file: str) -> Iterator[ast.stmt]:
    """The statements of a file of vLLM's; none where it cannot be read."""
    try:
        found = importlib.util.find_spec("vllm")
    except (ImportError, ValueError):
        return
    for folder in (found and found.submodule_search_locations) or ():
        try:
            yield from ast.parse((Path(folder) / file).read_text(encoding="utf-8")).body
        except (OSError, SyntaxError, ValueError):
            continue
