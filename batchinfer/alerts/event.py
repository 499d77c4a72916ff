"""What is told: an event of a job as JSON, in the form of Standard Webhooks, and the words of it for people."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from batchinfer.alerts.rules import AlertKind
from batchinfer.core.clock import iso
from batchinfer.core.keys import canonical_json

ID_DIGITS = 32  # of a hash


@dataclass(frozen=True, slots=True)
class AlertEvent:
    """Something about a job that somebody is told.

    job: its name.
    kind: what it is.
    version: that was published last; None if there is none.
    run_id: of the run that it is about; None where it is about none.
    since: since when it is so; UTC.
    said: a sentence about it.
    reminder: the number of the reminder; 0 where it is told for the first time.
    marker: what tells it from an earlier event of its kind.
    succeeded_at: when a run ended well last; UTC, None if none is known of.
    """

    job: str
    kind: AlertKind
    version: int | None
    run_id: int | None
    since: datetime
    said: str
    reminder: int
    marker: str
    succeeded_at: datetime | None

    @property
    def id(self) -> str:
        """The same wherever the event is noticed: who is told twice can drop it the second time."""
        parts = [self.job, self.version, self.kind, self.marker, self.reminder]
        return f"batchinfer_{hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:ID_DIGITS]}"

    @property
    def subject(self) -> str:
        """What it is, in a few words."""
        words = {
            AlertKind.FAILED: "run failed",
            AlertKind.REFUSED: "new version refused",
            AlertKind.STALE: "stale",
            AlertKind.RECOVERED: "well again",
        }
        return f"{self.job}: {'still: ' if self.reminder else ''}{words[self.kind]}"

    def body(self, at: datetime) -> str:
        """As JSON. at: when it is told."""
        data: dict[str, Any] = {
            "job": self.job, "event": self.kind, "subject": self.subject, "message": self.said, "version": self.version,
            "run_id": self.run_id, "since": iso(self.since), "reminder": self.reminder,
            "last_success_at": iso(self.succeeded_at),
        }  # fmt: skip
        return json.dumps({"type": f"job.{self.kind}", "timestamp": iso(at), "data": data}, ensure_ascii=False)
