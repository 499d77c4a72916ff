"""All errors that a person is meant to read, as one tree. Each has the exit code of the command line's contract.

BatchinferError (1)
├── UsageError (2)          bad usage
│   ├── NotConfirmed        what was asked first was not agreed to
│   └── MissingExtra        a part that is not installed; names the extra
├── SpecError (2)           the job file is invalid; lists every problem with its place
├── InputError (2)          the query list cannot be used at all
├── ModelError (2)          the model cannot be found, loaded or used for this job
├── NotFound (6)            nothing is stored or served under that name
│   └── NotPublished        the job is known, and has no version yet
├── StoreError (1)          the data folder or a file in it cannot be used
├── TooFewVerdicts (1)      people have judged too little for anything to be learned of it
├── TooFewRows (1)          there are too few answers for anything to be learned of them
├── GateFailed (3)          a candidate did not pass its checks
├── Stopped (4)             the run ended before its work did; it can be resumed
│   └── Interrupted (130)   the same, by Ctrl-C
└── Busy (5)                another process holds what this one needs
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, ClassVar, Protocol, Self


class ExitCode(IntEnum):
    """The exit codes of the command line, for all commands."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    STOPPED = 4
    BUSY = 5
    NOT_FOUND = 6
    INTERRUPTED = 130


class Report(Protocol):
    """What a command has to say beside its error."""

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class FileProblem:
    """What is wrong at one place of a file.

    file: its path.
    message: what it is.
    line: of a text, from 1; None if it is of no line.
    row: of a Parquet file, from 1.
    """

    file: str
    message: str
    line: int | None = None
    row: int | None = None

    @property
    def place(self) -> str:
        """The line or row in words; empty for the file as a whole."""
        if self.row is not None:
            return f"row {self.row}"
        return "" if self.line is None else f"line {self.line}"

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message

    def to_json(self) -> dict[str, Any]:
        """With `line` or `row`, whichever it has."""
        places = {name: place for name, place in (("line", self.line), ("row", self.row)) if place is not None}
        return {"file": self.file, **places, "message": self.message}


