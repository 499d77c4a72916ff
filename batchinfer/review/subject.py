"""What a review asks people to judge: the values of predictions, or, in a checking job, terms.

All that the two forms do not share is here. What SQL says while a review is written, and Python while it is read back,
stand side by side.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

import duckdb
import pyarrow as pa

from batchinfer.cache import verdicts
from batchinfer.cache.imports import as_prediction
from batchinfer.core import keys
from batchinfer.core.clock import shown
from batchinfer.core.columns import Column, typed
from batchinfer.core.database import add_text_function
from batchinfer.core.keys import canonical_json
from batchinfer.core.long_texts import CLOSE, LongTexts
from batchinfer.core.records import VerdictKind
from batchinfer.core.sql import listed, literal
from batchinfer.job.spec import JobSpec
from batchinfer.prompting.parse import Parser
from batchinfer.review.retyped import is_retyped
from batchinfer.review.sheet import ABOUT

CHECK_DIGITS = 16  # no two of a million rows share theirs, and it is short enough to be looked at
CHECK_LETTERS = ("0123456789", "ghijklmnop")  # in place of digits: a spreadsheet would take 12e45678 for a number
FOLD_FUNCTION = "folded_term"


class SubjectKind(StrEnum):
    """What people judge."""

    VALUE = "value"
    TERM = "term"


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """A row of a review whose key and value are as they were written.

    line: its number in the file.
    place: the same, as messages name it.
    author: who judged it.
    query: the values of its key.
    lookup_hash: their hash.
    value: what is judged.
    prediction: the cell of that column; None where a review has no such column.
    sample: the sample that the file was drawn as; None for any other review.
    """

    line: int
    place: str
    author: str
    query: dict[str, Any]
    lookup_hash: bytes
    value: str
    prediction: Any
    sample: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict as it is imported.

    line: the number of its row in the file.
    place: the same, as messages name it.
    lookup_hash: the hash of the key that it is about.
    query: that key, as JSON.
    verdict: accept, reject or correct.
    value: what was judged, as JSON; None for the key as a whole.
    prediction: the answer that it gives, as JSON; None where it gives none.
    author: who judged.
    sample: the sample that it was asked for, if any.
    follows: it follows from the correction of another key.
    """

    line: int
    place: str
    lookup_hash: bytes
    query: str
    verdict: VerdictKind
    value: str | None
    prediction: str | None
    author: str
    sample: str | None = None
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Correction:
    """What a person gives in place of what was judged: another value for the same key, or another key.

    query: the values of the key that it holds for.
    prediction: the value, as JSON; None where it is the key that was corrected.
    """

    query: dict[str, Any]
    prediction: str | None = None


