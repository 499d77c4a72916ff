"""How long the chunks of runs took, and what the model worked on in them: what estimates are made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import duckdb

from batchinfer.cache.schema import note_used

if TYPE_CHECKING:
    from batchinfer.cache.store import Store

MOST = 2000  # of the newest are read
STRETCH = 256  # rows: with fewer, what was begun before a chunk and ended in it would say more than the chunk


@dataclass(frozen=True, slots=True)
class EngineSetting:
    """What decides how fast an engine answers, but for the prompts.

    model: its label.
    machine: the devices, as `engines.devices` describes them.
    options: of the engine and the model that can be set, as canonical JSON.
    """

    model: str
    machine: str
    options: str


@dataclass(frozen=True, slots=True)
class ChunkTime:
    """What came back between two commits of a run.

    rows: prompts that were answered, or failed.
    prompt_tokens: of those.
    cached_tokens: those of them that prefix caching saved.
    output_tokens: of the answers.
    seconds: since the commit before, or since generation began.
    """

    rows: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    seconds: float

    @property
    def computed_tokens(self) -> int:
        """Tokens of prompts that the model worked on."""
        return self.prompt_tokens - self.cached_tokens

    def __add__(self, other: ChunkTime) -> ChunkTime:
        return ChunkTime(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class ChunkNote:
    """What is recorded beside the answers of a chunk.

    time: how long it took.
    setting: the engine that it took so long.
    used: what the run used and made so far, which is known then even if it is killed; empty where nobody counts.
    """

    time: ChunkTime
    setting: EngineSetting
    used: Mapping[str, Any]

    def write(self, db: duckdb.DuckDBPyConnection, run_id: int | None) -> None:
        """In the transaction in which the answers are stored."""
        values = [run_id, *astuple(self.setting), *astuple(self.time)]
        db.execute(f"INSERT INTO chunks VALUES ({', '.join('?' for _ in values)})", values)
        note_used(db, run_id, self.used)


def read_chunks(store: Store, setting: EngineSetting, runs: int) -> list[list[ChunkTime]]:
    """Those of each of the newest runs in which this model was asked on this machine, at most so many runs, newest first.

    Small ones of a run are put together until they have STRETCH rows. Runs with these very options go before others: none
    of the others are read where there is one.
    """
    with store.open() as db:
        rows = db.execute(
            """WITH here AS (
                SELECT *, rowid AS number, options = $options AS alike FROM chunks WHERE model = $model AND machine = $machine),
            fit AS (FROM here WHERE alike = (SELECT max(alike) FROM here)),
            newest AS (SELECT DISTINCT run_id FROM fit ORDER BY run_id DESC LIMIT $runs)
            SELECT run_id, rows, prompt_tokens, cached_tokens, output_tokens, seconds FROM fit SEMI JOIN newest USING (run_id)
            ORDER BY run_id DESC, number LIMIT $most""",
            {
                "model": setting.model,
                "machine": setting.machine,
                "options": setting.options,
                "runs": runs,
                "most": MOST,
            },
        ).fetchall()
    by_run = itertools.groupby(rows, key=lambda row: row[0])
    return [_stretches(ChunkTime(*row[1:]) for row in chunks) for _, chunks in by_run]


def _stretches(chunks: Iterable[ChunkTime]) -> list[ChunkTime]:
    """The chunks of a run, small ones put together."""
    found = list[ChunkTime]()
    for chunk in chunks:
        if found and (found[-1].rows < STRETCH):
            found[-1] += chunk
        else:
            found.append(chunk)
    if len(found) > 1 and found[-1].rows < STRETCH:  # what is left of a run
        found[-2:] = [found[-2] + found[-1]]
    return found
