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
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from batchinfer.core.columns import Column
from batchinfer.core.database import LIST_ROWS, TEXT_ROWS, one, record_batches, scratch_database
from batchinfer.core.files import os_errors
from batchinfer.core.records import Source
from batchinfer.errors import MissingExtra, StoreError, counted
from batchinfer.job.matched import matched_sql
from batchinfer.job.parts import Part
from batchinfer.job.spec import MatchSpec
from batchinfer.match.stored import MAGIC, TRAILER
from batchinfer.match.version import MATCHER, matcher_version
from batchinfer.publish.predictions_file import read_batches
from batchinfer.versions.layout import PREDICTIONS, version_column

MOST_EXAMPLES = 5
LIST = "list"  # the source of terms that are no predictions: they stand in the list
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
    term_filter, drop = TermFilter(spec), spec.generic == "drop"
    with os_errors(target), (target / MATCHER).open("wb") as file:
        # A database of its own, closed before the automaton is built: each of the two wants a gigabyte, if it may.
        with tempfile.TemporaryDirectory(dir=target) as spill, scratch_database(Path(spill)) as db:
            unwanted = _count_unwanted(db, key, target, spec, is_json=is_json)
            proposed = partial(_proposed, key, spec, is_json=is_json)
            batches = read_batches(db, target / PREDICTIONS, proposed, TEXT_ROWS)
            if spec.everywhere:
                everywhere = partial(_everywhere, key, spec, is_json=is_json)
                batches = itertools.chain(batches, read_batches(db, target / PREDICTIONS, everywhere, TEXT_ROWS))
            _gather(db, term_filter, batches, spec)
            generic, settled = one(db, "SELECT count(*) FROM generic"), 0
            worst = db.execute(
                f"SELECT term, concepts FROM generic ORDER BY 2 DESC, 1 LIMIT {MOST_EXAMPLES}"
            ).fetchall()
            if drop:
                settled = _drop_generic(db)
            entries = one(db, "SELECT count(*) FROM named")
            patterns, offsets, checks = _write_payloads(file, _payloads(db))
        _write_rest(file, patterns, offsets, checks, spec)
    out = term_filter.left_out
    return Terms(
        len(patterns),
        entries,
        unwanted,
        out["empty"],
        out["short"],
        out["long"],
        out["stopped"],
        generic,
        dropped=drop,
        examples=tuple(worst),
        settled=settled,
    )


def _gather(
    db: duckdb.DuckDBPyConnection, term_filter: TermFilter, proposed: Iterable[pa.RecordBatch], spec: MatchSpec
) -> None:
    """Makes the tables `named`, of all that each pattern names, and `generic`, of patterns that name too much."""
    db.execute(f"CREATE OR REPLACE TABLE folded ({FOLDED})")
    for batch in proposed:
        db.register("filtered", term_filter(batch))
        db.execute("INSERT INTO folded BY NAME FROM filtered")
        db.unregister("filtered")
    db.execute(  # of equal ones that a model and a person gave, the person's
        "CREATE OR REPLACE TABLE named AS FROM folded QUALIFY row_number() OVER "
        f"(PARTITION BY pattern, concept, language ORDER BY source = '{Source.MODEL}', score DESC NULLS LAST, term) = 1"
    )
    db.execute(
        "CREATE OR REPLACE TABLE generic AS SELECT pattern, first(term ORDER BY term) AS term, "
        f"count(DISTINCT concept) AS concepts FROM named GROUP BY pattern HAVING concepts > {_most_concepts(db, spec)}"
    )


def _most_concepts(db: duckdb.DuckDBPyConnection, spec: MatchSpec) -> int:
    """How many concepts a term may name, of those that are named at all."""
    if isinstance(spec.most_concepts, int):
        return spec.most_concepts
    concepts: int = one(db, "SELECT count(DISTINCT concept) FROM named")
    if isinstance(spec.most_concepts, float):
        return max(1, math.floor(spec.most_concepts * concepts))
    return min(20, max(2, math.floor(concepts / 5)))


def _drop_generic(db: duckdb.DuckDBPyConnection) -> int:
    """Takes the generic patterns out of `named`, but for the concept whose score is clearly best; returns how many keep one.

    What people gave without a score is as good as can be.
    """
    score = f"max(coalesce(score, CASE WHEN source <> '{Source.MODEL}' THEN 1 END))"
    db.execute(
        f"""CREATE OR REPLACE TABLE settled AS
        SELECT pattern, arg_max(concept, score) AS concept, max(score, 2) AS best FROM (
            SELECT pattern, concept, {score} AS score FROM named SEMI JOIN generic USING (pattern) GROUP BY ALL)
        GROUP BY pattern HAVING count(score) = count(*) AND len(best) = 2 AND best[1] - best[2] >= {CLEARLY}"""
    )
    db.execute(
        "DELETE FROM named USING generic WHERE named.pattern = generic.pattern AND (named.pattern, named.concept) NOT IN "
        "(SELECT (pattern, concept) FROM settled)"
    )
    return int(one(db, "SELECT count(*) FROM settled"))


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


