"""Notices what is to be told of one job, and tells it: at the end of a run, and by whoever looks now and then."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from batchinfer.alerts.attempts import LastAttempt
from batchinfer.alerts.decision import decide
from batchinfer.alerts.delivery import ROUND_SECONDS, Send, after_round, due_alerts, send_all
from batchinfer.alerts.notes import AlertMemory, AlertNotes, PendingAlert
from batchinfer.alerts.rules import AlertRule, CommandReceiver, Receiver, receiver_key
from batchinfer.alerts.standing import StandingReader
from batchinfer.alerts.textfile import refresh_metrics_file
from batchinfer.core.home import JobData
from batchinfer.core.locks import lock
from batchinfer.core.records import Info
from batchinfer.errors import BatchinferError


class AlertDesk:
    """What one process does about one job's alerts.

    trusted: what stands for the receivers that job files name: only these are told. None where none are known: then all that
        the data folder names are, but no program is started, which whoever can write there could have put into it.
    """

    def __init__(
        self, data: JobData, info: Info, *, trusted: Collection[str] | None = None, send: Send | None = None
    ) -> None:
        """info: told what was told, and what could not be."""
        self.trusted = trusted
        self._lacking: set[str] = set()  # whose secrets are not there, and that was said
        self._data, self._info, self._send = data, info, send
        self._notes = AlertNotes(data, info)
        self._reader = StandingReader(data)

    def look(
        self, now: datetime | None = None, rules: Sequence[AlertRule] | None = None, attempt: LastAttempt | None = None
    ) -> None:
        """Notes what is to be told. now: in UTC.

        rules: of the job file; else those that the data folder has. attempt: the last run, where it could not be written.
        """
        standing = self._reader.read()
        with contextlib.suppress(BatchinferError):
            refresh_metrics_file(self._data, standing)
        if attempt is not None:
            standing = replace(standing, attempt=attempt)
        if standing.attempt is None and standing.published is None:
            return  # nothing can be read: who is to be told is not known
        rules = standing.rules if rules is None else rules
        at = now or datetime.now(UTC)

        def after(memory: AlertMemory) -> AlertMemory:
            return decide(memory, rules, standing, at, lambda rule: self._tells(rule.receiver))

        if (rules or self._notes.is_there) and after(known := self._notes.read()) != known:
            self._notes.change(after)

    def deliver(self, now: datetime | None = None, seconds: float | None = None) -> None:
        """Tells what is still to be told, unless another process is about that. Ends within so many seconds, and a little.

        seconds: ROUND_SECONDS unless given.
        """
        seconds = ROUND_SECONDS if seconds is None else seconds
        if not self._due(now):
            return
        if not (self._data.folder.is_dir() and self._data.is_writable):
            self._round(now, seconds)
            return
        try:
            with lock(self._data.folder / "alerts-sending.lock", "telling of alerts") as holder:
                if holder is None:
                    self._round(now, seconds)
        except BatchinferError:  # a disk that is full is a reason to tell somebody
            self._round(now, seconds)

    def _round(self, now: datetime | None, seconds: float) -> None:
        due = self._due(now)
        outcomes = send_all(due, seconds, self._send)
        self._notes.change(lambda memory: after_round(memory, outcomes, now or datetime.now(UTC)))
        for each in due:
            if (outcome := outcomes.get((each.id, each.key))) is not None:
                self._say(each, "was told" if outcome.delivered else "could not be told", outcome.said)

    def tries_of_due(self, now: datetime | None = None) -> int | None:
        """How often those who are to be told now were tried at least; None where nobody is."""
        return min((each.tries for each in self._due(now)), default=None)

    def _due(self, now: datetime | None) -> list[PendingAlert]:
        pending = [each for each in self._notes.read().pending if self._tells(each.receiver)]
        return due_alerts(pending, now or datetime.now(UTC))

    def _tells(self, receiver: Receiver) -> bool:
        """Whether this process tells a receiver: another may have the secret that this one lacks, so it must not use up its tries."""
        if (lacks := receiver.lacks(os.environ)) is not None:
            if receiver_key(receiver) not in self._lacking:
                self._lacking.add(receiver_key(receiver))
                self._info(f"{receiver.name} cannot be told of {self._data.name} by this process: {lacks}")
            return False
        if self.trusted is None:
            return not isinstance(receiver, CommandReceiver)
        return receiver_key(receiver) in self.trusted

    def _say(self, alert: PendingAlert, done: str, why: str) -> None:
        again = "" if done == "was told" else " It is tried again later."
        self._info(f"{alert.receiver.name} {done} of {self._data.name}{f': {why}' if why else '.'}{again}")
