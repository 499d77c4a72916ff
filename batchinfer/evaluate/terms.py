"""Lists of identity terms: groups of people, and the words for them that are exchanged for one another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from batchinfer.core.fields import NonEmpty, Section
from batchinfer.core.files import why_unread
from batchinfer.errors import InputError
from batchinfer.job import yaml_file
from batchinfer.job.reader import Job, faulty, placing

FIELD = "audit.swaps"
SUFFIXES = (".yaml", ".yml")
FORM = "a list of terms is a mapping of groups, each with its terms: groups: {women: [she, mother], men: [he, father]}."
WORD = r"[\w\u0300-\u036f\u0900-\u0dff]"  # \w has no vowel signs of Indian scripts
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Of scripts that do not set words apart: a term is found there within other letters, too."""


class TermFile(Section):
    """What a file of terms holds: for each group its terms, the first to be exchanged for the first of another, and so on."""

    groups: Annotated[dict[NonEmpty, Annotated[list[NonEmpty], Field(min_length=1)]], Field(min_length=2)]


@dataclass(frozen=True, slots=True)
class TermGroups:
    """Groups of terms.

    name: of the list, which is that of its file; sentences have it as a slot.
    groups: for each group its terms; all have as many.
    """

    name: str
    groups: Mapping[str, tuple[str, ...]]


def read_terms(job: Job) -> list[TermGroups]:
    """The lists that audit.swaps names. Raises InputError or SpecError."""
    with placing(job):
        lists = [_read_list(job.inside(FIELD, name), place) for place, name in enumerate(job.spec.audit.swaps)]
    names = [each.name for each in lists]
    if repeated := {name for name in names if names.count(name) > 1}:
        said = f"two files are called {min(repeated)}.yaml: rename one, since sentences name lists by their files."
        raise faulty(job, [(("audit", "swaps"), said)])
    return lists


def _read_list(path: Path, place: int) -> TermGroups:
    field = ("audit", "swaps", place)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is no list of terms: name a file that ends in .yaml.", field=field)
    if not path.is_file():
        raise InputError(f"There is no file {path}.", field=field)
    try:
        _, content = yaml_file.read(path.read_text(encoding="utf-8"))
        groups = TermFile.model_validate(content if isinstance(content, dict) else {}).groups
    except yaml_file.YamlFault as exc:
        raise InputError(f"{path}, line {exc.line}: {exc}.") from exc
    except ValidationError as exc:
        raise InputError(f"{path}: {_said(exc)}", fix=FORM) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"{path} cannot be read: {why_unread(exc)}.") from exc
    _check_groups(path, groups)
    return TermGroups(path.stem, {name: tuple(terms) for name, terms in groups.items()})


def _said(exc: ValidationError) -> str:
    """The first fault of a file's form."""
    error = exc.errors()[0]
    return f"{'.'.join(map(str, error['loc'])) or 'groups'}: {error['msg'].removeprefix('Value error, ')}"


def _check_groups(path: Path, groups: Mapping[str, list[str]]) -> None:
    """Raises InputError for a term in two groups, or groups that cannot be exchanged term by term."""
    owner: dict[str, str] = {}
    for name, terms in groups.items():
        for term in terms:
            other = owner.setdefault(term.casefold(), name)
            if other != name:
                raise InputError(
                    f"{path}: the term {term} is in two groups, {other} and {name}, so that it could not be told whom it names: "
                    "keep it in one."
                )
    sizes = {name: len(terms) for name, terms in groups.items()}
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise InputError(f"{path}: terms are exchanged one for one, so all groups need as many: {counts}.")


class Exchange:
    """The terms of two groups exchanged for one another, both ways in one pass, so that nothing is exchanged back.

    first, second: the groups' names.
    """

    def __init__(self, terms: TermGroups, first: str, second: str) -> None:
        self.first, self.second = first, second
        ways = ((first, second), (second, first))
        self._group = {term.casefold(): own for own, _ in ways for term in terms.groups[own]}
        self._other: dict[str, str] = {}
        for own, other in ways:
            for term, substitute in zip(terms.groups[own], terms.groups[other], strict=True):
                self._other.setdefault(term.casefold(), substitute)  # of a term that stands twice, the first
        longest_first = sorted(self._other, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_bounded, longest_first)), re.IGNORECASE)

    def mentioned(self, text: str) -> str | None:
        """The group that a text mentions first; None if it mentions neither."""
        found = self._pattern.search(text)
        return None if found is None else self._group.get(found[0].casefold())

    def exchanged(self, text: str) -> str:
        """The text with each term in place of the other; capitals stay as they are."""
        return self._pattern.sub(lambda found: _cased(found[0], self._other.get(found[0].casefold(), found[0])), text)


def _bounded(term: str) -> str:
    """A pattern for a term as a word of its own, where its script sets words apart."""
    before = "" if UNSPACED.match(term[0]) else f"(?<!{WORD})"
    after = "" if UNSPACED.match(term[-1]) else f"(?!{WORD})"
    return f"{before}{re.escape(term)}{after}"


def _cased(found: str, substitute: str) -> str:
    """The substitute in capitals if the term was, or with a first capital if it had one where its list has none."""
    if found.isupper() and len(found) > 1:
        return substitute.upper()
    return substitute[:1].upper() + substitute[1:] if found[:1].isupper() else substitute
