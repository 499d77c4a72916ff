"""Small files of the data folder with anything in them: who reads one works without it, or says in a sentence what is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.core.columns import Column
from batchinfer.core.home import JobData
from batchinfer.engines import digests
from batchinfer.errors import BatchinferError
from batchinfer.evaluate.halves import remembered
from batchinfer.maintenance.entry import Entry
from batchinfer.maintenance.erase_evals import erase_evals
from batchinfer.misses.collector import Collector
from batchinfer.publish.audit_file import read_newest_audit
from batchinfer.publish.samples import read_samples
from batchinfer.schedule.memory import Memory
from batchinfer.serve.apikeys import KeyFile
from batchinfer.serve.worker_deaths import WorkerDeaths
from batchinfer.versions.calibration import ScoreModel
from batchinfer.versions.pointers import pointer
from batchinfer.versions.precision import read_figures
from tests.fuzz import anything
from tests.versions.test_hostile_folders import changed, places, values

MOMENT = "2026-11-30T10:00:00+00:00"
ENTRY = Entry({"id": "a"}, (Column("id", "string"),), ())
HASH = ENTRY.lookup_hash.hex()
SPOOLED = "20261130T100000000000-1-0.json"


@dataclass(frozen=True)
class Note:
    """A small file, what stands in it when it is whole, and who reads it.

    place: below the data folder. whole: as the program wrote it.
    """

    place: str
    whole: Any
    readers: tuple[Callable[[JobData], object], ...]


def _model(data: JobData) -> object:
    return ScoreModel.of(data.calibration.read_bytes())


NOTES = {
    "job": Note(
        "shop/job.json",
        {
            "job_file": "/a/job.yaml", "models": {"[]": {"revision": None, "digest": "x", "adapter_digest": None}},
            "refresh": {"what": "all", "since": MOMENT}, "list": {"version": 1, "place": "a"},
        },
        (lambda data: data.check_owner(Path("/b")), lambda data: data.refresh_since("all"), JobData.clear_refresh),
    ),
    "split": Note(
        "shop/evals/halves.json", {"share": 0.5, "dev": [HASH], "test": ["00"]},
        (lambda data: remembered(data, 0.5), lambda data: erase_evals(data, ENTRY)),
    ),
    "figures": Note(
        "shop/evals/precision-v1.json",
        {"version": 1, "made_at": MOMENT, "estimate": 0.5, "low": 0.4, "high": 0.6, "verdicts": 9,
         "recall": {"estimate": 0.5, "low": 0.4, "high": 0.6, "rows": 3}},
        (lambda data: read_figures(data, 1), lambda data: erase_evals(data, ENTRY)),
    ),
    "sample": Note(
        "shop/samples/abc/sample.json",
        {"id": "abc", "created_at": MOMENT, "version": 1, "where": {"a": "b"}, "seed": "s",
         "strata": [{"rows": 3, "drawn": 1, "score": 0.5}]},
        (read_samples,),
    ),
    "audit": Note(
        "shop/audits/v1/audit.json",
        {"settings": "s", "version": 1, "made_at": MOMENT, "swaps": [{"name": "a", "verdict": "pass", "message": ""}],
         "templates": [], "slices": [{"column": "id", "value": "a", "rows": 1}]},
        (lambda data: read_newest_audit(data, "s"), lambda data: erase_evals(data, ENTRY)),
    ),
    "schedule": Note(
        ".schedule/jobs.json",
        {"format": 1, "jobs": {"shop": {"since": MOMENT, "unfinished": None, "began": MOMENT, "ended": None, "exit_code": 0,
                                        "line": "0 3 * * 1"}}},
        (lambda data: Memory(data.root).read(),),
    ),
    "pointer": Note("shop/CURRENT", {"version": 1, "manifest_sha256": "0"}, (pointer,)),
    "keys": Note(
        "api-keys.json",
        {"keys": [{"id": "a", "sha256": "0" * 64, "name": "n", "jobs": ["shop"], "created_at": MOMENT, "revoked_at": None}]},
        (lambda data: [record.allows("shop") and record.fits("x") for record in KeyFile(data.root).read()],),
    ),
    "deaths": Note("workers.json", {"deaths": 1, "waits": {"1": 5.0}}, (lambda data: WorkerDeaths.read(data.root).held_back,)),
    "misses": Note(
        f"spool/shop/{SPOOLED}", {"since": MOMENT, "until": MOMENT, "misses": [['{"id":"a"}', 2]]},
        (lambda data: Collector(data.root, data.root / "spool", "server").round(),),
    ),
    "digests": Note(
        "cache/digests.json", {"/none": [[["/none/a", 1, 2]], "00"]}, (lambda data: digests.folder_digest(data.folder / "evals"),),
    ),
}  # fmt: skip


@contextlib.contextmanager
def holding(note: Note, content: bytes) -> Iterator[JobData]:
    """A data folder with that file in it."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "cache_folder", lambda: Path(name) / "cache")
        data = JobData(Path(name), "shop")
        data.evals.mkdir(parents=True)
        path = data.root / note.place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        yield data


