"""predictions.parquet → matcher.bin: the terms of a version in their folded form, each with all that it names."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import operator
import os
import tempfile
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from batchinfer.core.columns import Column
from batchinfer.core.database import LIST_ROWS, TEXT_ROWS, one_integer, record_batches, scratch_database
from batchinfer.core.files import os_errors
from batchinfer.core.json_parts import JsonPath
from batchinfer.core.long_rows import read_parts
from batchinfer.core.records import Source
from batchinfer.errors import MissingExtra, StoreError, counted
from batchinfer.job.spec import MatchSpec
from batchinfer.match.stored import MAGIC, TRAILER
from batchinfer.match.version import MATCHER, matcher_version
from batchinfer.publish.proposed import (
    LIST,
    everywhere_sql,
    listed_sql,
    lists_of,
    proposed_sql,
    struck_sql,
    unwanted_sql,
)
from batchinfer.versions.layout import NAMES, PREDICTIONS

MOST_EXAMPLES = 5
CLEARLY = 0.2  # by which the score of a generic term's concept must be above that of the next
LONGEST_TERM = 100_000  # characters; with its boundaries it still fits a window of a long text
LONG_TERM = 100  # characters; where terms are so long on average, an automaton takes more memory than its terms say
MOST_STATES = 12_000_000  # of such terms: building it takes 200 bytes for each
FOLDED = "pattern VARCHAR, concept VARCHAR, language VARCHAR, term VARCHAR, score DOUBLE, source VARCHAR"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a matcher holds.

    terms: different ones, by their folded form.
    entries: how many things the terms name in all.
    concepts: how many concepts they name.
    unwanted: entries that `where` and `min_score` leave out, with their terms.
    empty: terms left out since folding leaves nothing of them.
    short: terms left out since they are too short.
    long: terms left out since they are too long.
    stopped: terms left out since they are stop terms.
    generic: terms that name too many concepts.
    dropped: whether the generic ones were left out too.
    settled: those of the generic ones that stayed with the concept whose score is clearly best.
    examples: the worst of the generic ones, as (term, concepts).
    """

    terms: int
    entries: int
    concepts: int
    unwanted: int
    empty: int
    short: int
    long: int
    stopped: int
    generic: int
    dropped: bool
    examples: tuple[tuple[str, int], ...]
    settled: int = 0

    @property
    def message(self) -> str:
        """The same as a sentence."""
        reasons = (
            (self.unwanted, "entry by match.where or match.min_score", "entries by match.where or match.min_score"),
            (self.empty, "empty term", None), (self.short, "term that is too short", "terms that are too short"),
            (self.long, "term that is too long", "terms that are too long"), (self.stopped, "stop term", None),
        )  # fmt: skip
        out = ", ".join(counted(count, one_of, several) for count, one_of, several in reasons if count)
        left = f"; left out: {out}" if out else ""
        if not self.terms:
            return f"The matcher finds no terms: check the match section{left}."
        said = f"The matcher finds {counted(self.terms, 'term')}{left}"
        if self.generic:
            worst = ", ".join(f"{term} ({count:,} concepts)" for term, count in self.examples)
            said += f"; too generic{' and dropped' if self.dropped else ''}: {self.generic:,}, such as {worst}"
        if self.settled:
            said += (
                f"; {counted(self.settled, 'of them stays', 'of them stay')} with the concept that clearly scores best"
            )
        return said + "."

    def to_json(self) -> dict[str, Any]:
        """What a manifest says of it, and with what it was made."""
        return asdict(self) | {"says": self.message, **matcher_version()._asdict()}


def write_matcher(key: Sequence[Column], target: Path, spec: MatchSpec | None, *, is_json: bool) -> Terms | None:
    """Writes matcher.bin from predictions.parquet, both in `target`, if the job has a match section.

    is_json: whether predictions are JSON values, and not texts. Raises MissingExtra or StoreError.
    """
    if spec is None:
        return None
    need_libraries()
    with os_errors(target), (target / MATCHER).open("wb") as file:
        # A database of its own, closed before the automaton is built: each of the two wants a gigabyte, if it may.
        with tempfile.TemporaryDirectory(dir=target) as spill, scratch_database(Path(spill), reuse=False) as db:
            folded = FoldedTerms(db, key, target / PREDICTIONS, spec, is_json=is_json)
            terms = folded.choose()
            payloads = folded.write(file)
        payloads.finish(file, spec)
    return terms


