"""A run or a publishing from its beginning to its end: how it ended is noted for who watches the job, and told to who is to know."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchinfer.alerts.attempts import (
    AttemptEnd,
    AttemptStatus,
    LastAttempt,
    note_failure,
    read_attempt,
    read_success,
    write_attempt,
)
from batchinfer.alerts.desk import AlertDesk
from batchinfer.alerts.rules import AlertKind, AlertRule, missing_secrets, read_rules
from batchinfer.alerts.standing import StandingReader
from batchinfer.alerts.textfile import write_metrics_file
from batchinfer.core.home import JobData, job_names
from batchinfer.core.person import SaidNo
from batchinfer.core.records import Info
from batchinfer.core.signals import meant
from batchinfer.errors import BatchinferError, Busy, CutShort, GateFailed, Report, Stopped
from batchinfer.job.reader import Job

if TYPE_CHECKING:
    from batchinfer.pipeline.record import RunRecord


def alert_rules(job: Job) -> tuple[AlertRule, ...]:
    """The section alerts of a job file."""
    return read_rules(job.spec.model_dump(mode="json", by_alias=True)["alerts"])


def tell_missing_secrets(job: Job, environment: Mapping[str, str], info: Info) -> None:
    """Says whom nothing can be told as things are."""
    for sentence in missing_secrets(alert_rules(job), environment):
        info(f"alerts: {sentence}")


def tell_bad_job_file(root: Path, path: Path, error: BatchinferError, info: Info) -> None:
    """Tells that a run could not begin since the job file is wrong, by the rules that it had when it ran last; no program is started."""
    for name in job_names(root) if root.is_dir() else ():
        data = JobData(root, name)
        with contextlib.suppress(BatchinferError):
            if data.record().job_file == str(path):
                note_failure(data, _now(), _sentence(error))
                desk = AlertDesk(data, info)
                desk.look()
                desk.deliver()


class Attempt:
    """Enter `told` around all of a run or a publishing, and `going_on` as soon as it holds the job's run lock.

    record: of the run, once it has one.
    """

    def __init__(
        self, job: Job, data: JobData, info: Info, *, runs: bool = True, publishes: bool = True, silent: bool = False
    ) -> None:
        """runs: False for a publishing alone. publishes: False for a run that fills the cache only.

        silent: nothing is noted or told, since somebody tries the job.
        """
        self.record: RunRecord | None = None
        self._data, self._info, self._runs = data, info, runs
        self._clears = frozenset({AlertKind.FAILED} if runs else ()) | ({AlertKind.REFUSED} if publishes else set())
        self._began, self._rules = _now(), alert_rules(job)
        self._is_silent, self._is_noted = silent, False
        self._last: LastAttempt | None = None  # as it is noted
        if not silent:
            tell_missing_secrets(job, os.environ, info)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """At its end whoever is to know is told, which takes ten seconds at most, and changes nothing of how it ended."""
        try:
            yield
        except BaseException as exc:
            self._note(exc)
            self._tell(delivers=not _is_stop(exc))
            raise
        self._note(None)
        self._tell(delivers=True)

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Within the run lock: a run that was noted as going on, and does not hold it, died."""
        if not self._is_silent:
            self._begin(read_attempt(self._data, holds_lock=True))
            if self._runs:
                self._write()
        try:
            yield
        except BaseException as exc:
            self._note(meant(exc))
            raise
        self._note(None)

    def _begin(self, before: LastAttempt | None) -> None:
        if self._runs:
            begun = LastAttempt(AttemptStatus.RUNNING, self._began, rules=self._rules)
            self._last = begun if before is None else begun.after(before)
        else:
            self._last = None if before is None else before.under(self._rules)

    def _note(self, exc: BaseException | None) -> None:
        """How it ended, once."""
        status = _status(exc)
        if self._is_silent or self._is_noted or status is None:
            return
        if self._last is None:  # it did not come to hold the lock, or is the first of the job
            self._begin(read_attempt(self._data))
        said = "" if exc is None else _sentence(exc)
        if self._runs:
            self._note_run(status, said, self._report(exc))
        elif status in (AttemptStatus.DONE, AttemptStatus.REFUSED):
            self._note_publishing(status, said)

    def _note_run(self, status: AttemptStatus, said: str, report: Mapping[str, Any]) -> None:
        assert self._last is not None
        end = AttemptEnd(status, _now(), said, report.get("run_id"), read_success(self._data))
        self._last = self._last.ended(end, self._clears)
        self._is_noted = True
        self._write()
        if self._data.folder.is_dir():
            with contextlib.suppress(BatchinferError):
                write_metrics_file(self._data, StandingReader(self._data).read(), report)

    def _note_publishing(self, status: AttemptStatus, said: str) -> None:
        """Of a publishing alone, only what it says of the gate: the last run stays what it was."""
        self._is_noted = True
        if self._last is None and status is AttemptStatus.DONE:
            return
        last = self._last or LastAttempt(AttemptStatus.RUNNING, self._began, rules=self._rules)
        self._last = last.published(AttemptEnd(status, _now(), said), self._clears)
        self._write()

    def _report(self, exc: BaseException | None) -> Mapping[str, Any]:
        """Of the run, as far as it came to one."""
        report: Report | None = getattr(self.record, "report", None) or getattr(exc, "report", None)
        return {} if report is None else report.to_json()

    def _write(self) -> None:
        if self._last is None:
            return
        with contextlib.suppress(BatchinferError, OSError):  # a disk that is full ends the run for itself
            if self._rules:  # or a first run that fails each time would be told each time
                self._data.folder.mkdir(parents=True, exist_ok=True)
            if self._data.folder.is_dir():
                write_attempt(self._data, self._last)

    def _tell(self, *, delivers: bool) -> None:
        if not self._is_noted:
            return
        try:
            desk = AlertDesk(self._data, self._info, trusted={rule.key for rule in self._rules})
            desk.look(rules=self._rules, attempt=self._last)
            if delivers:
                desk.deliver()
        except KeyboardInterrupt:
            self._info("alerts: what was not told yet is told later.")
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with alerts, the run ended as it did
            self._info(f"alerts: they cannot be told: {_sentence(exc)}")


def _status(exc: BaseException | None) -> AttemptStatus | None:
    """None where something else held the job: nothing was attempted."""
    if exc is None:
        return AttemptStatus.DONE
    if isinstance(exc, Busy):
        return None
    if isinstance(exc, GateFailed):
        return AttemptStatus.REFUSED
    if isinstance(exc, SaidNo):
        return AttemptStatus.DECLINED
    return AttemptStatus.STOPPED if _is_stop(exc) else AttemptStatus.FAILED


def _is_stop(exc: BaseException) -> bool:
    """Whether somebody asked for the end, or a limit that they set."""
    if isinstance(exc, CutShort):
        return False
    return isinstance(exc, Stopped) or not isinstance(exc, Exception)


def _sentence(exc: BaseException) -> str:
    if isinstance(exc, BatchinferError):
        return exc.summary or str(exc)
    return f"an unforeseen {type(exc).__name__}: {exc}"


def _now() -> datetime:
    return datetime.now(UTC)
