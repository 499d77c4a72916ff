"""What a data folder notes of a job."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batchinfer.core.job_record import AgreedList, JobRecord, KnownModel, Refresh

NEWER: dict[str, Any] = {
    "newer": {"a": [1]},
    "models": {"old": {"revision": "r", "digest": "d", "adapter_digest": None, "newer": 1}},
}
REFRESH = Refresh("all", datetime(2026, 1, 5, 3, tzinfo=UTC))
AGREED = AgreedList(3, "list.csv")


def test_what_is_noted_is_read_again(tmp_path: Path) -> None:
    """Each change makes another record, and leaves the one that it was made of as it was."""
    path, empty = tmp_path / "job.json", JobRecord({})
    noted = {"source": "/m", "revision": None, "digest": "d", "adapter_digest": "a"}
    full = empty.bound_to(Path("/a/job.yaml")).with_model("m", noted).with_refresh(REFRESH).with_agreed(AGREED)
    full.write(path)
    read = JobRecord.read(path)
    assert read == full
    assert (read.job_file, read.refresh, read.agreed) == ("/a/job.yaml", REFRESH, AGREED)
    assert (read.model("m"), read.model("other")) == (KnownModel(None, "d", "a"), None)
    less = read.without_refresh().without_agreed()
    assert (less.job_file, less.refresh, less.agreed) == ("/a/job.yaml", None, None)
    assert (empty.job_file, empty.model("m"), empty.refresh, empty.agreed) == (None, None, None, None)


def test_what_newer_programs_note_stays(tmp_path: Path) -> None:
    """Also within a model; fields keep the order in which they stand in the file."""
    path = tmp_path / "job.json"
    path.write_text(json.dumps(NEWER), encoding="utf-8")
    record = JobRecord.read(path).with_agreed(AGREED).with_refresh(REFRESH).bound_to(Path("/a/job.yaml"))
    record.with_model("m", {"revision": None, "digest": "d", "adapter_digest": None}).without_agreed().write(path)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert list(written) == ["newer", "models", "refresh", "job_file"]
    assert written["newer"] == NEWER["newer"]
    assert written["models"]["old"] == NEWER["models"]["old"]


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert JobRecord.read(tmp_path / "job.json") == JobRecord({})
