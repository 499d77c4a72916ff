"""Who may ask what: API keys as `batchinfer keys` made them, added and revoked without a restart."""

from __future__ import annotations

import logging
from pathlib import Path

from batchinfer.errors import StoreError
from batchinfer.serve.apikeys import KeyFile, Record, split
from batchinfer.serve.problems import Problem

log = logging.getLogger("batchinfer.serve")
CHALLENGE = (("www-authenticate", "Bearer"),)


class Authenticator:
    """Checks keys. A key file that cannot be read lets nobody in who was not let in before.

    required: whether a key is needed at all; on loopback only once there is one.
    """

    def __init__(self, root: Path, *, always: bool, never: bool) -> None:
        """The keys are those of a data folder.

        always: keys are needed even if there are none, since the service can be reached from elsewhere.
        never: --no-auth.
        """
        self._file = KeyFile(root)
        self._never = never
        self.required = always and not never
        self._records: dict[str, Record] = {}
        self._seen: object = None
        self._problem: str | None = None

    def refresh(self) -> None:
        """Picks up what `batchinfer keys` changed."""
        seen = self._file.signature()
        if self._never:
            return
        if seen == self._seen:
            self._problem = None
            return
        try:
            records = self._file.read(missing_ok=self._seen is None)
        except StoreError as exc:
            self.required = True
            if str(exc) != self._problem:
                log.error("%s The keys known before stay in force.", exc)  # noqa: TRY400 - the sentence says it all
            self._problem = str(exc)
            return
        self._seen, self._problem = seen, None
        self._records = {record.id: record for record in records}
        self.required = self.required or bool(records)

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