class BatchinferError(Exception):
    """Base of all errors that a person is meant to read: one sentence, no traceback.

    exit_code: what the command ends with.
    advice: what helps against most errors of the kind, where the sentence does not say it better.
    report: what was done before it, where a command has a result anyway.
    field: of the job file, that is to blame; None if none is, or once the message says where it is.
    summary: one sentence, where the message lists places of files.
    listed: those places, or the first of them.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED
    advice: str = "Fix what the message names, then run the command again."
    report: Report | None = None
    field: Sequence[str | int] | None = None
    summary: str | None = None
    listed: Sequence[FileProblem] = ()

    def __init__(self, message: str, *, fix: str | None = None, field: Sequence[str | int] | None = None) -> None:
        """fix: what to do, which follows the message after a colon; as a sentence of its own, if the message ends in a full stop."""
        ends = message.endswith(".")
        super().__init__(message if fix is None else f"{message} {_begun(fix)}" if ends else f"{message}: {fix}")
        self._message, self._fix, self.field = message, fix, field

    def listing(self, summary: str, places: Sequence[FileProblem], fix: str | None = None) -> Self:
        """The same error, with a sentence, places, and what to do for machines."""
        self.summary, self.listed, self._fix = summary, places, fix
        return self

    def placed(self, path: str, sentence: str, line: int) -> Self:
        """An error of the same kind that says where in a job file it comes from."""
        problem = FileProblem(path, sentence, line)
        said = f"{path}: {problem}"
        return type(self)(said).listing(said, [problem], self._fix)

    def reword(self, change: Callable[[str], str]) -> None:
        """Changes each of its sentences."""
        self.args = (change(str(self)),)
        self._message, self.advice = change(self._message), change(self.advice)
        self._fix = None if self._fix is None else change(self._fix)
        self.summary = None if self.summary is None else change(self.summary)
        self.listed = [replace(problem, message=change(problem.message)) for problem in self.listed]

    @property
    def fix(self) -> str:
        """What to do, a sentence."""
        return _begun(self._fix or self.advice)

    @classmethod
    def code(cls) -> str:
        """The kind of error as machines read it, such as not_found: the nearest class of this tree."""
        name = next(kind.__name__ for kind in cls.__mro__ if kind.__module__ == __name__)
        return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()

    def to_json(self) -> dict[str, Any]:
        """The error as `--json` prints it."""
        message = str(self) if self._fix is None else f"{self._message.removesuffix('.')}."
        found = error_json(self.code(), self.summary or message, self.fix, self.exit_code)
        if self.listed:
            found["error"]["problems"] = [problem.to_json() for problem in self.listed]
        return found


def _begun(sentence: str) -> str:
    """A sentence that stood after a colon; the name of the command stays as it is typed."""
    return sentence if sentence.startswith("batchinfer ") else sentence[:1].upper() + sentence[1:]


def error_json(code: str, message: str, fix: str, exit_code: int) -> dict[str, Any]:
    """What `--json` prints of an error."""
    return {"error": {"code": code, "message": message, "fix": fix, "exit_code": int(exit_code)}}


class UsageError(BatchinferError):
    """Bad usage: arguments, options or values that make no sense here."""

    exit_code = ExitCode.USAGE
    advice = "Correct the arguments; the command's --help explains them."


class NotConfirmed(UsageError):
    """A person did not agree to what was asked first, or nobody was there to ask."""

    advice = "Run the command again to answer otherwise, or with --yes."


class MissingExtra(UsageError):
    """A part of batchinfer that is not installed."""

    def __init__(self, what: str, extra: str | None = None) -> None:
        """extra: the one to install; without it, one of those that bring an engine."""
        advice = (
            "pip install 'batchinfer-cache[vllm]' on a machine with a GPU, 'batchinfer-cache[cpu]' on one without, "
            "'batchinfer-cache[openai]' to ask a server (engine.kind)."
            if extra is None
            else f"pip install 'batchinfer-cache[{extra}]'."
        )
        super().__init__(f"{what} is not installed", fix=advice)


class SpecError(BatchinferError):
    """The job file is invalid; `problems` holds one sentence for each fault."""

    exit_code = ExitCode.USAGE
    advice = "Correct the job file where the message says."

    def __init__(self, path: str, problems: Sequence[str], lines: Sequence[int] = ()) -> None:
        """lines: of the problems in the file, where they are known."""
        places: Sequence[int | None] = lines or [None] * len(problems)
        self.listed = [FileProblem(path, said, line) for said, line in zip(problems, places, strict=True)]
        self.problems = [str(problem) for problem in self.listed]
        head = f"{path} has {counted(len(problems), 'problem')}"
        self.summary = f"{head}." if len(problems) > 1 else f"{path}: {self.problems[0]}"
        super().__init__("\n".join([f"{head}:", *(f"  {problem}" for problem in self.problems)]))

    def is_placed(self, path: str) -> bool:
        """Whether lines of its problems are known, or it is about another file than this one."""
        return any(problem.line is not None or problem.file != path for problem in self.listed)


class InputError(BatchinferError):
    """The query list, or another input file, cannot be used at all."""

    exit_code = ExitCode.USAGE
    advice = "Correct the file that the message names."


class ModelError(BatchinferError):
    """The model cannot be found, loaded or used for this job."""

    exit_code = ExitCode.USAGE
    advice = "Check the model section of the job file; batchinfer doctor JOB says what is missing."


class NotFound(BatchinferError):
    """Nothing is stored or served under that name."""

    exit_code = ExitCode.NOT_FOUND
    advice = "Check the names and the data folder."


class NotPublished(NotFound):
    """The job is known, and has no version yet."""

    advice = "Publish a first version with batchinfer run, or check the data folder."


class StoreError(BatchinferError):
    """The data folder, or a file in it, cannot be used."""

    advice = "Fix the file or folder that the message names, then run the command again."


class TooFewVerdicts(BatchinferError):
    """People have judged too little for anything to be learned of it."""

    advice = "Write a review, mark and import it, then run the command again."


class TooFewRows(BatchinferError):
    """There are too few answers for anything to be learned of them."""

    advice = "Let the list grow, or its run end, then run the command again."


class GateFailed(BatchinferError):
    """A candidate did not pass its checks; what was served before still is."""

    exit_code = ExitCode.REFUSED
    advice = "Look at the failed checks; then correct the list, the prompt or the gate."


class Stopped(BatchinferError):
    """The run ended before its work did; the next run goes on from there."""

    exit_code = ExitCode.STOPPED
    advice = "Run the same command again: it goes on from there."


class CutShort(Stopped):
    """The run ended before its work did, and nobody had asked it to."""


class Interrupted(Stopped):
    """The run was stopped by Ctrl-C."""

    exit_code = ExitCode.INTERRUPTED


class Busy(BatchinferError):
    """Another process holds what this one needs."""

    exit_code = ExitCode.BUSY
    advice = "Wait for the other process, or stop it."


def without_frames(error: UsageError) -> UsageError:
    """An error that is handed on rather than raised, without the frames it came through.

    Those hold the list that it goes into: a circle, left to the collector, which stops the whole process for it.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The question whether the closest known name was meant; None if none is close."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}?" if near else None


def shortened(text: str, most: int = 60) -> str:
    """A text that a sentence can hold, and that can be written anywhere."""
    text = text.encode(errors="replace").decode()
    return text if len(text) <= most else f"{text[: most - 1]}…"


def counted(count: int, what: str, several: str | None = None) -> str:
    """How many of a thing there are, such as 1 row or 2,000 rows. several: its plural, if that is not with an s."""
    return f"{count:,} {what if count == 1 else several or f'{what}s'}"