def read(note: Note, content: bytes) -> None:
    """Each reader works, or raises what people are told."""
    for reader in note.readers:
        with holding(note, content) as data, contextlib.suppress(BatchinferError):
            reader(data)


@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES)
def test_what_is_whole_is_read(note: Note) -> None:
    """Else nothing is shown below."""
    for reader in note.readers:
        with holding(note, json.dumps(note.whole).encode()) as data:
            reader(data)


DAMAGED = [
    b"",
    b"[",
    b"[" * 100_000,
    b"{" * 100_000,
    b"\xff",
    b"[]",
    b"[1]",
    b"1",
    b'"x"',
    b"null",
    b"{}",
    b"9" * 5000,
    bytes(100),
]


@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES)
def test_a_file_that_is_damaged_as_a_whole(note: Note) -> None:
    """Emptied, cut, full of zeros, or something else."""
    for content in DAMAGED:
        read(note, content)


def pipe(path: Path) -> None:
    """Nobody ever writes into it."""
    os.mkfifo(path)


def endless(path: Path) -> None:
    """A link to a device without an end."""
    path.symlink_to("/dev/zero")


def circle(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


def huge(path: Path) -> None:
    """A file of a terabyte, of which nothing was written."""
    path.touch()
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize(
    "stage", [pipe, endless, circle, Path.mkdir, huge], ids=["pipe", "endless", "circle", "folder", "huge"]
)
@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES)
def test_what_is_no_file_is_not_read(note: Note, stage: Callable[[Path], None]) -> None:
    """It is neither waited for, nor read without an end."""
    for reader in note.readers:
        with holding(note, b"") as data:
            (data.root / note.place).unlink()
            stage(data.root / note.place)
            with contextlib.suppress(BatchinferError):
                reader(data)


def test_what_is_no_file_of_misses_is_left_alone(tmp_path: Path) -> None:
    """Also one whose name has no day."""
    for name in ("20261399T100000000000-1-0.json", "notes.txt"):
        (tmp_path / "spool" / "shop").mkdir(parents=True, exist_ok=True)
        (tmp_path / "spool" / "shop" / name).write_text("{}", encoding="utf-8")
    Collector(tmp_path / "home", tmp_path / "spool", "server").round()
    assert len(list((tmp_path / "spool" / "shop").iterdir())) == 2


@anything(4)
@given(draw=st.data())
def test_a_file_may_say_anything(draw: st.DataObject) -> None:
    """Each part of it may be missing, or hold anything."""
    note = NOTES[draw.draw(st.sampled_from(sorted(NOTES)))]
    place = draw.draw(st.sampled_from(places(note.whole)))
    said = changed(note.whole, place, draw.draw(values), removed=draw.draw(st.booleans()))
    read(note, json.dumps(said).encode())
