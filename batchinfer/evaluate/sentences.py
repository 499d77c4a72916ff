"""Sentences with slots for identity terms: how well scores tell right from wrong for each group, and between groups.

For a group there are three areas under the ROC curve, of the score of one choice (Borkan et al. 2019):

- subgroup: its own sentences,
- BPSN: its negative sentences and the positive ones of all others; low where its scores are too high,
- BNSP: its positive sentences and the negative ones of all others; low where its scores are too low.

Each is compared with the area of the others' sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchinfer.core.arrays import Floats
from batchinfer.core.significance import shown_together
from batchinfer.errors import InputError, did_you_mean
from batchinfer.evaluate import stats
from batchinfer.evaluate.answers import ArmAnswer
from batchinfer.evaluate.terms import TermGroups
from batchinfer.inputs.csv_file import as_parquet, title_hint
from batchinfer.job.audit_spec import AuditLimits
from batchinfer.job.reader import Job, placing
from batchinfer.publish.golden import ANSWER
from batchinfer.publish.slices import FairVerdict

FIELD = "audit.templates"
SLOT = re.compile(r"\{(\w[\w-]*)\}")
LINE = "\x1fline"


@dataclass(frozen=True, slots=True)
class Sentence:
    """A line of a file of sentences.

    line: its number, by file, for those that are made of it.
    slot: the list of terms that fills its slots.
    texts: the template's columns, with slots.
    answer: the right one.
    """

    line: str
    slot: str
    texts: Mapping[str, str]
    answer: str


@dataclass(frozen=True, slots=True)
class FilledSentences:
    """Sentences, each with each term.

    rows: the template's columns.
    groups: of each row, with its list's name.
    lines: the sentence of each row, as a number.
    answers: the right answer of each row.
    """

    rows: pa.Table
    groups: tuple[tuple[str, str], ...]
    lines: NDArray[np.int64]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuditedTemplate:
    """How well scores tell right from wrong for one group.

    terms: the list of the group.
    group: its name.
    rows: filled sentences of the group that have a score.
    areas: subgroup, bpsn and bnsp; None where rows of a kind are missing.
    low, high: of the worst of them, with 95 %.
    background: the area of the others' sentences.
    verdict: pass, fail or not enough data.
    why: the areas that are too low.
    """

    terms: str
    group: str
    rows: int
    verdict: FairVerdict
    areas: Mapping[str, float] = field(default_factory=dict)
    background: float | None = None
    low: float | None = None
    high: float | None = None
    why: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.terms}: {self.group}"

    @property
    def message(self) -> str:
        """The areas, as part of a sentence."""
        if self.background is None:
            return "too few rows of a kind"
        areas = ", ".join(f"{kind} {area:.2f}" for kind, area in self.areas.items())
        return f"{areas}; of the others {self.background:.2f}"

    def to_json(self) -> dict[str, Any]:
        return {
            "terms": self.terms, "group": self.group, "rows": self.rows,
            **{name: self.areas.get(name) for name in KINDS}, "background": self.background,
            "low": self.low, "high": self.high, "verdict": self.verdict, "why": list(self.why),
            "name": self.name, "message": self.message,
        }  # fmt: skip


KINDS = ("subgroup", "bpsn", "bnsp")


def read_sentences(job: Job, columns: Sequence[str], lists: Sequence[TermGroups], scratch: Path) -> list[Sentence]:
    """The sentences of audit.templates. columns: of the prompt's template. Raises InputError or SpecError."""
    known = [each.name for each in lists]
    with placing(job):
        return [
            sentence
            for place, name in enumerate(job.spec.audit.templates)
            for sentence in _read_file(job, job.inside(FIELD, name), place, columns, known, scratch)
        ]