class Subject(ABC):
    """What is judged in a job's reviews.

    kind: a value or a term.
    columns: of a review, between the key's and the person's.
    read_columns: those of them that a verdict is read from.
    value_sql: what is judged, of an entry `e`.
    changed_sql: whether it differs from what people approved or from what is served.
    extra_sql: the columns that only this form has, by name.
    rank_sql: by which rows are ordered before anything else.
    """

    kind: ClassVar[SubjectKind]
    columns: ClassVar[tuple[str, ...]]
    read_columns: ClassVar[tuple[str, ...]]
    value_sql: str
    changed_sql: ClassVar[str]
    extra_sql: ClassVar[Mapping[str, str]] = {}
    rank_sql: ClassVar[str] = "0"

    def __init__(self, spec: JobSpec, key: Sequence[Column], normalize: Sequence[str]) -> None:
        self._spec, self._key, self._normalize = spec, list(key), list(normalize)

    @staticmethod
    def of(spec: JobSpec, key: Sequence[Column], normalize: Sequence[str]) -> Subject:
        """What the job's reviews are about. key, normalize: how its list is looked up."""
        form = TermSubject if verdicts.is_checking(spec) else ValueSubject
        return form(spec, key, normalize)

    def lookup_hash(self, query: Mapping[str, Any]) -> bytes:
        """The hash of a key."""
        return keys.lookup_hash(list(query.values()), self._key, self._normalize)

    def digest_sql(self, lookup_hash: str, value: str) -> str:
        """SQL for `digest`."""
        signed = (
            f"concat_ws(chr(31), {literal(self._spec.name)}, lower(hex({lookup_hash})), {self.comparable_sql(value)})"
        )
        return f"translate(left(sha256({signed}), {CHECK_DIGITS}), '{CHECK_LETTERS[0]}', '{CHECK_LETTERS[1]}')"

    def digest(self, lookup_hash: bytes, value: str) -> str:
        """The check of a row, by which it is noticed that its key or value was changed. value: as the row has it.

        Raises ValueError for a value that is not JSON where it should be.
        """
        signed = f"{self._spec.name}\x1f{lookup_hash.hex()}\x1f{self.comparable(value)}"
        return hashlib.sha256(signed.encode()).hexdigest()[:CHECK_DIGITS].translate(str.maketrans(*CHECK_LETTERS))

    @property
    def check_sql(self) -> str:
        """SQL for the check of an entry `e`, beside which `join_checks` stands."""
        return f'coalesce(long_checks."check", {self.digest_sql("e.lookup_hash", self.value_sql)})'

    join_checks = "LEFT JOIN long_checks ON e.lookup_hash = long_checks.lookup_hash"

    def check_long(self, db: duckdb.DuckDBPyConnection, texts: LongTexts, entries: str) -> None:
        """Makes the table `long_checks`, which it owns: SQL would make the check of a long value of its token."""
        sql = f"SELECT e.lookup_hash, {self.value_sql} FROM {entries} e WHERE {self.value_sql} LIKE '%{CLOSE}%'"
        db.execute('CREATE OR REPLACE TABLE long_checks (lookup_hash BLOB, "check" VARCHAR)')
        rows = db.execute(sql).fetchall() if texts.any else []
        made = [(bytes(lookup_hash), self.digest(lookup_hash, texts.whole(value))) for lookup_hash, value in rows]
        if made:
            db.register("made", pa.table([*zip(*made, strict=True)], names=["lookup_hash", "check"]))
            db.execute("INSERT INTO long_checks FROM made")
            db.unregister("made")

    @abstractmethod
    def comparable_sql(self, value: str) -> str:
        """SQL for `comparable`."""

    @abstractmethod
    def comparable(self, value: str) -> str:
        """One text for all that people would take for the same. Raises ValueError."""

    def add_functions(self, db: duckdb.DuckDBPyConnection) -> None:  # noqa: B027 - not every form has some
        """Adds the functions that `join_sql` calls."""

    def join_sql(self, entries: str) -> str:  # noqa: ARG002 - not every form joins something
        """What `extra_sql` needs beside an entry `e`. entries: all that there are."""
        return ""

    @abstractmethod
    def correct(self, row: ReviewRow, text: str) -> Correction | None:
        """What a person gave as corrected, checked; None if it is what was judged. Raises ValueError or UsageError."""

    @abstractmethod
    def verdicts(self, row: ReviewRow, verdict: VerdictKind, correction: Correction | None) -> list[Verdict]:
        """What is imported for a row that was judged so. Raises ValueError."""

    def _stored(self, value: str) -> str:
        """A prediction as entries hold it, as the JSON text that the cache holds."""
        return json.dumps(json.loads(value) if self._spec.output.is_json else value, ensure_ascii=False)


class ValueSubject(Subject):
    """The value that a key has."""

    kind = SubjectKind.VALUE
    columns = tuple(name for name in ABOUT if name not in ("prediction", "concepts"))
    read_columns = ("value",)
    value_sql = "e.prediction"
    changed_sql = "approved.value IS NOT NULL"

    def __init__(self, spec: JobSpec, key: Sequence[Column], normalize: Sequence[str]) -> None:
        super().__init__(spec, key, normalize)
        self._parser = Parser(spec.output)

    def comparable_sql(self, value: str) -> str:
        return verdicts.same(self._spec, value)

    def comparable(self, value: str) -> str:
        return canonical_json(json.loads(value)) if self._spec.output.is_json else _unix_lines(value)

    def correct(self, row: ReviewRow, text: str) -> Correction | None:
        answer = self._fitting(row, text)
        value = answer if self._spec.output.is_json else json.loads(answer)
        return None if self.comparable(value) == self.comparable(row.value) else Correction(row.query, answer)

    def verdicts(self, row: ReviewRow, verdict: VerdictKind, correction: Correction | None) -> list[Verdict]:
        answer = None if correction is None else correction.prediction
        return [
            Verdict(
                row.line,
                row.place,
                row.lookup_hash,
                _as_json(row.query),
                verdict,
                self._stored(row.value),
                answer,
                row.author,
                row.sample,
            )
        ]

    def _fitting(self, row: ReviewRow, text: str) -> str:
        """A corrected value as JSON. Raises ValueError for one that the job could not give."""
        choices = self._spec.output.choices or []
        if text not in choices:  # a spreadsheet may have written it in its own way
            text = next((choice for choice in choices if is_retyped(choice, text)), text)
        try:
            answer = as_prediction(text, as_json=self._spec.output.is_json)
        except ValueError as exc:
            raise ValueError(f"the corrected value {exc}") from exc
        if fault := self._parser.fault_of(json.loads(answer), row.query):
            raise ValueError(f"the corrected value {fault}")
        return answer


