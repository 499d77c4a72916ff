"""All errors that a person is meant to read, as one tree. Each has the exit code of the command line's contract.

BatchinferError (1)
├── UsageError (2)          bad usage
│   ├── NotConfirmed        what was asked first was not agreed to
│   └── MissingExtra        a part that is not installed; names the extra
├── SpecError (2)           the job file is invalid; lists every problem with its place
├── InputError (2)          the query list cannot be used at all
├── ModelError (2)          the model cannot be found, loaded or used for this job
├── NotFound (1)            nothing is stored or served under that name
├── StoreError (1)          the data folder or a file in it cannot be used
├── GateFailed (3)          a candidate did not pass its checks
├── Stopped (4)             the run ended before its work did; it can be resumed
│   └── Interrupted (130)   the same, by Ctrl-C
└── Busy (5)                another process holds what this one needs
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol


class Report(Protocol):
    """What a command has to say beside its error."""

    def to_json(self) -> dict[str, Any]: ...


class BatchinferError(Exception):
    """Base of all errors that a person is meant to read: one sentence, no traceback.

    report: what was done before it, where a command has a result anyway.
    """

    exit_code = 1
    report: Report | None = None


class UsageError(BatchinferError):
    """Bad usage: arguments, options or values that make no sense here."""

    exit_code = 2


class NotConfirmed(UsageError):
    """A person did not agree to what was asked first, or nobody was there to ask."""


class MissingExtra(UsageError):
    """A part of batchinfer that is not installed."""

    def __init__(self, what: str, extra: str | None = None) -> None:
        """extra: the one to install; without it, one of the two that bring an engine."""
        advice = (
            "pip install 'batchinfer-cache[vllm]' on a machine with a GPU, 'batchinfer-cache[cpu]' on one without."
            if extra is None
            else f"pip install 'batchinfer-cache[{extra}]'."
        )
        super().__init__(f"{what} is not installed: {advice}")


class SpecError(BatchinferError):
    """The job file is invalid; `problems` holds one sentence for each fault."""

    exit_code = 2

    def __init__(self, path: str, problems: list[str]) -> None:
        self.problems = problems
        head = f"{path} has {len(problems)} problem{'s' if len(problems) != 1 else ''}:"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in problems)]))


class InputError(BatchinferError):
    """The query list, or another input file, cannot be used at all."""

    exit_code = 2


class ModelError(BatchinferError):
    """The model cannot be found, loaded or used for this job."""

    exit_code = 2


class NotFound(BatchinferError):
    """Nothing is stored or served under that name."""


class StoreError(BatchinferError):
    """The data folder, or a file in it, cannot be used."""


class GateFailed(BatchinferError):
    """A candidate did not pass its checks; what was served before still is."""

    exit_code = 3


class Stopped(BatchinferError):
    """The run ended before its work did; the next run goes on from there."""

    exit_code = 4


class Interrupted(Stopped):
    """The run was stopped by Ctrl-C."""

    exit_code = 130


class Busy(BatchinferError):
    """Another process holds what this one needs."""

    exit_code = 5


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The question whether the closest known name was meant; None if none is close."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}?" if near else None


def shortened(text: str, most: int = 60) -> str:
    """A text that a sentence can hold, and that can be written anywhere."""
    text = text.encode(errors="replace").decode()
    return text if len(text) <= most else f"{text[: most - 1]}…"
