"""How long chunks took, as the cache has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from batchinfer.cache.chunks import ChunkNote, ChunkTime, EngineSetting, read_chunks
from batchinfer.cache.schema import RunStatus
from batchinfer.cache.store import Store
from batchinfer.core.records import Provenance

HERE = EngineSetting("model", "2 cores", "{}")


@pytest.fixture
def cache(tmp_path: Path) -> Store:
    store = Store(tmp_path / "cache.duckdb")
    store.create_or_migrate()
    return store


def note(store: Store, run_id: int, rows: int, setting: EngineSetting = HERE, seconds: float = 1.5) -> None:
    made = ChunkNote(ChunkTime(rows, 100, 40, 7, seconds), setting, {})
    store.commit([], [], Provenance(b"f" * 16, "p", "model", run_id), replace=False, note=made)


def found(store: Store, setting: EngineSetting = HERE, runs: int = 5, rows: int = 1000) -> list[int]:
    """The rows of each chunk, which tell them apart here."""
    return [chunk.rows for run in read_chunks(store, setting, runs, rows) for chunk in run]


def test_a_chunk_comes_back_as_it_was(cache: Store) -> None:
    """With what the model computed of its prompts."""
    note(cache, 1, 256)
    [[chunk]] = read_chunks(cache, HERE, 5, 256)
    assert chunk == ChunkTime(256, 100, 40, 7, 1.5)
    assert chunk.computed_tokens == 60


def test_only_this_model_and_machine_count(cache: Store) -> None:
    """Another model is as fast as it is, and so is another machine."""
    note(cache, 1, 1)
    note(cache, 2, 2, replace(HERE, model="other"))
    note(cache, 3, 3, replace(HERE, machine="8 GPUs"))
    assert found(cache) == [1]
    assert found(cache, replace(HERE, machine="none")) == []


def test_the_same_options_go_before_others(cache: Store) -> None:
    """What other options took tells something only where these were never used."""
    tuned = replace(HERE, options='{"max_num_seqs":8}')
    note(cache, 1, 1, tuned)
    assert found(cache) == [1]
    note(cache, 2, 2)
    note(cache, 3, 3, tuned)
    assert found(cache) == [2]
    assert found(cache, tuned) == [3, 1]


def test_the_newest_runs_count(cache: Store) -> None:
    """So many of them, each as a whole: what an engine works on goes across the borders of chunks."""
    for run_id, rows in [(1, 1000), (2, 2000), (2, 2001), (3, 3000)]:
        note(cache, run_id, rows)
    assert found(cache, runs=2) == [3000, 4001]
    [_, [second]] = read_chunks(cache, HERE, 2, 1000)
    assert second == ChunkTime(4001, 200, 80, 14, 3.0)


def test_a_long_run_is_cut_into_stretches(cache: Store) -> None:
    """Of several times what an engine works on at a time; its remainder goes along with the last of them."""
    for _ in range(11):
        note(cache, 1, 1024)
    assert found(cache) == [4096, 7168]


def test_runs_of_such_a_size_count(cache: Store) -> None:
    """Five runs of few rows do not tell what many take, nor a long one what few do; beyond some thousands all are alike."""
    note(cache, 1, 50_000)
    for run_id in range(2, 8):
        note(cache, run_id, 20)
    assert found(cache, runs=1, rows=100_000) == [50_000]
    assert found(cache, runs=1, rows=3000) == [50_000]
    assert found(cache, runs=2, rows=10) == [20, 20]


def test_an_evaluation_counts_where_nothing_else_is_known(cache: Store) -> None:
    """It asks in turns, with the engine drained after each."""
    run_id = cache.start_run(b"f", None, RunStatus.EVAL)
    note(cache, run_id, 640)
    assert found(cache) == [640]
    note(cache, run_id + 1, 1000)
    assert found(cache) == [1000]


def test_a_chunk_that_waited_is_left_out(cache: Store) -> None:
    """For a server that was away, or an engine that hung: two hours are not how long tokens take."""
    for seconds in (36.0, 40.0, 7236.0, 30.0):
        note(cache, 1, 256, seconds=seconds)
    [[run]] = read_chunks(cache, HERE, 5, 1000)
    assert (run.rows, run.seconds) == (768, 106.0)
