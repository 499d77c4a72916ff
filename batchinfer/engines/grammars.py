"""What vLLM can hold a model to while it writes, found by compiling it as vLLM does, without a model and without vLLM.

vLLM follows xgrammar, which knows less than JSON Schema and Python's regular expressions. What a schema has beyond that
is left out of what the engine gets, and checked once an answer is there.

Started as `python -m batchinfer.engines.grammars`: JSON triples of a kind, a value and texts on standard input, a Constraint
for each on standard output. xgrammar prints to standard error what it ignores, and could end the process.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import re
import resource
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from batchinfer.core.own_process import command_of, environment
from batchinfer.core.schema_keywords import PART_MAPS, PARTS, SAME_VALUE, SAME_VALUE_MAPS
from batchinfer.engines import vllm_source

# What may be left out, beginning with what helps least to write the right thing. The rest says what kind of value it is.
MAY_BE_LEFT_OUT = (
    "default", "examples", "uniqueItems", "minContains", "maxContains", "contains", "multipleOf", "unevaluatedItems",
    "unevaluatedProperties", "dependentRequired", "dependentSchemas", "if", "then", "else", "not", "format", "minLength",
    "maxLength", "propertyNames", "minProperties", "maxProperties", "pattern", "patternProperties", "allOf",
)  # fmt: skip
TURNED_ROUND = frozenset({"not", "if"})  # within them, what is left out would ask for more
_SET = r"\[(?!\^?\])(?:\\[^0]|\\0(?![0-7])|[^\]\\])*(?:\]|(?=\\0))"
MISREAD = re.compile(rf"(?:[^\\\[]|\\[^AZ0]|\\0(?![0-7])|{_SET})*?(\\[AZ]|\\0[0-7]{{1,2}}|\[\^?\]|\0)", re.DOTALL)
LOOKS_AROUND = re.compile(r"\(\?<?[=!]")
PREFIX = re.compile(r"^\[[0-9:]+\] \S+: ")  # time and place in xgrammar's source
BYTES = [bytes([byte]) for byte in range(256)]
MOST_OPTIONAL = 1_000  # properties of an object that may be left out: xgrammar's time grows with their number cubed
SECONDS = 30  # of the processor that compiling may take; vLLM would take as long for each run
PATIENCE = 600.0  # seconds, on a machine however busy

SETTINGS = "structured_outputs_config"  # vLLM's option, with which a job may choose something else than xgrammar

SchemaPath = tuple[str | int, ...]
Refusal = Callable[[Any], str | None]
"""Why a schema cannot be followed; None if it can."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a model is held to while it writes.

    value: the JSON Schema or the pattern, less what was left out.
    left_out: the places in the schema of the keywords that are checked only afterwards.
    refusal: why it cannot be followed at all, as the rest of a sentence; None if it can.
    unwritable: the places of those of the given texts that a model held to it could not write.
    """

    value: Any
    left_out: tuple[SchemaPath, ...] = ()
    refusal: str | None = None
    unwritable: tuple[int, ...] = ()


def follows_xgrammar(options: Mapping[str, Any]) -> bool:
    """Whether an engine with these options follows xgrammar, and not something else that the job chose."""
    return SETTINGS not in options


@functools.cache
def followed_elsewhere(kind: str, text: str, answers: tuple[str, ...] = ()) -> Constraint:
    """What vLLM can follow, asked in a process of its own; all of it where xgrammar is not installed here.

    kind: json or regex. text: the schema as JSON, or the pattern. answers: texts of which is asked whether a model could
    write them.
    """
    value = json.loads(text) if kind == "json" else text
    if importlib.util.find_spec("xgrammar") is None:
        return Constraint(value)
    try:
        asked = subprocess.run(
            command_of(__name__),
            input=json.dumps([[kind, value, answers]]).encode(),
            capture_output=True,
            timeout=PATIENCE,
            env=environment(),
            check=True,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as exc:
        if isinstance(exc, subprocess.TimeoutExpired) or exc.returncode == -signal.SIGXCPU:
            return Constraint(value, refusal=f"takes vLLM more than {SECONDS} s to prepare: make it simpler")
        return Constraint(value, refusal="ends the process that prepares it for vLLM: make it simpler")
    [found] = json.loads(asked.stdout)
    left_out = tuple(tuple(place) for place in found["left_out"])
    return Constraint(found["value"], left_out, found["refusal"], tuple(found["unwritable"]))


def followed(kind: str, value: Any, answers: Sequence[str] = ()) -> Constraint:
    """What xgrammar, which must be installed, can follow of a JSON Schema (kind: json) or a pattern (kind: regex).

    answers: texts of which is asked whether a model could write them.
    """
    is_pattern = kind == "regex"
    found = Constraint(value, refusal=_pattern_refusal(value)) if is_pattern else relaxed(value, _schema_refusal)
    return found if found.refusal or not answers else replace(found, unwritable=_unwritable(kind, found.value, answers))


def _unwritable(kind: str, value: Any, answers: Sequence[str]) -> tuple[int, ...]:
    """The places of the texts that the grammar of a schema or pattern, which can be followed, does not accept."""
    import xgrammar

    grammar = _compile_schema(_compiler(), value) if kind == "json" else _compiler().compile_regex(value)
    places = list[int]()
    for place, answer in enumerate(answers):
        matcher = xgrammar.GrammarMatcher(grammar, terminate_without_stop_token=True)
        if not matcher.accept_string(answer) or not matcher.is_terminated():
            places.append(place)
    return tuple(places)


def relaxed(schema: Any, refusal: Refusal) -> Constraint:
    """The schema less as few keywords as is needed for it to be followed."""
    why = refusal(schema)
    if why is None:
        return Constraint(schema)
    out: list[SchemaPath] = []
    for place in sorted(_places(schema), key=lambda place: MAY_BE_LEFT_OUT.index(str(place[-1]))):
        out.append(place)
        if refusal(_without(schema, out)) is None:
            break
    else:
        return Constraint(schema, refusal=why)
    for place in out[:-1]:  # most were left out without need
        fewer = [other for other in out if other != place]
        if refusal(_without(schema, fewer)) is None:
            out = fewer
    return Constraint(_without(schema, out), tuple(out))


def _places(schema: Any, at: SchemaPath = ()) -> Iterator[SchemaPath]:
    """Where a schema has keywords that may be left out."""
    if not isinstance(schema, dict):
        return
    for name, value in schema.items():
        if name in MAY_BE_LEFT_OUT:
            yield (*at, name)
        if name in TURNED_ROUND or name not in {*PARTS, *SAME_VALUE}:
            continue
        if name in PART_MAPS | SAME_VALUE_MAPS and isinstance(value, dict):
            for key, part in value.items():
                yield from _places(part, (*at, name, key))
        elif isinstance(value, list):
            for number, part in enumerate(value):
                yield from _places(part, (*at, name, number))
        else:
            yield from _places(value, (*at, name))


def _without(schema: Any, places: Sequence[SchemaPath]) -> Any:
    """The schema without the keywords at these places."""
    here = {place[0] for place in places if len(place) == 1}
    if isinstance(schema, dict):
        return {
            name: _without(part, [place[1:] for place in places if place[0] == name and len(place) > 1])
            for name, part in schema.items()
            if name not in here
        }
    if isinstance(schema, list):
        return [_without(part, [place[1:] for place in places if place[0] == at]) for at, part in enumerate(schema)]
    return schema


def _schema_refusal(schema: Any) -> str | None:
    too_deep, unsupported = vllm_source.too_deep(), vllm_source.unsupported_by_xgrammar()
    if too_deep is not None and too_deep(schema):
        return "is nested too deeply for vLLM"
    if unsupported is not None and unsupported(schema):
        return "has keywords that vLLM cannot hold a model to"
    if (optional := _most_optional(schema)) > MOST_OPTIONAL:
        return (
            f"has an object of {optional:,} properties that are not required, of which vLLM can prepare {MOST_OPTIONAL:,}: "
            "name them under required, or make fewer"
        )
    for pattern in _patterns(schema):
        if (why := _misread(pattern)) is not None:
            return f"has the pattern {pattern[:60]}, which {why}"
        if LOOKS_AROUND.search(pattern):  # in a schema xgrammar takes it as if it were not there
            return f"has the pattern {pattern[:60]}, which looks around"
    return _compiled(lambda compiler: _compile_schema(compiler, schema))


def _compile_schema(compiler: Any, schema: Any) -> Any:
    """The grammar that vLLM makes of it, with `disable_any_whitespace`."""
    return compiler.compile_json_schema(json.dumps(schema), any_whitespace=False, separators=(",", ":"))


def _most_optional(schema: Any) -> int:
    """How many properties of an object may be left out, of that which has most of them."""
    if isinstance(schema, list):
        return max(map(_most_optional, schema), default=0)
    if not isinstance(schema, dict):
        return 0
    names, required = schema.get("properties"), schema.get("required")
    own = set(names if isinstance(names, dict) else ()) - set(required if isinstance(required, list) else ())
    return max(len(own), *map(_most_optional, schema.values()), 0)


def _patterns(schema: Any) -> Iterator[str]:
    """The texts that stand where a pattern may."""
    if isinstance(schema, list):
        for part in schema:
            yield from _patterns(part)
    elif isinstance(schema, dict):
        if isinstance(pattern := schema.get("pattern"), str):
            yield pattern
        if isinstance(names := schema.get("patternProperties"), dict):
            yield from names
        yield from _patterns(list(schema.values()))


def _pattern_refusal(pattern: str) -> str | None:
    return _misread(pattern) or _compiled(lambda compiler: compiler.compile_regex(pattern))


def _misread(pattern: str) -> str | None:
    """What xgrammar takes for something else than Python does."""
    found = MISREAD.match(pattern)
    if found is None:
        return None
    if found[1] in {r"\A", r"\Z"}:
        return f"has {found[1]}, which vLLM takes for a letter: leave it out, since the whole answer must match anyway"
    if found[1] == "\0":
        return "has a NUL character, which vLLM does not take"
    return f"has {found[1]}, which vLLM reads otherwise: write it as an escape, such as \\] or \\x30"


def _compiler() -> Any:
    """A compiler of grammars. No model's tokens are needed: bytes are enough."""
    import xgrammar

    return xgrammar.GrammarCompiler(xgrammar.TokenizerInfo(BYTES), max_threads=1, cache_enabled=False)


