"""The steps of a job's output section: what is done to the texts and lists of an answer before it is checked. Pure."""

from __future__ import annotations

import functools
import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchinfer.core import keys
from batchinfer.errors import MissingExtra
from batchinfer.prompting.output import DedupeStep, DropEchoStep, DropStep, DropWrongScriptStep, SplitStep, TidyingStep

Row = Mapping[str, Any]
Apply = Callable[[Any, Row], Any]

# The scripts of those codes of ISO 15924 that stand for several.
COMBINED_SCRIPTS = {
    "Jpan": ("Hani", "Hira", "Kana"),
    "Kore": ("Hang", "Hani"),
    "Hans": ("Hani",),
    "Hant": ("Hani", "Bopo"),
}
# Languages that are written in a second script as well as in their likeliest.
SECOND_SCRIPTS = {"sr": "Latn", "uz": "Cyrl", "pa": "Arab", "ks": "Deva"}


def columns_of(steps: Sequence[TidyingStep]) -> list[str]:
    """The columns of the row that the steps look at."""
    echoes = [step.drop_echo for step in steps if isinstance(step, DropEchoStep)]
    scripts = [step.language for step in steps if isinstance(step, DropWrongScriptStep)]
    return list(dict.fromkeys(echoes + scripts))


def function_of(step: TidyingStep) -> Apply:
    """One step as a function of a value and its row. Raises MissingExtra for one that needs what is not installed."""
    if isinstance(step, SplitStep):
        return lambda value, _: value.split(step.split) if isinstance(value, str) else value
    if isinstance(step, DropStep):
        matched = re.compile(step.drop).fullmatch
        return lambda value, _: _without(value, lambda text: matched(text) is not None)
    if isinstance(step, DropEchoStep):
        return lambda value, row: _without(value, _echo_of(row[step.drop_echo]))
    if isinstance(step, DropWrongScriptStep):
        _check_installed("drop_wrong_script", "langcodes", "regex")
        wrong = _mixed_with if step.drops_mixed else _foreign_to
        return lambda value, row: _without(value, wrong(row[step.language]))
    if isinstance(step, DedupeStep):
        _check_installed("dedupe: folded", "regex")
        return lambda value, _: _distinct(value, _folded())
    return lambda value, _: _plain(step, value)


def _plain(step: str, value: Any) -> Any:
    """A step without settings on a text, or on all texts within a JSON value; dedupe and drop_empty work on its lists."""
    if isinstance(value, dict):
        return {name: _plain(step, item) for name, item in value.items()}
    if isinstance(value, list):
        items = [_plain(step, item) for item in value]
        if step == "dedupe":
            return _deduped(items)
        return [item for item in items if item not in ("", None)] if step == "drop_empty" else items
    return _TEXT_STEPS[step](value) if isinstance(value, str) and step in _TEXT_STEPS else value


_TEXT_STEPS: dict[str, Callable[[str], str]] = {
    "strip": str.strip,
    "casefold": str.casefold,
    "squeeze": lambda text: " ".join(text.split()),
    "first_line": lambda text: text.strip().split("\n", 1)[0],
}


def _deduped(items: list[Any]) -> list[Any]:
    seen, kept = set(), []
    for item in items:
        key = json.dumps(item, sort_keys=True)
        if key not in seen:
            seen.add(key)
            kept.append(item)
    return kept


def _without(value: Any, unwanted: Callable[[str], bool]) -> Any:
    """A value without the unwanted texts in its lists; one that stands alone becomes empty."""
    if isinstance(value, dict):
        return {name: _without(item, unwanted) for name, item in value.items()}
    if isinstance(value, list):
        return [_without(item, unwanted) for item in value if not (isinstance(item, str) and unwanted(item))]
    return "" if isinstance(value, str) and unwanted(value) else value


def _echo_of(value: Any) -> Callable[[str], bool]:
    def comparable(text: str) -> str:
        return keys.normalized(text, ["nfkc", "casefold", "trim"])

    return lambda text: value is not None and comparable(text) == comparable(str(value))


