"""What a student learns from: a candidate's entries with scores, which of them clients asked for, and what people say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchinfer.cache.verdicts import PEOPLE
from batchinfer.cache.workspace import Workspace
from batchinfer.core.arrays import Floats
from batchinfer.core.clock import now
from batchinfer.core.database import one_integer
from batchinfer.core.sql import listed
from batchinfer.inputs.misses import asked_since
from batchinfer.publish.candidate import Candidate
from batchinfer.publish.golden import Golden
from batchinfer.student.features import MOST_CHARACTERS
from batchinfer.student.learn import Lesson

HELD, HELD_ASKED = 4, 2  # one row of so many is held out, always the same ones; of those that clients asked for more
MOST_ROWS = 260_000  # that it learns from or is held against the model on; of more, a sample
MOST_SIGNS = 30_000_000  # characters of their texts: the columns of more would not fit into memory
MOST_JUDGED = 100_000  # rows that people changed
AT_ONCE = 2_000
WEEKS = timedelta(weeks=8)  # what clients asked for longer ago is no sample of what they ask now
NOBODY = -1
PAIR = 2


@dataclass(frozen=True, slots=True)
class JudgedTexts:
    """Texts of which people said what is right, where the model's word is served no more.

    texts: each once.
    scores: (texts, choices), the model's.
    right: (texts,), the number of the right choice.
    """

    texts: list[str]
    scores: Floats
    right: npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class StudentRows:
    """What there is to learn.

    lesson: the entries, or a sample of them.
    lookup_hashes: of the lesson's texts.
    right: (texts,), the number of the choice that is right by people's word; NOBODY where they said nothing.
    judged: what people changed, which is not learned from.
    asked: when each lookup hash was asked for first, of what clients asked for in the last weeks and did not find.
    rows: how many entries have scores.
    """

    lesson: Lesson
    lookup_hashes: list[bytes]
    right: npt.NDArray[np.intp]
    judged: JudgedTexts
    asked: dict[bytes, datetime]
    rows: int


def gather_rows(workspace: Workspace, candidate: Candidate, golden: Golden | None) -> StudentRows:
    """The job has a section student, and choices. Raises StoreError."""
    asked = asked_since(workspace.data, workspace.query_list.source, now() - WEEKS)
    workspace.db.register("asked_for", pa.table({"lookup_hash": list(asked)}, pa.schema({"lookup_hash": pa.binary()})))
    scored = f"FROM {candidate.entries_sql} WHERE scores IS NOT NULL AND {_text(workspace)} IS NOT NULL"
    rows = list(_sample(workspace, scored))
    workspace.db.unregister("asked_for")
    scores = _scores([said for _, said, _ in rows], _choices(workspace))
    kept = np.flatnonzero(np.isfinite(scores).all(1))
    lookup_hashes = [rows[number][2] for number in kept]
    were_asked = np.array([each in asked for each in lookup_hashes], dtype=bool)
    held = np.array([_is_held(each, asked=each in asked) for each in lookup_hashes], dtype=bool)
    lesson = Lesson([rows[number][0] for number in kept], scores[kept], held, were_asked)
    known = _known(workspace, candidate, golden)
    right = np.array([known.get(each, NOBODY) for each in lookup_hashes], dtype=np.intp)
    judged = _judged(workspace, candidate, asked)
    return StudentRows(
        lesson, lookup_hashes, right, judged, asked, one_integer(workspace.db, f"SELECT count(*) {scored}")
    )


def _text(workspace: Workspace) -> str:
    assert workspace.spec.student is not None
    return listed(workspace.spec.student.text)


def _choices(workspace: Workspace) -> list[str]:
    return list(workspace.spec.output.choices or ())


def _is_held(lookup_hash: bytes, *, asked: bool) -> bool:
    """Hashes of keys are as good as chance."""
    return int.from_bytes(lookup_hash[-4:], "big") % (HELD_ASKED if asked else HELD) == 0


def _sample(workspace: Workspace, scored: str) -> Iterator[tuple[str, str, bytes]]:
    """Beginnings of texts, scores as JSON, and lookup hashes; what clients asked for first. Always the same ones."""
    chosen = (
        f"SELECT {_text(workspace)}::VARCHAR, scores, lookup_hash {scored} "
        f"ORDER BY lookup_hash IN (SELECT lookup_hash FROM asked_for) DESC, lookup_hash DESC LIMIT {MOST_ROWS}"
    )
    cursor, signs = workspace.db.execute(chosen), 0
    while signs < MOST_SIGNS and (rows := cursor.fetchmany(AT_ONCE)):
        for text, scores, lookup_hash in rows:
            begin = workspace.texts.whole(text)[:MOST_CHARACTERS]
            signs += len(begin)
            yield begin, scores, bytes(lookup_hash)


def _scores(said: list[str], choices: list[str]) -> Floats:
    """(rows, choices) of JSON objects; NaN where one has no such choice."""
    values = [[json.loads(each).get(choice, np.nan) for choice in choices] for each in said]
    return np.array(values, dtype=float).reshape(len(said), len(choices))


def _known(workspace: Workspace, candidate: Candidate, golden: Golden | None) -> dict[bytes, int]:
    """The right choice of entries of the model's, by golden rows and accepted predictions."""
    numbers = {choice: number for number, choice in enumerate(_choices(workspace))}
    entries = candidate.entries_sql
    accepted = workspace.db.execute(
        f"SELECT lookup_hash, prediction FROM {entries} WHERE source NOT IN {PEOPLE} "
        f"AND lookup_hash IN (SELECT lookup_hash FROM ({workspace.verdicts.accepted_sql(entries)}))"
    ).fetchall()
    found = {bytes(lookup_hash): numbers.get(said, NOBODY) for lookup_hash, said in accepted}
    if golden is not None:
        rows = zip(golden.rows["lookup_hash"].to_pylist(), golden.rows["answer"].to_pylist(), strict=True)
        found |= {lookup_hash: numbers.get(json.loads(answer), NOBODY) for lookup_hash, answer in rows}
    return found


