"""How long chunks took, as the cache has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from batchinfer.cache.chunks import ChunkNote, ChunkTime, EngineSetting, read_chunks
from batchinfer.cache.store import Store
from batchinfer.core.records import Provenance

HERE = EngineSetting("model", "2 cores", "{}")


@pytest.fixture
def cache(tmp_path: Path) -> Store:
    store = Store(tmp_path / "cache.duckdb")
    store.prepare()
    return store


def note(store: Store, run_id: int, rows: int, setting: EngineSetting = HERE) -> None:
    made = ChunkNote(ChunkTime(rows, 100, 40, 7, 1.5), setting, {})
    store.commit([], [], Provenance(b"f" * 16, "p", "model", run_id), replace=False, note=made)


def found(store: Store, setting: EngineSetting = HERE, runs: int = 5) -> list[int]:
    """The rows of each chunk, which tell them apart here."""
    return [chunk.rows for run in read_chunks(store, setting, runs) for chunk in run]


def test_a_chunk_comes_back_as_it_was(cache: Store) -> None:
    """With what the model computed of its prompts."""
    note(cache, 1, 256)
    [[chunk]] = read_chunks(cache, HERE, 5)
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
    """All their chunks, however many."""
    for run_id, rows in [(1, 1000), (2, 2000), (2, 2001), (3, 3000)]:
        note(cache, run_id, rows)
    assert found(cache, runs=2) == [3000, 2000, 2001]


def test_small_chunks_of_a_run_are_put_together(cache: Store) -> None:
    """An engine works on many prompts at a time, so a chunk of a few seconds says little; a run's remainder goes along."""
    for run_id, rows in [(1, 100), (1, 100), (1, 100), (1, 256), (1, 5), (2, 7)]:
        note(cache, run_id, rows)
    assert found(cache) == [7, 300, 261]
    assert read_chunks(cache, HERE, 5)[1][0] == ChunkTime(300, 300, 120, 21, 4.5)
