"""prune: answers that nothing uses any more leave the cache, whose file then is smaller. Nothing that is used goes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from batchinfer.core.person import Nobody
from batchinfer.errors import Busy, InputError, NotConfirmed, StoreError
from batchinfer.pipeline.prune import PruneReport, prune
from batchinfer.versions.folders import folder_of
from batchinfer.versions.layout import PREDICTIONS
from tests.factories import LENIENT, Quiet, Templates, World, model_job, write
from tests.killing import kill_at
from tests.tiny import Cli

NAMES = [f"{number:03d}" for number in range(100)]
LONG = 32_000  # characters


def asked_three_times(folder: Path) -> World:
    """A job whose prompt changed twice: the first and last question's answers were published, those between were not."""
    world = model_job(folder, {"id": NAMES, "text": NAMES}, gate=LENIENT, keep_versions=2)
    world.answer(lambda row: f"first {row['text']}")
    world.take_in({"id": ["of people"], "prediction": ["given"]})
    world.publish()
    between = world.changed(prompt={"template": "Tell of {{ text }}"})
    between.answer(lambda row: f"second {random.Random(row['text']).randbytes(LONG // 2).hex()}")
    last = world.changed(prompt={"template": "Say {{ text }}"})
    last.answer(lambda row: f"third {row['text']}")
    last.publish()
    return last


@pytest.fixture
def world(templates: Templates, tmp_path: Path) -> World:
    """A copy of `asked_three_times`."""
    return templates.world(asked_three_times, tmp_path)


def texts(world: World) -> dict[str, int]:
    """How many answers the cache has, by their first word; and imports. The second are long, and so tokens there."""
    with world.store.open() as db:
        rows = db.execute(
            "SELECT if(starts_with(text, chr(64976)), 'second', split_part(text, ' ', 1)) AS word, count(*) FROM generations GROUP BY word"
        ).fetchall()
        return dict(rows) | {"imports": db.execute("SELECT count(*) FROM imports").fetchall()[0][0]}


def pruned(world: World, *, yes: bool = True, dry_run: bool = False) -> PruneReport:
    """Removes what is not used, without a question."""
    return prune(world.job, world.data, Nobody(), yes=yes, dry_run=dry_run)


@pytest.mark.long
def test_only_what_nothing_uses_goes(world: World) -> None:
    """Versions, people's answers and the present plan keep theirs; nothing is generated for it, and the disk space is back."""
    before = world.data.cache.stat().st_size
    report = pruned(world)
    assert report.to_json() | {"bytes": 0} == {
        "job": "shop", "generations": 100, "failures": 0, "compared": 0, "left": 200, "bytes": 0, "removed": True,
    }  # fmt: skip
    assert texts(world) == {"first": 100, "third": 100, "imports": 1}
    assert report.bytes == before - world.data.cache.stat().st_size > 0
    with world.prepared() as prepared:
        assert prepared.plan.counts.to_generate == 0
    assert world.publish().version is None
    assert [run.status for run in world.store.runs()] == ["running", "killed", "killed"]
    assert not pruned(world).rows


@pytest.mark.long
def test_what_a_version_holds_goes_with_it(world: World) -> None:
    """Once no version has the first answers, they go."""
    for path in folder_of(world.data, 1).iterdir():
        path.unlink()
    folder_of(world.data, 1).rmdir()
    assert pruned(world).rows.generations == 200
    assert texts(world) == {"third": 100, "imports": 1}


def test_rows_that_left_the_list_go(world: World) -> None:
    """An answer that was never published, of a row that is asked no more; what is in a version stays."""
    world.rows({"id": [*NAMES, "new"], "text": [*NAMES, "new"]})
    world.answer(lambda row: "fourth")
    world.rows({"id": NAMES[:50], "text": NAMES[:50]})
    assert pruned(world).rows.generations == 101
    assert texts(world) == {"first": 100, "third": 100, "imports": 1}


def test_a_dry_run_changes_nothing(world: World) -> None:
    """It says how much it would be, also beside a run."""
    before = world.data.cache.read_bytes()
    with world.data.run_lock("a run"):
        report = pruned(world, dry_run=True)
        with pytest.raises(Busy):
            pruned(world)
    assert (report.rows.generations, report.removed) == (100, False)
    assert 0 < report.bytes < len(before)
    assert world.data.cache.read_bytes() == before


def test_it_asks_first_and_says_how_much(world: World) -> None:
    """And removes nothing where nobody answers."""
    with pytest.raises(NotConfirmed, match=r"removes 100 answers and 0 failures .* about .* MB, and cannot be undone"):
        pruned(world, yes=False)
    assert texts(world)["second"] == 100


def test_nothing_goes_where_it_cannot_be_told(world: World) -> None:
    """Neither without the list, nor beside a version that cannot be read."""
    folder_of(world.data, 1).joinpath(PREDICTIONS).write_text("no Parquet")
    with pytest.raises(StoreError, match="versions/000001 cannot be used"):
        pruned(world)
    world.list_path.unlink()
    with pytest.raises(InputError):
        pruned(world)
    assert texts(world)["second"] == 100


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["pipeline.prune:rewrite", "cache.rewrite:replace_durably"])
def test_killed_at_any_step(world: World, step: str, *, after: bool) -> None:
    """Said again, it ends as if nothing had happened."""
    kill_at(step, prune, world.job, world.data, Quiet(), after=after)
    pruned(world)
    assert texts(world) == {"first": 100, "third": 100, "imports": 1}
    assert not [*world.data.folder.glob(".cache*")]


def test_the_command(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Another list's rows can be named, too."""
    monkeypatch.chdir(world.job.folder)
    batchinfer = Cli(monkeypatch, capsys, world.data.root)
    other = write(world.job.folder / "other.parquet", {"id": NAMES, "text": NAMES})
    said = batchinfer("prune", ".", "--dry-run", "--input", other).out
    assert said.startswith("It would remove 100 answers and 0 failures of the cache of shop, ")
    assert json.loads(batchinfer("prune", ".", "--yes", "--json").out)["removed"] is True
    assert batchinfer("prune", ".").out == "The cache of shop holds nothing unused.\n"
