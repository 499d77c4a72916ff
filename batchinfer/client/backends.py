"""The backend for a source: made, known until it is closed, and made whole again in the child of a fork."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Protocol

from batchinfer.client.local import REFRESHING, LocalBackend
from batchinfer.client.types import Backend
from batchinfer.core.home import check_job_name
from batchinfer.core.python_words import in_python
from batchinfer.errors import MissingExtra


class Forked(Protocol):
    """What has to be told that it is in the child of a fork, where no thread but the forking one is left."""

    def after_fork(self) -> None: ...


OPEN: weakref.WeakSet[Forked] = weakref.WeakSet()


@in_python
def open_backend(source: str | Path, job: str, *, key: str | None, timeout: float, retries: int) -> Backend:
    """The backend for the address of a service, or for a data folder. Raises UsageError, NotFound or StoreError."""
    check_job_name(job)
    backend: Backend = (
        _over_http(source, job, key, timeout, retries)
        if isinstance(source, str) and "://" in source
        else LocalBackend(Path(source), job)
    )
    OPEN.add(backend)
    return backend


def close_backend(backend: Backend) -> None:
    """Lets it go."""
    OPEN.discard(backend)
    backend.close()


def _over_http(url: str, job: str, key: str | None, timeout: float, retries: int) -> Backend:
    try:
        from batchinfer.client.http import HttpBackend
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("batchinfer"):
            raise
        raise MissingExtra("urllib3, which a Lookup over HTTP needs,", "client") from exc
    return HttpBackend(url, job, key=key, timeout=timeout, retries=retries)


def _after_fork() -> None:
    REFRESHING.release()
    for forked in list(OPEN):
        forked.after_fork()


os.register_at_fork(before=REFRESHING.acquire, after_in_parent=REFRESHING.release, after_in_child=_after_fork)
