"""Where adapters and merged models come to lie beside a job file: one command at a time, as drafts first, then in their place."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from batchinfer.core.files import os_errors
from batchinfer.core.home import JobData
from batchinfer.core.locks import lock
from batchinfer.errors import Busy

NAMED = 16  # digits of a digest that name a folder
DRAFT = ".draft-"


@contextlib.contextmanager
def alone(data: JobData) -> Iterator[None]:
    """One training or merge of a job at a time. Raises Busy."""
    with lock(data.folder / "finetune.lock", f"batchinfer finetune {data.name}") as holder:
        if holder is not None:
            raise Busy(f"An adapter of {data.name} is being trained or merged by {holder}: wait for it, or stop it.")
        yield


@contextlib.contextmanager
def drafted(place: Path) -> Iterator[Path]:
    """A folder for what is not finished, beside the finished ones in `place`. The caller is alone with them. Raises StoreError."""
    with os_errors(place):
        place.mkdir(exist_ok=True)
        for left in place.glob(f"{DRAFT}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=place))
        draft.chmod(0o755)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        with contextlib.suppress(OSError):
            place.rmdir()  # if there is nothing else in it


def keep(draft: Path, folder: Path) -> None:
    """Puts what is finished in its place. What was made before, all the same, stays. Raises StoreError."""
    with os_errors(folder):
        for path in draft.iterdir():
            path.chmod(0o644)  # safetensors lets nobody else read
        if not folder.exists():
            draft.rename(folder)
