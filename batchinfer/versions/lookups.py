"""How many look-ups services answered, by version: a small file beside the job for each server."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from batchinfer.core.files import DAMAGE, read_small
from batchinfer.core.home import JobData
from batchinfer.versions.checked import checked_count

COUNTED = ("hits", "student_answers")  # counters of a worker that are answers to look-ups
Totals = dict[str, int]  # answers of each worker, by what its file is called


@dataclass(frozen=True, slots=True)
class ServedVersions:
    """What one server counted of a job.

    run: which start of the server the totals are of.
    seen: totals of that start that are counted already.
    versions: answers by version, of all starts.
    """

    run: str
    seen: Totals
    versions: dict[int, int]

    @classmethod
    def read(cls, path: Path, run: str, seen: Mapping[str, int] = MappingProxyType({})) -> ServedVersions:
        """Of a file; from another start of the server, its totals begin again. A damaged one counts nothing.

        seen: totals that are not to be counted where there is no file. Raises OSError for one that is there and cannot be read.
        """
        try:
            document = json.loads(read_small(path))
            versions = {int(version): checked_count(count) for version, count in document["versions"].items()}
            before = {str(name): checked_count(count) for name, count in document["seen"].items()}
            return cls(run, before if document["run"] == run else {}, versions)
        except FileNotFoundError:
            return cls(run, dict(seen), {})
        except DAMAGE:
            return cls(run, dict(seen), {})

    def plus(self, version: int, totals: Mapping[str, int]) -> ServedVersions:
        """With what was answered since, which is counted to a version. A worker whose total went back began again."""
        new = 0
        for worker, total in totals.items():
            before = self.seen.get(worker, 0)
            new += total - before if total >= before else total
        versions = self.versions | {version: self.versions.get(version, 0) + new}
        return ServedVersions(self.run, {**self.seen, **totals}, versions)

    def to_bytes(self) -> bytes:
        return json.dumps({"run": self.run, "seen": self.seen, "versions": self.versions}).encode()


def read_lookups(data: JobData) -> dict[int, int]:
    """Look-ups that were answered over HTTP, by version. A file that is damaged, or cannot be read, counts nothing."""
    counts: Counter[int] = Counter()
    with contextlib.suppress(OSError):
        for path in data.served.glob("*.json"):
            with contextlib.suppress(OSError):
                counts.update(ServedVersions.read(path, "").versions)
    return dict(counts)
