"""Opens a published version and looks entries up. Imports neither duckdb nor pyarrow: it is what serving stands on."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from batchinfer.core.files import open_plain
from batchinfer.core.home import CALIBRATION
from batchinfer.core.open_file import DamagedFile, OpenFile
from batchinfer.errors import MissingExtra, StoreError, UsageError, counted
from batchinfer.match.matcher import Matcher
from batchinfer.match.version import MATCHER
from batchinfer.student.version import NewerStudent
from batchinfer.versions.entries import EntryFile
from batchinfer.versions.extents import Extents
from batchinfer.versions.layout import BESIDE_LOOKUPS, CHECKS, INDEX, LOOKUP, MANIFEST, STUDENT
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.query import QueryReader
from batchinfer.versions.student import MissAnswers
from batchinfer.versions.tree import NO_LIMIT

REMOVING_SECONDS = 0.5


def _share(handle: int, path: Path) -> None:
    """Keeps clean-up from removing a version while it is open. Raises FileNotFoundError for one that is being removed.

    Clean-up holds its lock for a moment and then the version is gone. Who goes on holding one is somebody else who can read
    the file: he cannot keep it from being served.
    """
    deadline = time.monotonic() + REMOVING_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        path.stat()
        time.sleep(0.01)


class Snapshot:
    """A version, opened for lookups. Any number of threads may ask it.

    left_out: its files that are damaged, and of which nothing is served, each with what is wrong, a sentence.
    """

    def __init__(self, folder: Path, *, digest: str | None = None) -> None:
        """digest: SHA-256 of the manifest, if known. Raises StoreError."""
        self.folder = folder
        self.left_out = dict[str, str]()
        self.manifest = Manifest.read(folder, digest=digest)
        self.reader = QueryReader(self.manifest.job, self.manifest.key, self.manifest.normalize)
        self._held_files = list[OpenFile]()
        path = folder / LOOKUP
        try:
            if path.stat().st_size != self.manifest.files[LOOKUP].size:
                raise StoreError(f"{path} is truncated or corrupt: its size differs from the manifest's.")
            self._hold(folder / MANIFEST)
            self._entries: EntryFile | None = EntryFile(path, self._held(CHECKS), self._extents())
        except (OSError, KeyError) as exc:
            raise StoreError(f"{path} cannot be opened: {exc}.") from exc
        self._matcher_file = self._open_matcher()

    def _held(self, name: str) -> bytes | None:
        """All of a small file, which is that of the manifest; None if the version has no such. Raises StoreError."""
        facts, path = self.manifest.files.get(name), self.folder / name
        if facts is None:
            return None
        try:
            file = OpenFile(path)
        except OSError as exc:
            raise StoreError(f"{path} is missing or cannot be read: {exc.strerror}.") from exc
        if file.size != facts.size:
            raise StoreError(f"{path} is truncated or corrupt: its size differs from the manifest's.")
        content = file.read(0, file.size)
        if hashlib.sha256(content).hexdigest() != facts.sha256:
            raise StoreError(f"{path} is damaged: its checksum differs from the manifest's.")
        self._held_files.append(file)
        return content

    def _extents(self) -> Extents | None:
        """Of its lookup file; None if it has none, or they are damaged: look-ups do without, in more time."""
        try:
            content = self._held(INDEX)
            return None if content is None else Extents.read(content, self.folder / INDEX)
        except StoreError as exc:
            self.left_out[INDEX] = str(exc)
            return None

    def _open_matcher(self) -> OpenFile | None:
        """Held from the start, so that the first match finds it wherever the folder is by then."""
        with contextlib.suppress(OSError):  # who asks for a match is told
            return OpenFile(self.folder / MATCHER) if self.matches else None
        return None

    def _hold(self, manifest: Path) -> None:
        """Takes a lock, shared with others, by which clean-up knows that the version is in use. Raises OSError."""
        handle = os.open(manifest, os.O_RDONLY | os.O_CLOEXEC)
        self._release = weakref.finalize(self, os.close, handle)
        _share(handle, manifest)

    @property
    def entries(self) -> EntryFile:
        """Its lookup file. Not to be asked for once it is closed."""
        assert self._entries is not None
        return self._entries

    def get(self, query: Mapping[str, Any]) -> bytes | None:
        """The body of a hit, as JSON, or None. Raises UsageError for a query that the lookup key does not fit."""
        return self.find(self.reader.lookup_hash(self.reader.from_values(query)))

    def find(self, lookup_hash: bytes, most: int = NO_LIMIT) -> bytes | None:
        """The same, by the 16 bytes of the lookup key. Raises DamagedFile rather than giving what publishing did not write.

        Raises LongEntry before a body of more than `most` bytes is read.
        """
        return self.entries.get(lookup_hash, most)

    def answer(self, query: Mapping[str, Any]) -> bytes | None:
        """The body of a hit, or on a miss what the student says, if the job wants that; None also if it abstains.

        Raises as `get` and `find`.
        """
        values = self.reader.from_values(query)
        body = self.find(self.reader.lookup_hash(values))
        return body if body is not None or self.on_miss is None else self.on_miss(values[0])

    def find_many(self, lookup_hashes: Iterable[bytes]) -> Iterator[bytes | None]:
        """The same for many, in their order, one by one: together they may be large."""
        return self.entries.get_many(lookup_hashes)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def is_suspect(self) -> bool:
        """Whether something in it was found damaged, or its files were written to, since it was opened."""
        matcher: Matcher | None = self.__dict__.get("matcher")
        suspect = self.entries.is_suspect or any(file.is_suspect for file in self._held_files)
        return suspect or (matcher is not None and matcher.is_suspect)

    def verify(self) -> None:
        """Compares every file's checksum with the manifest's. Raises StoreError."""
        for name in self.manifest.files:
            self._verify_file(name)
        self._verify_count()

    def verify_lookups(self) -> None:
        """The same, but leaves damaged files out that look-ups do not need. Raises StoreError."""
        for name in self.manifest.files:
            try:
                self._verify_file(name)
            except StoreError as exc:
                if name not in BESIDE_LOOKUPS:
                    raise
                self.left_out[name] = str(exc)
        self._verify_count()

    def _verify_file(self, name: str) -> None:
        """Raises StoreError."""
        try:
            with open_plain(self.folder / name) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as exc:
            raise StoreError(f"{self.folder / name} is missing or cannot be read: {exc.strerror}.") from exc
        if digest != self.manifest.files[name].sha256:
            raise StoreError(f"{self.folder / name} is damaged: its checksum differs from the manifest's.")

    def _verify_count(self) -> None:
        """Raises StoreError."""
        if len(self) != self.manifest.rows:
            raise StoreError(
                f"{self.folder / LOOKUP} holds {counted(len(self), 'entry', 'entries')}, the manifest says {self.manifest.rows:,}."
            )

    def probe(self) -> None:
        """Reads an entry, if there is one. Raises StoreError."""
        try:
            body = self.entries.first()
            readable = body is None or json.loads(body).keys() >= {"job", "prediction"}
        except (ValueError, AttributeError) as exc:
            raise StoreError(f"{self.folder / LOOKUP} cannot be read: {exc}.") from exc
        if not readable:
            raise StoreError(f"{self.folder / LOOKUP} holds something other than predictions.")

    @cached_property
    def matcher(self) -> Matcher:
        """The version's matcher, opened when it is first used.

        Raises UsageError for a version that has none, StoreError for one that is damaged, MissingExtra.
        """
        if not self.matches:
            raise UsageError(f"The job {self.manifest.job} has no match section, so there are no terms to find.")
        if MATCHER in self.left_out:
            raise DamagedFile(self.left_out[MATCHER])
        return Matcher(self.folder / MATCHER, self._matcher_file)

    @property
    def matches(self) -> bool:
        """Whether the version has a matcher."""
        return self.manifest.has_matcher

    @cached_property
    def student(self) -> MissAnswers | None:
        """The version's student, opened when it is first wanted; None for a version that has none.

        Raises StoreError for one that is damaged, NewerStudent, MissingExtra.
        """
        manifest, key = self.manifest, self.manifest.key
        if STUDENT not in manifest.files or len(key) != 1 or key[0].kind != "string":
            return None
        if STUDENT in self.left_out:
            raise DamagedFile(self.left_out[STUDENT])
        calibrated = CALIBRATION in manifest.files
        return MissAnswers.open(self.folder, manifest.job, key[0].name, manifest.version, calibrated=calibrated)

    @cached_property
    def on_miss(self) -> MissAnswers | None:
        """What is asked on a miss; None where the job does not want that, or `student_fault` says why it cannot be."""
        return self.student if self.manifest.spec.asks_student and self.student_fault is None else None

    @cached_property
    def student_fault(self) -> str | None:
        """Why a student that the job wants to be asked cannot be, a sentence."""
        try:
            _ = self.manifest.spec.asks_student and self.student
        except (StoreError, NewerStudent, MissingExtra) as exc:
            return str(exc)
        return None

    @property
    def number(self) -> int:
        """Its number among the versions, by its folder's name. Raises ValueError for a candidate, which has none."""
        return int(self.folder.name)

    def close(self) -> None:
        """Releases the version. One that is not closed is released with its last reference."""
        self._entries = self._matcher_file = None
        self._held_files = []
        self.__dict__.pop("matcher", None)
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
