"""The parts of a list that a server's batch API has: noted in the job's folder before they are waited for.

A part is noted when its file lies at the server, before the batch is made that is to be paid: whenever the run ends after that,
the next one finds the batch again.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from batchinfer.core.files import DAMAGE, os_errors, read_small, why_damaged, why_unread, write_atomically
from batchinfer.core.keys import short
from batchinfer.errors import StoreError

FOLDER = "batches"  # of the job's part of the data folder
LATE = timedelta(days=2)  # after which a batch that is to be done within one is waited for no more
KEPT = timedelta(days=30)  # for which servers keep what a batch came to


@dataclass(frozen=True, slots=True)
class BatchPart:
    """Prompts that were handed over together.

    server: the address of the API.
    model: what its requests call the model, or the adapter, that they ask.
    path: of the API, that they ask.
    file: the server's name of what was uploaded.
    keys: of the prompts, in hexadecimal digits.
    made: when its batch was, or its file while it has none, in UTC.
    batch: the server's name of the batch; None until it is known to be made.
    """

    server: str
    model: str
    path: str
    file: str
    keys: tuple[str, ...]
    made: str
    batch: str | None = None

    @property
    def is_late(self) -> bool:
        """Whether the server should have done it long ago."""
        return self._age > LATE

    @property
    def is_old(self) -> bool:
        """Whether the server need not have it any more."""
        return self._age > KEPT

    @property
    def _age(self) -> timedelta:
        return datetime.now(UTC) - datetime.fromisoformat(self.made)


class PartShelf:
    """The notes in a job's folder."""

    def __init__(self, folder: Path) -> None:
        """folder: of the notes; made with the first of them."""
        self._folder = folder

    def of(self, server: str, model: str, path: str) -> list[BatchPart]:
        """What a server has that such requests were made of, the oldest first; what it need not have any more is forgotten.

        Each key is in one part, the newest that has it: what it was handed over in before came to nothing for it.
        Raises StoreError for a note that cannot be read.
        """
        parts, taken = list[BatchPart](), set[str]()
        for part in sorted(map(_read, self._folder.glob("*.json")), key=lambda part: part.made, reverse=True):
            if part.is_old:
                self.drop(part)
            elif (part.server, part.model, part.path) == (server, model, path):
                parts.append(replace(part, keys=tuple(key for key in part.keys if key not in taken)))
                taken.update(part.keys)
        return [part for part in reversed(parts) if part.keys]

    def begin(self, server: str, model: str, path: str, file: str, keys: tuple[str, ...]) -> BatchPart:
        """Notes a part whose file was uploaded."""
        return self._keep(BatchPart(server, model, path, file, keys, datetime.now(UTC).isoformat()))

    def name_batch(self, part: BatchPart, batch: str) -> BatchPart:
        """Notes what the server calls the batch that it made of a part, and when: it may be long after its file was uploaded."""
        return self._keep(replace(part, batch=batch, made=datetime.now(UTC).isoformat()))

    def keep_rest(self, part: BatchPart, keys: Collection[str]) -> None:
        """Forgets a part but for these keys, that a later run may ask for."""
        if keys:
            self._keep(replace(part, keys=tuple(keys)))
        else:
            self.drop(part)

    def _keep(self, part: BatchPart) -> BatchPart:
        with os_errors(self._folder):
            self._folder.mkdir(exist_ok=True)
        write_atomically(self._path(part), json.dumps(asdict(part)).encode())
        return part

    def drop(self, part: BatchPart) -> None:
        """Forgets a part."""
        self._path(part).unlink(missing_ok=True)

    def _path(self, part: BatchPart) -> Path:
        return self._folder / f"{short(f'{part.server} {part.file}'.encode()).hex()}.json"


def _read(path: Path) -> BatchPart:
    try:
        content = json.loads(read_small(path))
        part = BatchPart(**content | {"keys": tuple(bytes.fromhex(key).hex() for key in content["keys"])})
        _ = part.is_old, part.model + part.path
    except OSError as exc:
        raise StoreError(f"{path} cannot be read: {why_unread(exc)}.") from exc
    except DAMAGE as exc:
        said = f"{path} cannot be read: {why_damaged(exc)}."
        raise StoreError(said, fix="Remove it: what it was about is asked, and paid, again.") from exc
    return part