class TermSubject(Subject):
    """The term of a checking job, whatever the model said of it: a verdict is on the key itself."""

    kind = SubjectKind.TERM
    columns = ABOUT
    read_columns = ("value", "prediction")
    changed_sql = "served.prediction <> e.prediction"
    extra_sql: ClassVar[Mapping[str, str]] = {
        "prediction": "e.prediction",
        "concepts": "CASE WHEN c.concepts > 0 THEN c.concepts ELSE coalesce(c.proposed, 0) END",
    }
    rank_sql = "CASE WHEN c.concepts > 0 THEN 0 ELSE 1 END"  # what live texts are recognised by is worth more of a person's time

    def __init__(self, spec: JobSpec, key: Sequence[Column], normalize: Sequence[str]) -> None:
        super().__init__(spec, key, normalize)
        assert spec.match is not None
        self._match = spec.match
        self._term = next(column for column in key if column.name == spec.match.terms[0])
        self.value_sql = f"e.{listed(self._term.name)}::VARCHAR"

    def comparable_sql(self, value: str) -> str:
        return verdicts.unix_lines(value)

    def comparable(self, value: str) -> str:
        return _unix_lines(value)

    def add_functions(self, db: duckdb.DuckDBPyConnection) -> None:
        """The one that terms are compared by: that of matching, or lower case where its library is not installed."""
        fold: Callable[[str], str] = str.lower
        with contextlib.suppress(ImportError):
            from batchinfer.match import folding

            fold = folding.Folding(accents=self._match.accents == "keep").term

        def folded(texts: pa.ChunkedArray) -> pa.Array:
            return pa.array([None if text is None else fold(text) for text in texts.to_pylist()], pa.string())

        add_text_function(db, self._folded, folded)

    @property
    def _folded(self) -> str:
        return f"{FOLD_FUNCTION}_{self._match.accents}"

    def join_sql(self, entries: str) -> str:
        """How many concepts each term names where it is served, and of all, in any spelling that matching takes for equal."""
        term, concept = (verdicts.part(self._spec, name, listed) for name in (self._term.name, self._match.concept))
        concepts = (
            f"SELECT nullif({self._folded}({term}), '') AS term, count(DISTINCT {concept}) AS proposed, "
            f"count(DISTINCT {concept}) FILTER (WHERE {verdicts.matched(self._spec, listed)}) AS concepts FROM {entries} GROUP BY 1"
        )
        return f"LEFT JOIN ({concepts}) c ON {self._folded}({self.value_sql}) = c.term"

    def correct(self, row: ReviewRow, text: str) -> Correction | None:
        query = row.query | {self._term.name: typed(text, self._term)}
        return None if self.lookup_hash(query) == row.lookup_hash else Correction(query)

    def verdicts(self, row: ReviewRow, verdict: VerdictKind, correction: Correction | None) -> list[Verdict]:
        """A correction is two: the old term is rejected, and the new one accepted."""
        accepted = verdicts.named_answer(self._spec) or self._stored(str(row.prediction))
        answer = accepted if verdict == VerdictKind.ACCEPT else None
        own = Verdict(
            row.line, row.place, row.lookup_hash, _as_json(row.query), verdict, None, answer, row.author, row.sample
        )
        if correction is None:
            return [own]
        lookup_hash, query = self.lookup_hash(correction.query), _as_json(correction.query)
        return [
            own,
            Verdict(
                row.line, row.place, lookup_hash, query, VerdictKind.ACCEPT, None, accepted, row.author, follows=True
            ),
        ]


def _unix_lines(text: str) -> str:
    """What `verdicts.unix_lines` makes of a text."""
    return re.sub(r"\r\n?", "\n", text)


def _as_json(query: Mapping[str, Any]) -> str:
    return json.dumps(query, ensure_ascii=False, default=shown)
