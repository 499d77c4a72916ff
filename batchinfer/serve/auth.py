"""Who may ask what: API keys as `batchinfer keys` made them, added and revoked without a restart."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from batchinfer.errors import StoreError
from batchinfer.serve.apikeys import KeyFile, Record, split
from batchinfer.serve.problems import Problem

log = logging.getLogger("batchinfer.serve")
CHALLENGE = (("www-authenticate", "Bearer"),)


LOOK_SECONDS = 0.5  # between two looks of the main process at the key file
MARK = "keys-required"


class Latch:
    """Whether a service requires keys. It begins to when the first key appears, and never stops before a restart.

    The main process holds it and hands it to each worker that it starts, so that a worker that starts while the key
    file is missing knows that there were keys. Whoever closes it leaves a mark for the others, who may not have seen the
    key: it can be gone again before they look.

    never: nobody needs a key, whatever there is.
    closed: whether keys are required.
    """

    def __init__(self, *, always: bool = False, never: bool = False) -> None:
        """always: keys are required from the start, also if there are none."""
        self.never = never
        self.closed = always and not never
        self._mark: Path | None = None

    def share(self, folder: Path) -> None:
        """Before it is handed to workers. folder: of the server alone, for the mark."""
        self._mark = folder / MARK

    def close(self) -> None:
        if self.never or self.closed:
            return
        self.closed = True
        if self._mark is not None:
            with contextlib.suppress(OSError):  # then each process has to see the key for itself
                self._mark.touch()

    def join(self) -> None:
        """Closes it if another process did."""
        if not self.closed and self._mark is not None:
            with contextlib.suppress(OSError):
                if self._mark.exists():
                    self.close()

    def look(self, file: KeyFile) -> None:
        """Closes it if there is a key, or a file that cannot be read: it may hold some."""
        self.join()
        try:
            if file.read():
                self.close()
        except StoreError:
            self.close()


@contextlib.contextmanager
def watching(latch: Latch, root: Path) -> Iterator[None]:
    """Looks for the first key, now and beside what the process does, until that ends."""
    file, ended = KeyFile(root), threading.Event()
    latch.look(file)

    def watch() -> None:
        while not latch.closed and not ended.wait(LOOK_SECONDS):
            latch.look(file)

    if not (latch.closed or latch.never):
        threading.Thread(target=watch, name="batchinfer-keys", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


class Authenticator:
    """Checks keys. A key file that cannot be read lets nobody in who was not let in before."""

    def __init__(self, root: Path, latch: Latch) -> None:
        """The keys are those of a data folder."""
        self._file = KeyFile(root)
        self._latch = latch
        self._records: dict[str, Record] = {}
        self._seen: object = None
        self._problem: str | None = None

    def refresh(self) -> None:
        """Picks up what `batchinfer keys` changed."""
        if self._latch.never:
            return
        self._latch.join()
        seen = self._file.signature()
        if seen == self._seen:
            self._problem = None
            return
        try:
            records = self._file.read(missing_ok=self._seen is None)
        except StoreError as exc:
            self._latch.close()
            if str(exc) != self._problem:
                log.error("%s The keys known before stay in force.", exc)  # noqa: TRY400 - the sentence says it all
            self._problem = str(exc)
            return
        self._seen, self._problem = seen, None
        self._records = {record.id: record for record in records}
        if records:
            self._latch.close()

    @property
    def required(self) -> bool:
        """Whether a key is needed at all."""
        return self._latch.closed

    def check(self, authorization: str | None, job: str | None) -> Record | None:
        """The key that a request brings in its header of that name.

        job: the one it asks for, or None for what concerns all. Raises Problem.
        """
        if not self.required:
            return None
        parts = bearer_key(authorization)
        if parts is None:
            raise Problem(
                "no-key", "Send the header Authorization: Bearer bi_…, with a key from batchinfer keys add.", CHALLENGE
            )
        record = self._records.get(parts[0])
        if record is None or not record.fits(parts[1]) or record.revoked_at is not None:
            raise Problem("no-key", "The API key is wrong, or was revoked.", CHALLENGE)
        if job is not None and not record.allows(job):
            raise Problem("forbidden", f"The API key {record.id} may not ask for the job {job}.")
        return record


def bearer_key(authorization: str | None) -> tuple[str, str] | None:
    """(id, secret) of the key that a header holds, right or wrong, or None without one."""
    scheme, _, token = (authorization or "").partition(" ")
    return split(token.strip()) if scheme.lower() == "bearer" else None