def _compiled(compile_grammar: Callable[[Any], Any]) -> str | None:
    """Xgrammar's reason for not compiling something; None if it does."""
    compiler = _compiler()
    try:
        compile_grammar(compiler)
    except Exception as exc:  # noqa: BLE001 - of whatever kind, vLLM makes a refusal of it
        lines = [line for line in str(exc).splitlines() if line.strip()] or [type(exc).__name__]
        return f"cannot be followed by vLLM: {PREFIX.sub('', lines[0])[:200].rstrip('.')}"
    return None


class _Hollow(types.ModuleType):
    """Stands for a module of which nothing is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda *_, **__: None})


def _import_xgrammar() -> None:
    """Imports it without torch and transformers, which take seconds: they are for masks of tokens, and none is made here."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    with contextlib.suppress(ImportError):
        import tvm_ffi  # noqa: F401 - works without torch, but not with half of one
    hollow = {name: _Hollow(name) for name in ("torch", "transformers")}
    try:
        sys.modules.update(hollow)
        import xgrammar  # noqa: F401
    except Exception:  # noqa: BLE001 - another version needs them
        for name in [name for name in sys.modules if name.partition(".")[0] in {"xgrammar", *hollow}]:
            del sys.modules[name]


def main() -> None:
    """Answers for each value on standard input."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    _import_xgrammar()
    json.dump([asdict(followed(*asked)) for asked in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