def _payloads(db: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str]]:
    """(pattern, JSON of all that it names), by pattern."""
    with record_batches(db, "FROM named ORDER BY pattern, concept, language", TEXT_ROWS) as reader:
        records = (record for batch in reader for record in zip(*batch.to_pydict().values(), strict=True))
        for pattern, named in itertools.groupby(records, key=operator.itemgetter(0)):
            _, concepts, *others = zip(*named, strict=True)
            # One value where all are equal is shorter, and sooner read.
            columns = [column[0] if column.count(column[0]) == len(column) else column for column in others]
            rest = json.dumps(columns, ensure_ascii=False, separators=(",", ":"))
            yield pattern, f"[[{','.join(concepts)}],{rest[1:]}"


def _write_payloads(file: BinaryIO, payloads: Iterator[tuple[str, str]]) -> tuple[list[str], array[int], array[int]]:
    """Writes what each pattern names.

    Returns the patterns, where each of these texts begins, and the last one ends, and the checksums of the texts.
    """
    patterns, offsets, checks = list[str](), array("Q", [0]), array("I")
    for pattern, entries in payloads:
        data = entries.encode()
        patterns.append(pattern)
        offsets.append(offsets[-1] + file.write(data))
        checks.append(zlib.crc32(data))
    return patterns, offsets, checks


def _write_rest(file: BinaryIO, patterns: list[str], offsets: array[int], checks: array[int], spec: MatchSpec) -> None:
    """Writes what follows, in the order that `match` describes."""
    facts = matcher_version()._asdict() | {"accents": spec.accents == "keep", "overlaps": spec.overlaps}
    automaton = _automaton(patterns)
    for name, data in (("offsets", offsets.tobytes()), ("automaton", automaton), ("checks", checks.tobytes())):
        begin = file.tell()
        facts[name] = [begin, begin + file.write(data)]
    end = json.dumps(facts | {"automaton_check": zlib.crc32(automaton)}).encode()
    file.write(end + TRAILER.pack(len(end), MAGIC))


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


def _count_unwanted(
    db: duckdb.DuckDBPyConnection, key: Sequence[Column], target: Path, spec: MatchSpec, *, is_json: bool
) -> int:
    """How many entries the section's conditions leave out."""
    wanted = matched_sql(spec, {column.name for column in key}, version_column, is_json=is_json)
    batches = read_batches(
        db, target / PREDICTIONS, lambda rows: f"SELECT 1 FROM {rows} WHERE ({wanted}) IS NOT TRUE", LIST_ROWS
    )
    return sum(batch.num_rows for batch in batches)


def _proposed(key: Sequence[Column], spec: MatchSpec, rows: str, *, is_json: bool) -> str:
    """SQL for each proposed term with what it names: concept as JSON, language, term, score, source. rows: of a version."""
    names = {column.name for column in key}
    language = "NULL"
    if spec.language is not None:
        language = f"json_extract_string({_part(spec.language, names, is_json=is_json)}, '$')"
    matched = matched_sql(spec, names, version_column, is_json=is_json)
    facts = f"{language}::VARCHAR AS language, score, source"
    return _terms_sql(spec, spec.terms, names, facts, f"{rows} WHERE {matched}", is_json=is_json)


def _everywhere(key: Sequence[Column], spec: MatchSpec, rows: str, *, is_json: bool) -> str:
    """The same for the terms that hold in every language, each once. They come from no prediction, and have no score."""
    names = {column.name for column in key}
    facts = f"NULL::VARCHAR AS language, NULL::DOUBLE AS score, '{LIST}' AS source"
    return "SELECT DISTINCT * FROM (" + _terms_sql(spec, spec.everywhere, names, facts, rows, is_json=is_json) + ")"


def _part(name: str, key: Collection[str], *, is_json: bool) -> str:
    return Part.parse(name, key).sql(version_column, is_json=is_json)


def _terms_sql(
    spec: MatchSpec, parts: Sequence[str], key: Collection[str], facts: str, rows: str, *, is_json: bool
) -> str:
    """SQL for the terms in some parts of rows. facts: SQL for language, score and source."""
    each = ", ".join(
        f"CASE json_type({value}) WHEN 'ARRAY' THEN json_extract({value}, '$[*]') ELSE [{value}] END"
        for value in (_part(name, key, is_json=is_json) for name in parts)
    )
    return f"""SELECT concept, language, json_extract_string(item, '$') AS term, score, source FROM (
            SELECT {_part(spec.concept, key, is_json=is_json)}::VARCHAR AS concept, {facts},
                   unnest(list_concat({each}, [])) AS item
            FROM {rows})
        WHERE json_type(item) NOT IN ('NULL', 'OBJECT', 'ARRAY') AND json_type(concept) NOT IN ('NULL', 'OBJECT', 'ARRAY')"""
