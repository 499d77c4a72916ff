"""Rows of the list with identity terms exchanged for one another: how far answers and scores move."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from batchinfer.core.database import TEXT_ROWS
from batchinfer.core.significance import shown_together
from batchinfer.evaluate import stats
from batchinfer.evaluate.answers import ArmAnswer
from batchinfer.evaluate.terms import Exchange, TermGroups
from batchinfer.inputs.parquet import ROW, ListSource
from batchinfer.job.audit_spec import AuditLimits
from batchinfer.publish.slices import FairVerdict


@dataclass(frozen=True, slots=True)
class SwappedRows:
    """Rows that mention one group first, before and after its terms and another's were exchanged.

    terms: the list's name.
    start, end: the groups: whom the rows mention, and whom they mention then.
    places: of the rows before, in the table of all of them; each row after is the next one.
    """

    terms: str
    start: str
    end: str
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AuditedSwap:
    """What exchanging terms of one group for another's did.

    terms: the list's name.
    start, end: the groups.
    rows: that mention `start` first, and have an answer before or after.
    changed: the share of them whose answer is another one.
    choice: the one whose score moves most; None for a job without choices.
    score_gap: how far its mean score moves; None for a job without choices.
    low, high: where that lies with 95 %.
    verdict: pass, fail or not enough data.
    """

    terms: str
    start: str
    end: str
    rows: int
    changed: float
    choice: str | None
    score_gap: float | None
    low: float | None
    high: float | None
    verdict: FairVerdict

    @property
    def name(self) -> str:
        """The exchange as people write it."""
        return f"{self.terms}: {self.start} → {self.end}"

    @property
    def message(self) -> str:
        """What moved, as part of a sentence."""
        changed = f"{self.changed:.1%} of the answers change"
        if self.score_gap is None:
            return changed
        return (
            f"the score of {self.choice} moves by {self.score_gap:+.3f} ({self.low:.3f} to {self.high:.3f}), {changed}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "terms": self.terms, "from": self.start, "to": self.end, "rows": self.rows, "changed": self.changed,
            "choice": self.choice, "score_gap": self.score_gap, "low": self.low, "high": self.high, "verdict": self.verdict,
            "name": self.name, "message": self.message,
        }  # fmt: skip


def swapped_rows(
    source: ListSource, columns: Sequence[str], lists: Sequence[TermGroups]
) -> tuple[pa.Table, list[SwappedRows]]:
    """All rows that mention a term, each followed by itself with terms exchanged, and which belong to which groups."""
    texts = [name for name in columns if source.kinds[name] == "string"]
    exchanges = [
        (terms.name, Exchange(terms, *pair)) for terms in lists for pair in itertools.combinations(terms.groups, 2)
    ]
    places: dict[tuple[str, str, str], list[int]] = {
        (name, *pair): [] for name, each in exchanges for pair in ((each.first, each.second), (each.second, each.first))
    }
    tables, count = list[pa.Table](), 0
    for batch in _good_batches(source, columns):
        records = batch.to_pylist()
        for name, exchange in exchanges:
            taken, after = list[int](), list[dict[str, str]]()
            for place, record in enumerate(records):
                own = _mentioned(record, texts, exchange)
                if own is None:
                    continue
                other = exchange.second if own == exchange.first else exchange.first
                places[name, own, other].append(count + 2 * len(taken))
                taken.append(place)
                after.append(
                    {text: exchange.exchanged(record[text]) for text in texts if isinstance(record[text], str)}
                )
            if taken:
                tables.append(_interleaved(batch, taken, after))
                count += 2 * len(taken)
    whole = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    return whole, [SwappedRows(*groups, tuple(found)) for groups, found in places.items()]


def _good_batches(source: ListSource, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The template's columns of the rows that can be asked, as the files have them."""
    number = 0
    for file in source.files:
        for raw in file.batches(list(source.kinds), TEXT_ROWS):
            good = source.check(raw, number, file.path).good[ROW].to_pylist()
            places = pa.array([row - number - 1 for row in good], pa.int64())
            yield _plain_texts(pa.Table.from_batches([raw]).select(list(columns)).take(places))
            number += raw.num_rows