class FoldedTerms:
    """The terms of a version in their folded form, of which a matcher is made. Owns these tables in a database of its own.

    folded: every term, with what it names. struck: those that people rejected, which are no names of every language then.
    named: those that were chosen. generic: of these the patterns that name too much. settled: the concepts that such stay with.
    """

    def __init__(
        self, db: duckdb.DuckDBPyConnection, key: Sequence[Column], predictions: Path, spec: MatchSpec, *, is_json: bool
    ) -> None:
        """predictions: the version's file."""
        self._db, self._spec, self._filter = db, spec, TermFilter(spec)
        unwanted = partial(unwanted_sql, key, spec, is_json=is_json)
        lists = lists_of(key, spec, is_json=is_json)
        self._unwanted = sum(each.num_rows for each in read_parts(db, predictions, unwanted, LIST_ROWS, lists, 1))
        db.execute(f"CREATE OR REPLACE TABLE folded ({FOLDED})")
        for proposed in (proposed_sql, everywhere_sql) if spec.everywhere else (proposed_sql,):
            self._fold(predictions, partial(proposed, key, spec, is_json=is_json), lists)
        names = predictions.with_name(NAMES)
        if not spec.everywhere or not names.exists():
            return
        self._fold(names, partial(listed_sql, key, spec, is_json=is_json), lists)
        db.execute(f"CREATE OR REPLACE TABLE struck ({FOLDED})")
        self._fold(names, partial(struck_sql, key, spec, is_json=is_json), lists, "struck")
        db.execute(
            f"DELETE FROM folded WHERE source = '{LIST}' AND (pattern, concept) IN (SELECT (pattern, concept) FROM struck)"
        )

    def _fold(
        self, file: Path, select: Callable[[str], str], lists: Mapping[str, Collection[JsonPath]], table: str = "folded"
    ) -> None:
        """Puts the terms that a query gives of a file's rows into a table. What is left out of struck ones is not counted."""
        chosen = self._filter if table == "folded" else TermFilter(self._spec)
        for batch in read_parts(self._db, file, select, TEXT_ROWS, lists):
            self._db.register("filtered", chosen(batch))
            self._db.execute(f"INSERT INTO {table} BY NAME FROM filtered")
            self._db.unregister("filtered")

    def choose(self, least: float | None = None) -> Terms:
        """Makes `named`. least: the score that entries must have; what people gave without one passes, and what the list has."""
        passing = "true"
        if least is not None:
            passing = f"(score >= {least} OR (score IS NULL AND source <> '{Source.MODEL}'))"
        self._db.execute(  # of equal ones that a model and a person gave, the person's
            f"CREATE OR REPLACE TABLE named AS FROM folded WHERE {passing} QUALIFY row_number() OVER "
            f"(PARTITION BY pattern, concept, language ORDER BY source = '{Source.MODEL}', score DESC NULLS LAST, term) = 1"
        )
        self._db.execute(
            "CREATE OR REPLACE TABLE generic AS SELECT pattern, first(term ORDER BY term) AS term, "
            f"count(DISTINCT concept) AS concepts FROM named GROUP BY pattern HAVING concepts > {self._most_concepts()}"
        )
        generic = one_integer(self._db, "SELECT count(*) FROM generic")
        worst = f"SELECT term, concepts FROM generic ORDER BY 2 DESC, 1 LIMIT {MOST_EXAMPLES}"
        examples = tuple(self._db.execute(worst).fetchall())
        drop, out = self._spec.generic == "drop", self._filter.left_out
        settled = self._drop_generic() if drop else 0
        return Terms(
            terms=one_integer(self._db, "SELECT count(DISTINCT pattern) FROM named"),
            entries=one_integer(self._db, "SELECT count(*) FROM named"),
            concepts=one_integer(self._db, "SELECT count(DISTINCT concept) FROM named"), unwanted=self._unwanted, empty=out["empty"],
            short=out["short"], long=out["long"], stopped=out["stopped"], generic=generic, dropped=drop, examples=examples,
            settled=settled,
        )  # fmt: skip

    @property
    def unscored(self) -> int:
        """Terms of the model without a score, which any `min_score` leaves out."""
        return one_integer(
            self._db, f"SELECT count(DISTINCT pattern) FROM folded WHERE score IS NULL AND source = '{Source.MODEL}'"
        )

    def _most_concepts(self) -> int:
        """How many concepts a term may name, of those that are named at all."""
        most = self._spec.most_concepts
        if isinstance(most, int):
            return most
        concepts = one_integer(self._db, "SELECT count(DISTINCT concept) FROM named")
        if isinstance(most, float):
            return max(1, math.floor(most * concepts))
        return min(20, max(2, math.floor(concepts / 5)))

    def _drop_generic(self) -> int:
        """Takes the generic patterns out of `named`, but for the concept whose score is clearly best; returns how many keep one.

        What people gave without a score is as good as can be.
        """
        score = f"max(coalesce(score, CASE WHEN source <> '{Source.MODEL}' THEN 1 END))"
        self._db.execute(
            f"""CREATE OR REPLACE TABLE settled AS
            SELECT pattern, arg_max(concept, score) AS concept, max(score, 2) AS best FROM (
                SELECT pattern, concept, {score} AS score FROM named SEMI JOIN generic USING (pattern) GROUP BY ALL)
            GROUP BY pattern HAVING count(score) = count(*) AND len(best) = 2 AND best[1] - best[2] >= {CLEARLY}"""
        )
        self._db.execute(
            "DELETE FROM named USING generic WHERE named.pattern = generic.pattern "
            "AND (named.pattern, named.concept) NOT IN (SELECT (pattern, concept) FROM settled)"
        )
        return one_integer(self._db, "SELECT count(*) FROM settled")

    def write(self, file: BinaryIO) -> Payloads:
        """Writes what each chosen pattern names, by pattern."""
        patterns, offsets, checks = list[str](), array("Q", [0]), array("I")
        for pattern, entries in self._payloads():
            data = entries.encode()
            patterns.append(pattern)
            offsets.append(offsets[-1] + file.write(data))
            checks.append(zlib.crc32(data))
        return Payloads(patterns, offsets, checks)

    def _payloads(self) -> Iterator[tuple[str, str]]:
        """(pattern, JSON of all that it names), by pattern."""
        with record_batches(self._db, "FROM named ORDER BY pattern, concept, language", TEXT_ROWS) as reader:
            records = (record for batch in reader for record in zip(*batch.to_pydict().values(), strict=True))
            for pattern, named in itertools.groupby(records, key=operator.itemgetter(0)):
                _, concepts, *others = zip(*named, strict=True)
                # One value where all are equal is shorter, and sooner read.
                columns = [column[0] if column.count(column[0]) == len(column) else column for column in others]
                rest = json.dumps(columns, ensure_ascii=False, separators=(",", ":"))
                yield pattern, f"[[{','.join(concepts)}],{rest[1:]}"