def _check_installed(step: str, *libraries: str) -> None:
    """Raises MissingExtra: before hours of work, not after."""
    try:
        for name in libraries:
            importlib.import_module(name)
    except ImportError as exc:
        raise MissingExtra(f"What the step {step} needs ({', '.join(libraries)})", "match") from exc


def _foreign_to(tag: Any) -> Callable[[str], bool]:
    """Whether a text has letters, but none of a script of the language; always false for an unknown language."""
    scripts = _scripts(str(tag))
    if scripts is None:
        return lambda _: False
    letter, own = _searches(r"\p{L}", scripts.own)
    return lambda text: letter(text) is not None and own(text) is None


def _mixed_with(tag: Any) -> Callable[[str], bool]:
    """Whether a text has letters of a script that is not the language's; always false for an unknown language.

    Latin letters may stand beside every script, as brands and abbreviations do, if there is one of the language's own; but
    not within a word of a script that has letters of the same looks (UTS 39, the restriction level "moderately restrictive").
    """
    scripts = _scripts(str(tag))
    if scripts is None:
        return lambda _: False
    foreign_to = _foreign_to(tag)
    wrong = [rf"[\p{{L}}--{scripts.own}--{NEUTRAL}--\p{{Script=Latin}}]"]
    if scripts.names & LOOKS_LATIN:
        own = rf"[{scripts.own}--\p{{Script=Latin}}]"
        wrong += [rf"{own}\p{{M}}*\p{{Script=Latin}}", rf"\p{{Script=Latin}}\p{{M}}*{own}"]
    (mixed,) = _searches("|".join(wrong))
    return lambda text: foreign_to(text) or mixed(text) is not None


NEUTRAL = r"[\p{Script=Common}\p{Script=Inherited}]"
LOOKS_LATIN = frozenset({"Cyrl", "Grek"})


@dataclass(frozen=True, slots=True)
class _Scripts:
    """What a language is written in.

    names: its scripts, by their codes of ISO 15924.
    """

    names: frozenset[str]

    @property
    def own(self) -> str:
        """All letters of these scripts, for a regular expression."""
        return "[" + "".join(rf"\p{{Script={name}}}" for name in sorted(self.names)) + "]"


@functools.cache
def _searches(*patterns: str) -> tuple[Callable[[str], Any], ...]:
    import regex

    return tuple(regex.compile(pattern, regex.V1).search for pattern in patterns)


@functools.cache
def _scripts(tag: str) -> _Scripts | None:
    """Those of a language; None where they are not known."""
    import langcodes
    import regex
    from langcodes.tag_parser import LanguageTagError

    try:
        language = langcodes.Language.get(tag)
        if not language.is_valid() or language.language in (None, "und"):
            return None
        script = language.maximize().script or "Zyyy"
        names = [*COMBINED_SCRIPTS.get(script, (script,))]
        if language.script is None and (second := SECOND_SCRIPTS.get(language.language or "")):
            names.append(second)
        scripts = _Scripts(frozenset(names))
        _searches(scripts.own)
    except (LanguageTagError, regex.error):
        return None
    return scripts


@functools.cache
def _folded() -> Callable[[str], str]:
    """The form in which matching compares terms; a text of which it leaves nothing is as it is."""
    from batchinfer.match.folding import Folding

    term = Folding().term
    return lambda text: term(text) or text


def _distinct(value: Any, form: Callable[[str], str]) -> Any:
    """A value without the texts in its lists that have the form of an earlier one."""
    if isinstance(value, dict):
        return {name: _distinct(item, form) for name, item in value.items()}
    if not isinstance(value, list):
        return value
    seen, kept = set[str](), list[Any]()
    for item in value:
        alike = form(item) if isinstance(item, str) else None
        if alike is None or alike not in seen:
            kept.append(_distinct(item, form))
        if alike is not None:
            seen.add(alike)
    return kept
