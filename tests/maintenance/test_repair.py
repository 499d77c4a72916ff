"""repair: a damaged cache is replaced by one of what is left of it and of what versions have. Nothing else changes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from batchinfer.core.memory import VARIABLE
from batchinfer.core.person import Nobody
from batchinfer.errors import Busy, NotConfirmed, NotFound, StoreError
from batchinfer.maintenance.erase import erase_entry
from batchinfer.maintenance.repair import repair
from batchinfer.maintenance.salvage import kept_files
from tests.factories import LENIENT, Quiet, Templates, World, model_job
from tests.killing import kill_at
from tests.tiny import Cli

ROWS = 3000
NAMES = [f"{number:05d}" for number in range(ROWS)]
BLOCK = 256 << 10  # of DuckDB
START = 3 * 4096  # of the first block

Harm = Callable[[Path], object]


def long_text(name: str) -> str:
    """What no compression makes small."""
    return "".join(hashlib.sha256(f"{name}{number}".encode()).hexdigest() for number in range(8))


def asked(folder: Path) -> World:
    """A job of several blocks of answers, each published, some of them people's; and one answer that was never published."""
    world = model_job(folder, {"id": NAMES, "text": NAMES}, gate=LENIENT)
    world.answer(lambda row: long_text(row["text"]))
    world.take_in({"id": NAMES[:2], "prediction": ["one", "two"]}, author="Eva")
    world.publish()
    world.rows({"id": [*NAMES, "later"], "text": [*NAMES, "later"]})
    world.answer(lambda row: "not published")
    return world


@pytest.fixture
def world(templates: Templates, tmp_path: Path) -> World:
    """A copy of `asked`."""
    return templates.world(asked, tmp_path)