@dataclass(frozen=True, slots=True)
class Payloads:
    """What was written of a matcher's patterns.

    patterns: different ones, sorted.
    offsets: where the text of what each names begins, and the last one ends.
    checks: the checksums of these texts.
    """

    patterns: list[str]
    offsets: array[int]
    checks: array[int]

    def finish(self, file: BinaryIO, spec: MatchSpec) -> None:
        """Writes what follows, in the order that `match` describes. Raises StoreError."""
        facts = matcher_version()._asdict() | {"accents": spec.accents == "keep", "overlaps": spec.overlaps}
        automaton = _automaton(self.patterns)
        parts = (("offsets", self.offsets.tobytes()), ("automaton", automaton), ("checks", self.checks.tobytes()))
        for name, data in parts:
            begin = file.tell()
            facts[name] = [begin, begin + file.write(data)]
        end = json.dumps(facts | {"automaton_check": zlib.crc32(automaton)}).encode()
        file.write(end + TRAILER.pack(len(end), MAGIC))


def need_libraries() -> None:
    """Raises MissingExtra where what matching needs is not installed: before hours of work, not after."""
    for name in ("daachorse", "regex"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(f"{name}, which a job with a match section needs,", "match")


class TermFilter:
    """Folds proposed terms, and leaves out what should not be found.

    left_out: how many, by the reason.
    """

    def __init__(self, spec: MatchSpec) -> None:
        from batchinfer.match import folding

        self._folding, self._edge = folding.Folding(accents=spec.accents == "keep"), folding.EDGE
        self._stopped = {self._folding.term(term) for term in spec.stop_terms}
        self._least = spec.min_length
        self.left_out = Counter[str]()

    def __call__(self, batch: pa.RecordBatch) -> pa.Table:
        rows, patterns = list[int](), list[str]()
        for row, (term, language) in enumerate(
            zip(*(batch.column(name).to_pylist() for name in ("term", "language")), strict=True)
        ):
            if len(term) > LONGEST_TERM:
                self.left_out["long"] += 1
                continue
            first, *more = self._folding.patterns(term, language)
            if self._is_good(first):
                found = [first, *(pattern for pattern in more if pattern)]
                rows += [row] * len(found)
                patterns += found
        return (
            pa.Table.from_batches([batch])
            .take(pa.array(rows, pa.int64()))
            .append_column("pattern", pa.array(patterns, pa.string()))
        )

    def _is_good(self, pattern: str) -> bool:
        why = (
            "empty" if not pattern
            else "stopped" if pattern in self._stopped
            else "short" if len(pattern) - pattern.count(self._edge) < self._least
            else None
        )  # fmt: skip
        if why is not None:
            self.left_out[why] += 1
        return why is None


def _automaton(patterns: list[str]) -> bytes:
    """The automaton as a file can hold it. patterns: different, sorted, which makes it quicker to build. Raises StoreError."""
    if not patterns:
        return b""
    if sum(map(len, patterns)) > LONG_TERM * len(patterns) and (states := _states(patterns)) > MOST_STATES:
        raise StoreError(
            f"The terms are long and differ in {states:,} characters, and at most {MOST_STATES:,} can be matched: "
            "leave the long ones out, with match.where or in what the job asks for."
        )
    from daachorse import CharwiseDoubleArrayAhoCorasick

    made: bytes = CharwiseDoubleArrayAhoCorasick(patterns).serialize()
    return made


def _states(patterns: list[str]) -> int:
    """How many states their automaton has: the characters in which each differs from the one before it. patterns: sorted."""
    pairs = zip(patterns, ["", *patterns], strict=False)
    return sum(len(pattern) - len(os.path.commonprefix([pattern, before])) for pattern, before in pairs)  # noqa: RUF071 - of texts
