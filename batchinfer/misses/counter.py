"""Counts what clients asked for and did not find, in bounded memory, and writes the counts into small files.

The collector merges these files beside the job. A worker imports neither pyarrow nor duckdb for this.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from batchinfer.core.files import DAMAGE, read_small, why_damaged
from batchinfer.core.keys import canonical_json
from batchinfer.errors import StoreError

MOST_QUERIES = 10_000  # in memory, for one job in one worker
MOST_BYTES = 1024  # of one query as JSON
MOST_FILES = 2000  # of a job in the spool folder; the collector leaves half of them, so with more it has ended
MOST_COUNT = 1 << 53
SPOOLED = re.compile(r"(\d{8})T\d{12}-\d+-\d+\.json")
_numbers = itertools.count()


class MissCounter:
    """The misses of one job in one worker since they were last spooled.

    names: the columns of the lookup key.
    dropped: how many were not recorded, since there were too many, or the query was too long or not storable as JSON.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """When a new version has other columns, spool this counter and make another."""
        self.names = tuple(names)
        self.dropped = 0
        self._counts: dict[tuple[Any, ...], int] = {}
        self._since = datetime.now(UTC)
        self._spooling = threading.Lock()  # the last spool can come while one is under way

    def __len__(self) -> int:
        """How many different queries wait to be spooled."""
        return len(self._counts)

    def add(self, query: tuple[Any, ...]) -> None:
        """Counts one miss; `query` holds the values in the order of `names`."""
        counts = self._counts
        if query in counts:
            counts[query] += 1
        else:
            self._add_new(query, 1)

    def _add_new(self, query: tuple[Any, ...], count: int) -> None:
        if len(self._counts) >= MOST_QUERIES or sum(len(v) for v in query if isinstance(v, str)) > MOST_BYTES:
            self.dropped += count
            return
        if not self._counts:
            self._since = datetime.now(UTC)
        self._counts[query] = count

    def spool(self, folder: Path) -> None:
        """Writes what was counted as one file into `folder`, and starts again from zero. Without counts it writes nothing.

        May be called in another thread than `add`: of a query that comes at that moment, one count may be lost.
        Raises StoreError if it cannot be written; the counts are then kept, unless nobody collects the files.
        """
        with self._spooling:
            self._spool(folder)

    def _spool(self, folder: Path) -> None:
        since, counts = self._since, self._counts
        if not counts:
            return
        self._counts = {}
        if _is_full(folder):
            self.dropped += sum(counts.values())
            raise StoreError(
                f"{folder} holds {MOST_FILES:,} files that nobody collects: misses are not counted. Restart the service."
            )
        until = datetime.now(UTC)
        try:
            _write(folder, until, self._content(since, until, counts))
        except OSError as exc:
            for query, count in counts.items():
                if query in self._counts:
                    self._counts[query] += count
                else:
                    self._add_new(query, count)
            self._since = since
            raise StoreError(
                f"{exc.filename or folder} cannot be written: {exc.strerror}. Misses are kept in memory for now."
            ) from exc

    def _content(self, since: datetime, until: datetime, counts: dict[tuple[Any, ...], int]) -> bytes:
        """The file, built piece by piece: one long call of the encoder would keep other threads waiting."""
        pieces = []
        dropped = 0
        for query, count in list(counts.items()):
            text = _text(dict(zip(self.names, query, strict=True)))
            if text is None:
                dropped += count
            else:
                pieces.append(json.dumps([text, count]))
        self.dropped += dropped
        head = json.dumps({"since": since.isoformat(), "until": until.isoformat()})
        return f'{head[:-1]}, "misses": [{", ".join(pieces)}]}}'.encode()


def _text(query: dict[str, Any]) -> str | None:
    """A query as canonical JSON; None if it is too long, or holds what JSON and UTF-8 cannot."""
    plain = {name: value.isoformat() if isinstance(value, date) else value for name, value in query.items()}
    if any(isinstance(value, float) and not math.isfinite(value) for value in plain.values()):
        return None
    try:
        text = canonical_json(plain)
        return text if len(text.encode()) <= MOST_BYTES else None
    except ValueError:  # half a surrogate pair, or an integer of more digits than Python prints
        return None


def _is_full(folder: Path) -> bool:
    try:
        return len(os.listdir(folder)) >= MOST_FILES  # noqa: PTH208 - only their number is wanted
    except OSError:  # writing says what is wrong
        return False


def _write(folder: Path, moment: datetime, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{moment:%Y%m%dT%H%M%S%f}-{os.getpid()}-{next(_numbers)}.json"
    draft = path.with_name(f".{path.name}")
    try:
        draft.write_bytes(content)
        draft.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def server_name(server: str) -> str:
    """A server, and the machine that it runs on, as part of a file's name."""
    return "-".join(re.sub(r"[^A-Za-z0-9._-]", "_", name)[:64] for name in (socket.gethostname(), server))


def spooled(folder: Path) -> list[Path]:
    """The files in a spool folder, oldest first. Those of other names are none of ours."""
    return sorted(path for path in folder.iterdir() if SPOOLED.fullmatch(path.name) and _has_day(path))


def _has_day(path: Path) -> bool:
    try:
        return bool(day_of(path))
    except ValueError:
        return False


def day_of(path: Path) -> date:
    """The day (UTC) on which a file was spooled, by its name."""
    return datetime.strptime(path.name[:8], "%Y%m%d").replace(tzinfo=UTC).date()


def read_spooled(path: Path) -> list[Miss]:
    """The misses in a spooled file. Raises StoreError if it is damaged, OSError if it cannot be read."""
    try:
        content = json.loads(read_small(path))
        since, until = (datetime.fromisoformat(content[name]).astimezone(UTC) for name in ("since", "until"))
        return [_miss(query, count, since, until) for query, count in content["misses"]]
    except DAMAGE as exc:
        raise StoreError(f"{path} is damaged, so its misses are lost: {why_damaged(exc)}.") from exc


def _miss(query: str, count: int, since: datetime, until: datetime) -> Miss:
    query.encode()  # half a surrogate pair is not text
    if not 0 < count <= MOST_COUNT:
        raise ValueError(f"{count} is not a count")
    return Miss(query, count, since, until)


@dataclass(frozen=True, slots=True)
class Miss:
    """A query that clients asked for and did not find.

    query: the lookup key's columns and their values, as canonical JSON.
    count: how often it was asked for.
    first_seen: when at the earliest.
    last_seen: when at the latest.
    """

    query: str
    count: int
    first_seen: datetime
    last_seen: datetime