def _judged(workspace: Workspace, candidate: Candidate, asked: Mapping[bytes, datetime]) -> JudgedTexts:
    """What people put another answer in place of, or, where there are two choices, rejected.

    Nothing of it is learned, but only as large a share of it counts as is held out of what they accepted: else the model
    would look wrong more often than it is.
    """
    choices, texts, withheld = _choices(workspace), workspace.texts, candidate.withheld_sql
    columns = f"lookup_hash, w.{_text(workspace)}::VARCHAR, w.scores"
    corrected = (
        f"SELECT w.{columns}, e.prediction FROM ({withheld}) w JOIN {candidate.entries_sql} e USING (lookup_hash) "
        f"WHERE e.source IN {PEOPLE} AND w.scores IS NOT NULL LIMIT {MOST_JUDGED}"
    )
    rejected = (
        f"SELECT w.{columns}, w.prediction FROM ({withheld}) w SEMI JOIN ({workspace.verdicts.rejected_sql(f'({withheld})')}) "
        f"USING (lookup_hash) ANTI JOIN {candidate.entries_sql} USING (lookup_hash) WHERE w.scores IS NOT NULL LIMIT {MOST_JUDGED}"
    )
    with workspace.store.attached(workspace.db):
        rows = [(*row, True) for row in workspace.db.execute(corrected).fetchall()]
        if len(choices) == PAIR:
            rows += [(*row, False) for row in workspace.db.execute(rejected).fetchall()]
    known: list[Any] = [
        (text, scores, said, is_right)
        for lookup_hash, text, scores, said, is_right in rows
        if said in choices and _is_held(bytes(lookup_hash), asked=bytes(lookup_hash) in asked)
    ]
    right = [choices.index(said) if is_right else 1 - choices.index(said) for _, _, said, is_right in known]
    scores = _scores([said for _, said, _, _ in known], choices)
    whole = np.flatnonzero(np.isfinite(scores).all(1))
    begun = [texts.whole(known[number][0])[:MOST_CHARACTERS] for number in whole]
    return JudgedTexts(begun, scores[whole], np.array(right, dtype=np.intp)[whole])