def _plain_texts(rows: pa.Table) -> pa.Table:
    """The rows with all texts as one type: files may have categoricals, or texts of other kinds."""
    for place, field in enumerate(rows.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            rows = rows.set_column(place, field.name, rows.column(place).cast(pa.string()))
    return rows


def _mentioned(record: Mapping[str, Any], texts: Sequence[str], exchange: Exchange) -> str | None:
    """The group that a row mentions first."""
    found = (exchange.mentioned(record[name]) for name in texts if isinstance(record[name], str))
    return next((group for group in found if group is not None), None)


def _interleaved(batch: pa.Table, taken: Sequence[int], after: Sequence[Mapping[str, str]]) -> pa.Table:
    """Rows of a batch, each followed by itself with other texts."""
    doubled = batch.take(pa.array([place for place in taken for _ in range(2)], pa.int64()))
    for name in {name for texts in after for name in texts}:
        values = doubled[name].to_pylist()
        values[1::2] = [texts.get(name, value) for texts, value in zip(after, values[1::2], strict=True)]
        column = doubled.schema.get_field_index(name)
        doubled = doubled.set_column(column, name, pa.array(values, pa.string()))
    return doubled


def judge_swaps(
    swaps: Sequence[SwappedRows], answers: Sequence[ArmAnswer], choices: Sequence[str], limits: AuditLimits
) -> tuple[AuditedSwap, ...]:
    """A verdict on each exchange; all tests of all exchanges are corrected together.

    answers: of the rows of `swapped_rows`. choices: whose scores are looked at; none for a job without them.
    """
    measured = [_Moved(each, answers, choices) for each in swaps]
    enough = [moved for moved in measured if moved.rows >= limits.least_rows]
    shown = iter(shown_together([p for moved in enough for p in moved.p(limits.swap_gap)]))
    verdicts = {id(moved): moved.verdict(limits.swap_gap, [next(shown) for _ in moved.gaps]) for moved in enough}
    return tuple(moved.audited(verdicts.get(id(moved), FairVerdict.UNKNOWN)) for moved in measured)


class _Moved:
    """What one exchange did. gaps: by how much the share of other answers, and each choice's mean score, moved."""

    def __init__(self, swap: SwappedRows, answers: Sequence[ArmAnswer], choices: Sequence[str]) -> None:
        self._swap, self._choices = swap, choices
        pairs = [(answers[place], answers[place + 1]) for place in swap.places]
        pairs = [(before, after) for before, after in pairs if before.reason is None or after.reason is None]
        self.rows = len(pairs)
        self._changed = sum(before.value != after.value for before, after in pairs)
        both = [(before.scores, after.scores) for before, after in pairs if before.scores and after.scores]
        moves = [[after[choice] - before[choice] for choice in choices] for before, after in both]
        self._moves = np.array(moves).reshape(len(moves), len(choices))
        scored = choices if len(moves) > 1 else ()
        self._means = [float(self._moves[:, place].mean()) for place in range(len(scored))]
        self._errors = [float(self._moves[:, place].std(ddof=1)) / len(moves) ** 0.5 for place in range(len(scored))]
        self.gaps = [self._changed / self.rows if self.rows else 0.0, *map(abs, self._means)]

    def p(self, limit: float) -> list[float]:
        """For each gap how likely it is if nothing moved; for a share of other answers, if it were at its limit."""
        fewer = float(stats.binomial(self._changed - 1, self.rows, limit))
        units = len(self._moves)
        return [
            min(1.0, 2 * (1 - fewer)),
            *(float(stats.difference_p(*pair, units)) for pair in zip(self._means, self._errors, strict=True)),
        ]

    def verdict(self, limit: float, shown: Sequence[bool]) -> FairVerdict:
        """Fail if a gap beyond its limit is more than chance; pass if none is beyond it."""
        beyond = [sure for gap, sure in zip(self.gaps, shown, strict=True) if gap > limit]
        return FairVerdict.FAIL if any(beyond) else FairVerdict.UNKNOWN if beyond else FairVerdict.PASS

    def audited(self, verdict: FairVerdict) -> AuditedSwap:
        """The figures, with that of the choice that moves most."""
        swap, gaps = self._swap, self.gaps[1:]
        if not gaps:
            return AuditedSwap(
                swap.terms, swap.start, swap.end, self.rows, self.gaps[0], None, None, None, None, verdict
            )
        most = int(np.argmax(gaps))
        ends = stats.around(self._means[most], self._errors[most], len(self._moves))
        return AuditedSwap(
            swap.terms, swap.start, swap.end, self.rows, self.gaps[0], self._choices[most], self._means[most],
            ends.low, ends.high, verdict,
        )  # fmt: skip
