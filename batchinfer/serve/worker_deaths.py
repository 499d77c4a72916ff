"""What the main process tells its workers of those that died: a file in the server's run folder."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from batchinfer.core.files import UNREAD, read_small

FILE = "workers.json"


@dataclass(frozen=True, slots=True)
class WorkerDeaths:
    """What the main process tells of workers that died.

    deaths: how many have since the start.
    waits: until when each that died young is held back, in seconds since 1970, by its number.
    """

    deaths: int = 0
    waits: dict[str, float] | None = None

    @property
    def held_back(self) -> int:
        """How many workers wait before they serve again."""
        return sum(until > time.time() for until in (self.waits or {}).values())

    @classmethod
    def read(cls, folder: Path) -> WorkerDeaths:
        try:
            content = json.loads(read_small(folder / FILE))
            waits = {str(number): float(until) for number, until in (content["waits"] or {}).items()}
            return cls(int(content["deaths"]), waits or None)
        except UNREAD:
            return cls()

    def write(self, folder: Path) -> None:
        """Raises OSError."""
        draft = folder / f".{FILE}"
        draft.write_text(json.dumps(asdict(self)), encoding="utf-8")
        draft.replace(folder / FILE)
