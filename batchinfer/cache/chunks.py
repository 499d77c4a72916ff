"""How long the chunks of runs took, and what the model worked on in them: what estimates are made of."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import duckdb

from batchinfer.cache.schema import ASIDE_SQL, note_used

if TYPE_CHECKING:
    from batchinfer.cache.store import Store

# Rows of a run that are looked at as one: an engine works on hundreds at a time, so a chunk says little of what it computed.
STRETCH = 4096
ALIKE = 4.0  # times as many rows, or as few: runs of such a size tell how long one takes
LARGE = 2000  # rows, beyond which size makes no difference
# A chunk that took so many times what its run's median chunk did for each row, and this many seconds, has waited for something.
WAITED, WAITED_SECONDS = 20, 60


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


def read_chunks(store: Store, setting: EngineSetting, runs: int, rows: int) -> list[list[ChunkTime]]:
    """What tells how long so many rows take: the chunks of each of some runs in which this model was asked on this machine.

    runs: how many at most, the newest. Before others go those with these very options, those that were no evaluation, and
    those of a size like this. Chunks are put together to stretches; those that waited are left out.
    """
    with store.open() as db:
        found = db.execute(
            f"""WITH here AS (
                SELECT *, rowid AS number, options = $options AS same, seconds / greatest(rows, 1) AS pace FROM chunks
                WHERE model = $model AND machine = $machine),
            usual AS (SELECT run_id, median(pace) AS pace FROM here GROUP BY run_id),
            fit AS (SELECT h.* FROM here h JOIN usual u USING (run_id)
                WHERE h.pace <= {WAITED} * u.pace OR h.seconds <= {WAITED_SECONDS}),
            sized AS (
                SELECT run_id, bool_and(same) AS same, coalesce(any_value(r.status) IN {ASIDE_SQL}, false) AS aside,
                    abs(ln(greatest(least(sum(rows), {LARGE}), 1) / least($rows, {LARGE}))) AS distance
                FROM fit LEFT JOIN runs r USING (run_id) GROUP BY run_id),
            chosen AS (
                FROM sized WHERE same = (SELECT max(same) FROM sized) AND aside = (SELECT min(aside) FROM sized)
                ORDER BY greatest(distance, ln({ALIKE})), run_id DESC LIMIT $runs),
            counted AS (
                SELECT f.*, sum(rows) OVER (PARTITION BY run_id ORDER BY number) AS so_far, sum(rows) OVER (PARTITION BY run_id) AS whole
                FROM fit f SEMI JOIN chosen USING (run_id))
            SELECT run_id, least((so_far - 1) // {STRETCH}, greatest(whole // {STRETCH} - 1, 0)) AS stretch, sum(rows)::BIGINT,
                sum(prompt_tokens)::BIGINT, sum(cached_tokens)::BIGINT, sum(output_tokens)::BIGINT, sum(seconds)
            FROM counted GROUP BY ALL ORDER BY run_id DESC, stretch""",
            {
                "model": setting.model, "machine": setting.machine, "options": setting.options,
                "runs": runs, "rows": float(max(rows, 1)),
            },
        ).fetchall()  # fmt: skip
    by_run = itertools.groupby(found, key=lambda row: row[0])
    return [[ChunkTime(*row[2:]) for row in stretches] for _, stretches in by_run]