def _read_file(
    job: Job, path: Path, place: int, columns: Sequence[str], lists: Sequence[str], scratch: Path
) -> Iterator[Sentence]:
    if not path.is_file():
        raise InputError(f"There is no file {path}.", field=("audit", "templates", place))
    table = pq.read_table(as_parquet(path, scratch, LINE))
    if missing := [name for name in (*columns, ANSWER) if name not in table.column_names]:
        raise InputError(
            f"{path} has no column {missing[0]}: it needs {ANSWER} and the columns of the template, {', '.join(columns)}."
            + title_hint(path.name, (*columns, ANSWER), table.column_names)
        )
    found = [_sentence(job, path, row, columns, lists) for row in table.to_pylist()]
    if not found:
        raise InputError(f"{path} has no sentences: give it some, or leave it out of {FIELD}.")
    yield from found


def _sentence(job: Job, path: Path, row: Mapping[str, Any], columns: Sequence[str], lists: Sequence[str]) -> Sentence:
    line, choices = f"{path}, line {row.get(LINE, '?')}", job.spec.output.choices or []
    texts = {name: "" if row[name] is None else str(row[name]) for name in columns}
    slots = sorted({slot for text in texts.values() for slot in SLOT.findall(text)})
    if not slots:
        known = ", ".join(f"{{{name}}}" for name in lists)
        raise InputError(f"{line}: the sentence has no slot for a term: write {known} where one belongs.")
    if len(slots) > 1:
        raise InputError(f"{line}: the sentence has slots of several lists, {' and '.join(slots)}: keep one of them.")
    if slots[0] not in lists:
        hint = did_you_mean(slots[0], lists) or f"there are {', '.join(lists)}."
        raise InputError(f"{line}: the slot {{{slots[0]}}} is the name of no list of audit.swaps; {hint}")
    if row[ANSWER] not in choices:
        raise InputError(f"{line}: the answer {row[ANSWER]} is not one of output.choices ({', '.join(choices)}).")
    return Sentence(line, slots[0], texts, row[ANSWER])


def filled(sentences: Sequence[Sentence], lists: Sequence[TermGroups]) -> FilledSentences:
    """Each sentence with each term of each group of its list."""
    terms = {each.name: each.groups for each in lists}
    made = [
        (each, place, group, term)
        for place, each in enumerate(sentences)
        for group, members in terms[each.slot].items()
        for term in dict.fromkeys(members)
    ]
    columns = list(sentences[0].texts) if sentences else []
    rows = {
        name: pa.array([_with(term, each.texts[name]) for each, _, _, term in made], pa.string()) for name in columns
    }
    return FilledSentences(
        pa.table(rows), tuple((each.slot, group) for each, _, group, _ in made),
        np.array([place for _, place, _, _ in made], dtype=np.int64), tuple(each.answer for each, *_ in made),
    )  # fmt: skip


def _with(term: str, text: str) -> str:
    """A text whose slots are filled."""
    return SLOT.sub(lambda _: term, text)


def judge_sentences(
    sentences: FilledSentences,
    answers: Sequence[ArmAnswer],
    lists: Sequence[TermGroups],
    positive: str,
    limits: AuditLimits,
) -> tuple[AuditedTemplate, ...]:
    """A verdict on each group of the lists that slots name; all areas are corrected together.

    positive: the choice whose score is looked at.
    """
    scored = np.array([answer.scores is not None for answer in answers], dtype=bool)
    scores = np.array([answer.scores[positive] if answer.scores else np.nan for answer in answers])
    right = np.array([answer == positive for answer in sentences.answers], dtype=bool)
    numbers = {group: place for place, group in enumerate(dict.fromkeys(sentences.groups))}
    groups = np.array([numbers[group] for group in sentences.groups], dtype=np.int64)
    measured = []
    for terms in (each for each in lists if any((each.name, group) in numbers for group in each.groups)):
        own_list = [numbers.get((terms.name, name), -1) for name in terms.groups]
        for name, number in zip(terms.groups, own_list, strict=True):
            within, others = scored & (groups == number), scored & np.isin(groups, own_list) & (groups != number)
            measured.append(_Areas(terms.name, name, _SentenceScores(scores, right, sentences.lines), within, others))
    enough = [each for each in measured if each.rows >= limits.least_rows and each.is_whole]
    shown = iter(shown_together([p for each in enough for p in each.p]))
    judged = {id(each): each.audited(limits.area_gap, [next(shown) for _ in KINDS]) for each in enough}
    return tuple(judged.get(id(each), each.unknown()) for each in measured)