def zeroed(start: int, end: int) -> Harm:
    """Bytes that were never written."""

    def harm(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(start)
            file.write(bytes(end - start))

    return harm


def cut_at(share: float) -> Harm:
    """A file that ends before its end."""
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def answers(world: World) -> dict[bytes, tuple[Any, ...]]:
    """What the cache has for each prompt, but for what no version says."""
    with world.store.open() as db:
        rows = db.execute(
            "SELECT key, fingerprint, text, parser, prediction, model, run_id, created_at FROM generations"
        )
        return {row[0]: row for row in rows.fetchall()}


def imported(world: World) -> list[tuple[Any, ...]]:
    """What people gave."""
    with world.store.open() as db:
        return db.execute("SELECT query, prediction, author FROM imports ORDER BY query").fetchall()


def to_generate(world: World) -> int:
    """How many prompts a run would ask."""
    with world.prepared() as prepared:
        return prepared.plan.counts.to_generate


def files(folder: Path) -> dict[str, bytes]:
    """What is served."""
    return {str(path): path.read_bytes() for path in [*folder.rglob("versions/*/*"), *folder.glob("CURRENT")]}


def in_answers(path: Path) -> None:
    """A page of a block that has answers, which are the last that was written."""
    begins = START + (path.stat().st_size - START) // BLOCK * BLOCK - 2 * BLOCK
    zeroed(begins + 500, begins + 4500)(path)


DAMAGES: dict[str, Harm] = {
    "emptied": cut_at(0),
    "cut in its header": cut_at(0.001),
    "cut in its middle": cut_at(0.5),
    "without its last block": cut_at(0.95),
    "without what it is": zeroed(0, 4096),
    "without one of its headers": zeroed(4096, 8192),
    "without the other": zeroed(8192, 12288),
    "without headers": zeroed(0, 12288),
    "no database": lambda path: path.write_text("x" * 100_000),
    "a page": in_answers,
    "missing": Path.unlink,
}


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.long
def test_every_published_answer_is_there_again(world: World, name: str) -> None:
    """However the file was damaged: from it or from the version. What was never published is lost at most; no file is."""
    before, served = answers(world), files(world.data.folder)
    DAMAGES[name](world.data.cache)
    left = world.data.cache.read_bytes() if world.data.cache.exists() else None
    report = repair(world.data, Nobody(), yes=True)
    assert report.tables is not None
    found = report.tables["generations"]
    after = answers(world)
    assert len(after) == found.cache + found.versions >= ROWS - 2
    assert all(before[key] == row for key, row in after.items())
    assert found.lost in (None, len(before) - len(after))
    assert to_generate(world) == (
        0 if len(after) == len(before) else 1 if len(after) >= ROWS else len(before) - len(after) - 2
    )
    assert [row[:2] for row in imported(world)] == [('{"id": "00000"}', '"one"'), ('{"id": "00001"}', '"two"')]
    assert [path.read_bytes() for path in kept_files(world.data)] == ([left] if left is not None else [])
    assert files(world.data.folder) == served
    assert not [*world.data.folder.glob(".cache*"), *world.data.folder.glob("cache.duckdb.wal")]
    assert repair(world.data, Nobody()).damage is None


@pytest.mark.long
def test_a_bad_page_costs_only_what_lies_beside_it(world: World) -> None:
    """Most is read of the file itself; without a version, the rest is counted as lost."""
    DAMAGES["a page"](world.data.cache)
    for path in world.data.folder.glob("versions/*/manifest.json"):
        path.unlink()
    report = repair(world.data, Nobody(), yes=True)
    assert report.tables is not None
    found = report.tables["generations"]
    assert found.versions == 0
    assert 0 < found.cache == ROWS + 1 - (found.lost or 0)


@pytest.mark.long
def test_numbers_go_on(world: World) -> None:
    """Of runs, versions and imports: none is given twice, though the history could not be read."""
    with contextlib.suppress(StoreError):
        world.data.cache.write_bytes(b"")
    repair(world.data, Nobody(), yes=True)
    assert world.answer(lambda row: "again") == 2
    assert world.publish().version == 2
    assert world.take_in({"id": NAMES[:1], "prediction": ["three"]}).import_id == 2


@pytest.mark.long
def test_scores_can_be_read_again(tmp_path: Path) -> None:
    """A choice's scores come back as what they were made of, so that another parser can read them."""
    world = model_job(
        tmp_path,
        {"id": ["a", "b"], "text": ["a", "b"]},
        gate=LENIENT,
        output={"type": "choice", "choices": ["y", 'n"']},
    )
    world.answer(lambda row: [-0.25, -2.5] if row["text"] == "a" else [-3.0, float("-inf")])
    world.publish()
    world.data.cache.unlink()
    repair(world.data, Nobody(), yes=True)
    with world.store.open() as db:
        found = db.execute("SELECT logprobs FROM generations ORDER BY logprobs[1] DESC").fetchall()
    assert found == [([pytest.approx(-0.25), pytest.approx(-2.5)],), ([pytest.approx(-3.0), float("-inf")],)]
    changed = world.changed(output={"type": "choice", "choices": ["y", 'n"'], "min_mass": 0.5})
    with changed.prepared(writes=True) as prepared:
        assert (prepared.plan.counts.cached, prepared.plan.counts.failed) == (1, 1)


@pytest.mark.parametrize(
    ("output", "logprobs"),
    [
        ({"type": "choice", "choices": ["y", "n"], "normalize": "tokens"}, [-0.25, -2.5]),
        ({"type": "likelihood", "text": "{{ id }}"}, [-7.5]),
    ],
)
def test_scores_without_a_mass_are_read_as_before(
    tmp_path: Path, output: dict[str, Any], logprobs: list[float]
) -> None:
    """Scores by length and likelihoods come back as what is read as the same predictions again."""
    world = model_job(tmp_path, {"id": ["a"], "text": ["a"]}, gate=LENIENT, output=output)
    world.answer(lambda row: logprobs)
    world.publish()
    sql = "SELECT prediction, round(score, 9), mass FROM generations"
    with world.store.open() as db:
        before = db.execute(sql).fetchall()
    world.data.cache.unlink()
    repair(world.data, Nobody(), yes=True)
    with duckdb.connect(str(world.data.cache)) as db:
        db.execute("UPDATE generations SET parser = 'an older one'")
    with world.prepared(writes=True) as prepared:
        assert (prepared.plan.counts.cached, prepared.plan.counts.failed) == (1, 0)
    with world.store.open() as db:
        assert db.execute(sql).fetchall() == before


def test_an_answer_is_never_taken_for_another_question(world: World) -> None:
    """What a version says of an earlier prompt is no answer to the job's present one."""
    changed = world.changed(prompt={"template": "What of {{ text }}?"})
    world.data.cache.unlink()
    repair(world.data, Nobody(), yes=True)
    assert to_generate(changed) == ROWS + 1 - 2
    assert to_generate(world.changed(prompt={"template": "{{ text }}"})) == 1


def test_a_whole_cache_is_left_alone(world: World) -> None:
    """Nobody is asked, and no file changes."""
    before = {path: path.stat().st_mtime_ns for path in world.data.folder.rglob("*.duckdb*")}
    assert repair(world.data, Nobody()).to_json()["repaired"] is False
    assert {path: path.stat().st_mtime_ns for path in world.data.folder.rglob("*.duckdb*")} == before


def test_it_asks_first(world: World) -> None:
    """And does nothing where nobody answers."""
    os.truncate(world.data.cache, 5000)
    with pytest.raises(NotConfirmed, match=r"The damaged file is kept beside it\. Pass --yes"):
        repair(world.data, Nobody())
    assert world.data.cache.stat().st_size == 5000
    assert kept_files(world.data) == []


def test_neither_beside_a_run_nor_a_writer(world: World) -> None:
    """What uses the cache is waited for by its user."""
    with world.data.run_lock("a run"), pytest.raises(Busy, match="in use by a run"):
        repair(world.data, Nobody(), yes=True)


def test_a_job_without_versions(world: World) -> None:
    """Gets an empty cache in place of one that cannot be read at all; without either there is nothing to repair."""
    for path in world.data.folder.glob("versions/*/manifest.json"):
        path.unlink()
    world.data.cache.write_bytes(b"")
    report = repair(world.data, Nobody(), yes=True)
    assert report.to_json()["generations"] == {"cache": 0, "versions": 0, "lost": None}
    assert world.store.runs() == []
    world.data.cache.unlink()
    with pytest.raises(NotFound, match="batchinfer run makes a new one"):
        repair(world.data, Nobody(), yes=True)


def test_what_a_log_has_is_read_too(world: World) -> None:
    """A process that was killed leaves a log beside the file."""
    db = duckdb.connect(world.data.cache, config={"checkpoint_threshold": "1TB"})
    db.execute("PRAGMA disable_checkpoint_on_shutdown; UPDATE runs SET status = 'unheard of'")
    db.close()
    assert world.data.cache.with_name("cache.duckdb.wal").exists()
    DAMAGES["a page"](world.data.cache)
    repair(world.data, Nobody(), yes=True)
    with world.store.open() as db:
        assert db.execute("SELECT DISTINCT status FROM runs").fetchall() == [("unheard of",)]


STEPS = ["os:link", *(f"maintenance.repair:{name}" for name in ("salvage", "restore_generations", "replace_durably"))]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step(world: World, step: str, *, after: bool) -> None:
    """Said again, it ends as if nothing had happened; there is one kept file."""
    DAMAGES["a page"](world.data.cache)
    kill_at(step, repair, world.data, Quiet(), after=after)
    repair(world.data, Nobody(), yes=True)
    assert len(answers(world)) == ROWS
    assert len(kept_files(world.data)) == 1
    assert not [*world.data.folder.glob(".cache*"), *world.data.folder.glob("cache.duckdb.wal")]


@pytest.mark.long
def test_what_is_erased_may_be_in_a_kept_file(world: World) -> None:
    """Forget says so, since nobody can search it."""
    world.data.cache.write_bytes(b"")
    repair(world.data, Nobody(), yes=True)
    [kept] = kept_files(world.data)
    report = erase_entry(world.job, world.data, {"id": NAMES[7]})
    assert report.remarks[-1] == f"The damaged cache {kept} may hold it, too: remove it."


@pytest.mark.long
def test_the_error_names_the_way_out(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command on a damaged cache names both commands, and the second makes the first work again."""
    monkeypatch.chdir(tmp_path)
    batchinfer = Cli(monkeypatch, capsys, tmp_path / "home")
    DAMAGES["without what it is"](world.data.cache)
    for command in ("runs", "failures", "plan", "publish", "doctor"):
        refused = batchinfer(command, world.job.folder)
        assert refused.code == 1
        said = refused.err if command != "doctor" else refused.out
        assert "batchinfer doctor shop --deep says what is damaged, batchinfer repair shop makes a new cache" in said
    done = batchinfer("repair", "shop", "--yes")
    assert (done.code, "The damaged file is kept as" in done.out) == (0, True), done.err
    assert batchinfer("repair", "shop", "--json").json["repaired"] is False
    assert batchinfer("plan", world.job.folder).code == 0


LONG_ROWS = [f"{number:02d}" for number in range(40)]


def much(name: str) -> str:
    """A text of 100 kB, which lies in pieces in the cache."""
    return "".join(long_text(f"{name}.{number}") for number in range(200))


def asked_for_much(folder: Path) -> World:
    """A job of long answers, all published."""
    world = model_job(folder, {"id": LONG_ROWS, "text": LONG_ROWS}, gate=LENIENT)
    world.answer(lambda row: much(row["text"]))
    world.publish()
    return world


@pytest.mark.parametrize(
    "harm", [DAMAGES["missing"], cut_at(0.6), *(zeroed(START + n * BLOCK, START + n * BLOCK + 9000) for n in (1, 3, 5))]
)
@pytest.mark.long
def test_long_answers_are_whole_again_or_gone(templates: Templates, tmp_path: Path, harm: Harm) -> None:
    """Long texts lie in pieces: one that lost a piece is not taken from the file, and those of versions are as they were."""
    world = templates.world(asked_for_much, tmp_path)
    before = answers(world)
    harm(world.data.cache)
    report = repair(world.data, Nobody(), yes=True)
    assert report.tables is not None
    assert (report.tables["generations"].cache + report.tables["generations"].versions) == len(LONG_ROWS)
    assert answers(world) == before
    texts = dict(world.store.long_texts())
    assert {much(name) for name in LONG_ROWS} <= {data.decode() for data in texts.values()}
    assert world.publish().same_as == 1


@pytest.mark.long
def test_long_answers_of_a_version_are_restored_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than fit: a version's are cached again, and people's are imports again, as the cache keeps them."""
    monkeypatch.setenv(VARIABLE, "32MB")
    world = model_job(tmp_path, {"id": LONG_ROWS, "text": LONG_ROWS}, gate=LENIENT)
    world.answer(lambda row: row["text"] * 500_000)
    world.take_in({"id": LONG_ROWS[:1], "prediction": ["x" * 500_000]})
    world.publish()
    world.data.cache.unlink()
    report = repair(world.data, Nobody(), yes=True)
    assert report.tables is not None
    assert (report.tables["generations"].versions, report.tables["imports"].versions) == (len(LONG_ROWS) - 1, 1)
    with world.store.open() as db:
        assert db.execute(
            "SELECT max(strlen(text)) < 1000 AND max(strlen(prediction)) < 1000 FROM generations"
        ).fetchall() == [(True,)]
    assert world.publish().same_as == 1
    with world.prepared() as prepared:
        assert (prepared.plan.counts.cached, prepared.plan.counts.to_generate) == (len(LONG_ROWS), 0)


@pytest.mark.long
def test_what_lost_a_piece_is_lost_without_a_version(templates: Templates, tmp_path: Path) -> None:
    """Where no version has it, an answer with a hole counts as lost; the others are whole."""
    world = templates.world(asked_for_much, tmp_path)
    with world.store.open(write=True) as db:
        [(digest,)] = db.execute("SELECT digest FROM long_texts LIMIT 1").fetchall()
        db.execute("DELETE FROM long_texts WHERE digest = ? AND part = 3", [digest])
    for path in world.data.folder.glob("versions/*/manifest.json"):
        path.unlink()
    DAMAGES["without what it is"](world.data.cache)
    report = repair(world.data, Nobody(), yes=True)
    assert report.tables is not None
    assert report.tables["generations"].cache == len(LONG_ROWS) - 1
    assert report.tables["generations"].versions == 0
    assert {much(name) for name in LONG_ROWS} > {data.decode() for _, data in world.store.long_texts()}
