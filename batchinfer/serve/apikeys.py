"""The API keys of the lookup service: 256 random bits each, of which only the SHA-256 is stored.

A slow password hash would be of no use for random secrets, and a way to overload the service.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batchinfer.core.files import DAMAGE, read_small, why_damaged, write_atomically
from batchinfer.core.locks import lock_in_turn
from batchinfer.errors import NotFound, StoreError, UsageError

FILE = "api-keys.json"
PREFIX = "bi"
UNSEEN = (0, 0, 0, 0)  # the signature of a file that cannot be looked at
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Record:
    """What is stored of a key. Revoked ones are stored too, for the record.

    id: its public part.
    sha256: of its secret part.
    name: whom or what it is for.
    jobs: the only ones it may ask for; None for all.
    created_at: when it was made, ISO 8601.
    revoked_at: when it was revoked.
    """

    id: str
    sha256: str
    name: str
    jobs: tuple[str, ...] | None
    created_at: str
    revoked_at: str | None = None

    @property
    def is_valid(self) -> bool:
        """Whether it was not revoked."""
        return self.revoked_at is None

    def fits(self, secret: str) -> bool:
        """Whether this is the key's secret, in constant time."""
        digest = hashlib.sha256(secret.encode(errors="replace")).hexdigest()
        return hmac.compare_digest(digest, self.sha256)

    def allows(self, job: str) -> bool:
        return self.jobs is None or job in self.jobs

    def to_json(self) -> dict[str, Any]:
        """What anybody may see of it."""
        return {name: value for name, value in asdict(self).items() if name != "sha256"}


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made, the only time that it is shown.

    record: what is stored of it.
    key: as clients send it.
    """

    record: Record
    key: str

    def to_json(self) -> dict[str, Any]:
        return {"id": self.record.id, "name": self.record.name, "jobs": self.record.jobs, "key": self.key}


@dataclass(frozen=True, slots=True)
class RevokedKey:
    """A key that was revoked, now or before.

    id: its public part.
    name: whom or what it was for.
    revoked_at: when, ISO 8601.
    left: how many keys there are that were not revoked.
    """

    id: str
    name: str
    revoked_at: str
    left: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class KeyFile:
    """The keys of a data folder."""

    def __init__(self, root: Path) -> None:
        self.path = root / FILE

    def signature(self) -> tuple[int, int, int, int] | None:
        """Changes when the file does, also where a copy of the same size was given the same time; None only without one."""
        try:
            facts = self.path.stat()
        except OSError:
            try:
                facts = self.path.lstat()  # of a link that leads nowhere
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError:  # there may be one: who reads it is told why it cannot be read
                return UNSEEN
        return facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size

    def read(self, *, missing_ok: bool = True) -> list[Record]:
        """All keys, revoked ones too. missing_ok: no file, no keys; but a link to none says that there are some. Raises StoreError."""
        try:
            return [_record(key) for key in json.loads(read_small(self.path))["keys"]]
        except FileNotFoundError as exc:
            if (target := _target(self.path)) is not None:
                raise StoreError(f"{self.path} leads to {target}, which is missing: restore that.") from exc
            if missing_ok:
                return []
            raise StoreError(f"{self.path} is missing.") from exc
        except OSError as exc:
            raise StoreError(
                f"{self.path} cannot be read: {exc.strerror}. The user who runs the service must own it."
            ) from exc
        except DAMAGE as exc:
            raise StoreError(
                f"{self.path} is damaged: {why_damaged(exc)}. Restore it, or remove it and make new keys."
            ) from exc

    def add(self, name: str, jobs: list[str] | None) -> NewKey:
        """Makes a key. The key itself is not stored. Raises UsageError for a name that another key has."""
        key_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        digest = hashlib.sha256(secret.encode()).hexdigest()
        record = Record(key_id, digest, name, tuple(jobs) if jobs else None, _now())
        with self._locked():
            records = self.read()
            _check_name(name, records)
            self._write([*records, record])
        return NewKey(record, f"{PREFIX}_{key_id}_{secret}")

    def revoke(self, named: str) -> RevokedKey:
        """Revokes a key by its id or its name, for good. Raises NotFound, or UsageError for a name of several keys."""
        with self._locked():
            records = self.read()
            found = self._named(named, records)
            revoked_at = found.revoked_at or _now()
            records = [replace(each, revoked_at=revoked_at) if each.id == found.id else each for each in records]
            self._write(records)
        return RevokedKey(found.id, found.name, revoked_at, sum(record.is_valid for record in records))

    def _named(self, named: str, records: list[Record]) -> Record:
        """The key of that id, or else the valid one of that name, or else the one of that name that was revoked last."""
        by_name = [record for record in records if record.name == named]
        found = (
            [record for record in records if record.id == named]
            or [record for record in by_name if record.is_valid]
            or sorted(by_name, key=lambda record: record.revoked_at or "")[-1:]
        )
        if not found:
            raise NotFound(f"There is no key {named} in {self.path.parent}", fix="batchinfer keys list names them.")
        if len(found) > 1:  # older versions allowed it
            ids = ", ".join(record.id for record in found)
            raise UsageError(f"There are {len(found)} keys with the name {named}: name one of them by its id: {ids}.")
        return found[0]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with lock_in_turn(self.path.with_suffix(".lock"), "batchinfer keys"):
            yield

    def _write(self, records: list[Record]) -> None:
        content = {"keys": [asdict(record) for record in records]}
        write_atomically(self.path, json.dumps(content, indent=2).encode(), mode=0o600)


def _check_name(name: str, records: list[Record]) -> None:
    """Raises UsageError for a name that could not tell which key is meant."""
    if any(name in (record.id, record.name if record.is_valid else None) for record in records):
        fix = f"choose another name, or revoke it first: batchinfer keys revoke {shlex.quote(name)}"
        raise UsageError(f"There is a key {name} already", fix=fix)


def _record(content: dict[str, Any]) -> Record:
    """A key's record. Raises ValueError, KeyError or TypeError for anything else."""
    jobs = content["jobs"]
    record = Record(**(content | {"jobs": None if jobs is None else tuple(jobs)}))
    texts = [record.id, record.sha256, record.name, record.created_at, record.revoked_at or "", *(record.jobs or ())]
    if isinstance(jobs, str) or not all(isinstance(text, str) for text in texts) or not SHA256.fullmatch(record.sha256):
        raise ValueError(f"{record.id!r} is not a key's record")
    return record


def _target(path: Path) -> str | None:
    """Where a link leads; None for what is no link, or none any more."""
    with contextlib.suppress(OSError):
        return str(path.readlink())
    return None


def split(key: str) -> tuple[str, str] | None:
    """(id, secret) of a key as a client sends it, or None for something else."""
    parts = key.split("_", 2)
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] == PREFIX else None  # noqa: PLR2004


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
