"""What people are told once, whatever they do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from batchinfer.cli.terminal import tell_dimly

if TYPE_CHECKING:
    from batchinfer.job.reader import Job


def model_note(job: Job, *, as_json: bool) -> None:
    """Tells people once that the bundled model is a small one, whatever the job; machines never."""
    from batchinfer.engines.bundled import NAME, NOTICE, PREFIX, noted_file

    model, noted = job.spec.model, noted_file()
    if as_json or model is None or model.id != PREFIX + NAME or noted.exists():
        return
    tell_dimly(NOTICE)
    with contextlib.suppress(OSError):  # without such a folder it is told again
        noted.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        noted.touch()
