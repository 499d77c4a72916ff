"""The steps of a job's output section: what is done to the texts and lists of an answer before it is checked. Pure."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchinfer.core import keys
from batchinfer.errors import MissingExtra
from batchinfer.prompting.output import DropEchoStep, DropStep, DropWrongScriptStep, SplitStep, Step

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


def columns_of(steps: Sequence[Step]) -> list[str]:
    """The columns of the row that the steps look at."""
    echoes = [step.drop_echo for step in steps if isinstance(step, DropEchoStep)]
    scripts = [step.drop_wrong_script for step in steps if isinstance(step, DropWrongScriptStep)]
    return list(dict.fromkeys(echoes + scripts))


def function_of(step: Step) -> Apply:
    """One step as a function of a value and its row. Raises MissingExtra for one that needs what is not installed."""
    if isinstance(step, SplitStep):
        return lambda value, _: value.split(step.split) if isinstance(value, str) else value
    if isinstance(step, DropStep):
        matched = re.compile(step.drop).fullmatch
        return lambda value, _: _without(value, lambda text: matched(text) is not None)
    if isinstance(step, DropEchoStep):
        return lambda value, row: _without(value, _echo_of(row[step.drop_echo]))
    if isinstance(step, DropWrongScriptStep):
        _check_installed()
        return lambda value, row: _without(value, _foreign_to(row[step.drop_wrong_script]))
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


def _check_installed() -> None:
    try:
        import langcodes  # noqa: F401 - found out before hours of work, not after
        import regex  # noqa: F401
    except ImportError as exc:
        raise MissingExtra("What the step drop_wrong_script needs (langcodes, regex)", "match") from exc


def _foreign_to(tag: Any) -> Callable[[str], bool]:
    """Whether a text has letters, but none of a script of the language; always false for an unknown language."""
    letter, own = _letters(str(tag))
    return lambda text: own is not None and letter(text) is not None and own(text) is None


@functools.cache
def _letters(tag: str) -> tuple[Callable[[str], Any], Callable[[str], Any] | None]:
    """Searches for a letter in a text, and for one of the language's own; None where its script is not known."""
    import langcodes
    import regex
    from langcodes.tag_parser import LanguageTagError

    letter = regex.compile(r"\p{L}").search
    try:
        language = langcodes.Language.get(tag)
        if not language.is_valid() or language.language in (None, "und"):
            return letter, None
        script = language.maximize().script or "Zyyy"
        scripts = [*COMBINED_SCRIPTS.get(script, (script,))]
        if language.script is None and (second := SECOND_SCRIPTS.get(language.language or "")):
            scripts.append(second)
        names = "".join(rf"\p{{Script={name}}}" for name in scripts)
        return letter, regex.compile(f"[{names}]").search
    except (LanguageTagError, regex.error):
        return letter, None
