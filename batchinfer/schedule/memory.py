"""What a scheduler knows of due times, kept on disk, so that none is run twice and none is lost.

$BATCHINFER_HOME/.schedule/
  lock           held by the scheduler that runs; one for a data folder
  jobs.json      of each job: which due times are settled, and how its last run ended
  <job>.log      what its last run said
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from batchinfer.core.files import UNREAD, os_errors, read_small, why_damaged, why_unread, write_atomically
from batchinfer.core.locks import lock
from batchinfer.errors import Busy, StoreError
from batchinfer.schedule.agenda import Settled

FOLDER = ".schedule"
FORMAT = 1
TIMES = ("since", "unfinished", "began", "ended")
AHEAD = timedelta(days=1)  # that a settled time may lie in the future


class Memory:
    """The due times of a data folder's jobs. One process writes them, the one that holds `scheduling`."""

    def __init__(self, root: Path) -> None:
        """root: the data folder."""
        self.folder = root / FOLDER
        self._path = self.folder / "jobs.json"

    @contextlib.contextmanager
    def scheduling(self) -> Iterator[None]:
        """Held by the one scheduler of the data folder. Raises Busy, naming the holder, or StoreError."""
        with lock(self.folder / "lock", "batchinfer schedule run") as holder:
            if holder is not None:
                raise Busy(f"The jobs of {self.folder.parent} are scheduled by {holder}: stop it first.")
            yield

    def log_of(self, job: str) -> Path:
        """Where a run's words go."""
        return self.folder / f"{job}.log"

    def read(self) -> dict[str, Settled]:
        """What is known of each job, by its name. Raises StoreError for a damaged file."""
        try:
            content = json.loads(read_small(self._path))
            if content["format"] > FORMAT:
                raise StoreError(f"{self._path} was written by a newer batchinfer: use that.")
            return {name: _settled(facts) for name, facts in content["jobs"].items()}
        except FileNotFoundError:
            return {}
        except UNREAD as exc:
            why = why_unread(exc) if isinstance(exc, OSError) else why_damaged(exc)
            raise StoreError(
                f"{self._path} cannot be read: {why}. Remove it: jobs then run at their next times."
            ) from exc

    def write(self, known: dict[str, Settled]) -> None:
        """Raises StoreError."""
        jobs = {name: _plain(settled) for name, settled in sorted(known.items())}
        with os_errors(self._path):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps({"format": FORMAT, "jobs": jobs}, indent=2).encode())


def is_ahead(settled: Settled, now: datetime) -> bool:
    """Whether its times are from the future, under one of the two clocks. One that is set back by hours is no reason to doubt."""
    return settled.since > now + AHEAD


def _settled(facts: dict[str, Any]) -> Settled:
    since, unfinished, began, ended = (_time(facts[name]) for name in TIMES)
    if since is None:
        raise ValueError("a job has no time")
    return Settled(since, unfinished, began, ended, facts["exit_code"], facts.get("line"))


def _plain(settled: Settled) -> dict[str, Any]:
    times = {name: getattr(settled, name) for name in TIMES}
    return {name: time and time.isoformat() for name, time in times.items()} | {
        "exit_code": settled.exit_code,
        "line": settled.line,
    }


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