@dataclass(frozen=True, slots=True)
class _SentenceScores:
    """The scores of the filled sentences.

    scores: of the positive choice.
    right: whether it is the right one.
    lines: the sentence of each.
    """

    scores: Floats
    right: NDArray[np.bool_]
    lines: NDArray[np.int64]

    def influences(self, rows: NDArray[np.bool_]) -> tuple[float, Floats]:
        """The area of some rows, and by how much each sentence moves it (the jackknife of DeLong, by sentence)."""
        scores, right = self.scores[rows], self.right[rows]
        placed = stats.placements(scores, right)
        area = float(placed[right].mean())
        weights = np.where(right, 1 / right.sum(), 1 / (~right).sum())
        moved = np.bincount(self.lines[rows], (placed - area) * weights, minlength=int(self.lines.max()) + 1)
        return area, moved.astype(float)


class _Areas:
    """The areas of one group. rows: of the group. is_whole: each area has rows of both kinds. p: of each area's gap."""

    def __init__(
        self, terms: str, name: str, scored: _SentenceScores, within: NDArray[np.bool_], others: NDArray[np.bool_]
    ) -> None:
        self._terms, self._name, self.rows = terms, name, int(within.sum())
        right = scored.right
        kinds = [rows & side for rows in (within, others) for side in (right, ~right)]
        self.is_whole = all(kind.any() for kind in kinds)
        self.p: list[float] = []
        if not self.is_whole:
            return
        own_up, own_down, up, down = kinds
        parts = dict(zip(KINDS, (within, own_down | up, own_up | down), strict=True))
        units = len(np.unique(scored.lines[within | others]))
        self._background, reference = scored.influences(others)
        self._areas, self._errors = dict[str, float](), dict[str, float]()
        for kind, rows in parts.items():
            area, moved = scored.influences(rows)
            self._areas[kind], self._errors[kind] = area, _error(moved, units)
            gap = self._background - area
            self.p.append(float(stats.difference_p(gap, _error(reference - moved, units), units)))
        self._units = units

    def audited(self, limit: float, shown: Sequence[bool]) -> AuditedTemplate:
        """Fail if an area is too far below the others' and that is more than chance; pass if none is."""
        gaps = {kind: self._background - area for kind, area in self._areas.items()}
        low = [(kind, sure) for (kind, gap), sure in zip(gaps.items(), shown, strict=True) if gap > limit]
        failed = any(sure for _, sure in low)
        verdict = FairVerdict.FAIL if failed else FairVerdict.UNKNOWN if low else FairVerdict.PASS
        worst = max(gaps, key=lambda kind: gaps[kind])
        interval = stats.around(self._areas[worst], self._errors[worst], self._units)
        why = [f"{kind} {self._areas[kind]:.2f}{'' if sure else ', which may be chance'}" for kind, sure in low]
        return AuditedTemplate(
            self._terms, self._name, self.rows, verdict, self._areas, self._background,
            max(0.0, interval.low), min(1.0, interval.high), tuple(why),
        )  # fmt: skip

    def unknown(self) -> AuditedTemplate:
        """What is said where rows are missing."""
        return AuditedTemplate(self._terms, self._name, self.rows, FairVerdict.UNKNOWN)


def _error(moved: Floats, units: int) -> float:
    """The standard error of what is the sum of what each sentence contributes."""
    return float(np.sqrt((moved**2).sum() * units / max(units - 1, 1)))
