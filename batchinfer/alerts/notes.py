"""What a job's receivers were told, and what is still to be told them: alerts.json in the job's folder.

Who changes it holds alerts.lock for a moment. Where nothing can be written (a folder that is read-only, a disk that is full),
the process remembers for itself.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from batchinfer.alerts.attempts import moment
from batchinfer.alerts.rules import AlertKind, Receiver, receiver_key, receiver_of
from batchinfer.core.clock import iso
from batchinfer.core.files import read_small, why_damaged, why_unread, write_atomically
from batchinfer.core.home import JobData
from batchinfer.core.locks import lock_in_turn
from batchinfer.core.records import Info
from batchinfer.errors import BatchinferError

FORMAT = 1
PATIENCE_SECONDS = 2.0  # for others, who change the file in moments


@dataclass(frozen=True, slots=True)
class Told:
    """That a receiver was told of a trouble.

    kind: of the trouble.
    marker: what tells it from an earlier trouble of its kind.
    reminders: how many it had of it.
    """

    kind: AlertKind
    marker: str
    reminders: int = 0


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """An event that a receiver is still to be told.

    id: of the event.
    receiver: who is to be told.
    body: the event as JSON.
    made_at: when it was noticed; UTC.
    tries: how often it was sent without success.
    next_at: before then it is not tried again; UTC.
    said: why it could not be told last; empty before the first try.
    given_up: whether it is not tried any more.
    """

    id: str
    receiver: Receiver
    body: str
    made_at: datetime
    next_at: datetime
    tries: int = 0
    said: str = ""
    given_up: bool = False

    @property
    def key(self) -> str:
        """Stands for the receiver."""
        return receiver_key(self.receiver)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError, ValueError or AttributeError."""
        return cls(
            id=str(document["id"]), receiver=receiver_of(document["receiver"]), body=str(document["body"]),
            made_at=moment(document["made_at"]), next_at=moment(document["next_at"]), tries=int(document["tries"]),
            said=str(document["said"]), given_up=bool(document["given_up"]),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """As the file has it."""
        return {
            "id": self.id, "receiver": self.receiver.to_json(), "body": self.body, "made_at": iso(self.made_at),
            "next_at": iso(self.next_at), "tries": self.tries, "said": self.said, "given_up": self.given_up,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class AlertMemory:
    """What is known of a job's alerts.

    told: the troubles that each receiver knows of, by what stands for the receiver.
    pending: what is still to be told, the oldest first, and what was given up.
    doubted: a time from the future that files of the job have, and when it was met; None if there is none.
    """

    told: Mapping[str, tuple[Told, ...]] = field(default_factory=dict)
    pending: tuple[PendingAlert, ...] = ()
    doubted: tuple[datetime, datetime] | None = None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError, ValueError or AttributeError for a damaged one."""
        doubted = document.get("doubted")
        return cls(
            told={
                str(key): tuple(
                    Told(AlertKind(each["kind"]), str(each["marker"]), int(each["reminders"])) for each in told
                )
                for key, told in document["told"].items()
            },
            pending=tuple(PendingAlert.of(each) for each in document["pending"]),
            doubted=None if doubted is None else (moment(doubted[0]), moment(doubted[1])),
        )

    def to_json(self) -> dict[str, Any]:
        """As the file has it."""
        return {
            "format": FORMAT,
            "told": {key: [asdict(each) for each in told] for key, told in sorted(self.told.items())},
            "pending": [each.to_json() for each in self.pending],
            "doubted": None if self.doubted is None else [iso(each) for each in self.doubted],
        }


def without_messages(memory: AlertMemory) -> AlertMemory:
    """The same without the sentences of what is still to be told, which may quote anything."""
    return replace(memory, pending=tuple(replace(each, body=_without_message(each.body)) for each in memory.pending))


def _without_message(body: str) -> str:
    try:
        content = json.loads(body)
        content["data"]["message"] = "What was wrong is not told any more, since an entry of the job was erased."
        return json.dumps(content, ensure_ascii=False)
    except (ValueError, KeyError, TypeError):  # somebody else wrote it: then nothing of it stays
        return json.dumps({"data": {}})


class AlertNotes:
    """Reads and changes a job's alerts.json."""

    def __init__(self, data: JobData, info: Info) -> None:
        """info: told what is wrong with the file."""
        self._data, self._info = data, info
        self._path = data.folder / "alerts.json"
        self._own = _Own()
        self._said: set[str] = set()

    @property
    def is_there(self) -> bool:
        """Whether anything is known of alerts."""
        return self._own.memory is not None or self._path.exists()

    def read(self) -> AlertMemory:
        """As of now. A file that is damaged is said, and begun again by who changes it next."""
        return self._own.beside(self._file())

    def _file(self) -> AlertMemory:
        try:
            return AlertMemory.of(json.loads(read_small(self._path)))
        except FileNotFoundError:
            return AlertMemory()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            why = why_unread(exc) if isinstance(exc, OSError) else why_damaged(exc)
            self._say(f"{self._path} cannot be used: {why}. It is begun again: what was told may be told again.")
            return AlertMemory()

    def change(self, change: Callable[[AlertMemory], AlertMemory]) -> AlertMemory:
        """What is known after a change, which is written where that is possible. Raises nothing."""
        if self._data.folder.is_dir() and self._data.is_writable:
            try:
                with lock_in_turn(
                    self._data.folder / "alerts.lock", "noting alerts", info=_quiet, patience=PATIENCE_SECONDS
                ):
                    before = self.read()
                    return self._write(change(before), before)
            except BatchinferError as exc:
                self._say(f"{exc} Alerts are remembered by this process alone.")
        before = self.read()
        return self._own.remember(change(before), before)

    def _write(self, after: AlertMemory, before: AlertMemory) -> AlertMemory:
        if after != before or self._own.memory is not None:
            write_atomically(self._path, json.dumps(after.to_json(), indent=2, ensure_ascii=False).encode())
            self._own = _Own()
        return after

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            with contextlib.suppress(OSError):
                self._info(text)


class _Own:
    """What a process remembers that cannot write the file, beside what others write there.

    memory: what it knows; None as long as it had to remember nothing.
    """

    def __init__(self) -> None:
        self.memory: AlertMemory | None = None
        self._settled: set[tuple[str, str]] = set()  # what it has told, or dropped, by event and receiver
        self._from_file: set[tuple[str, str]] = set()

    def beside(self, file: AlertMemory) -> AlertMemory:
        """Both together: what others told meanwhile is not told again, nor what this process told."""
        there = {(each.id, each.key) for each in file.pending}
        gone, self._from_file = self._from_file - there, self._from_file | there
        if self.memory is None:
            return file
        own = [each for each in self.memory.pending if (each.id, each.key) not in gone]
        known = {(each.id, each.key) for each in own} | self._settled
        told = {
            key: _newest(file.told.get(key, ()), self.memory.told.get(key, ()))
            for key in {**file.told, **self.memory.told}
        }
        pending = (*(each for each in file.pending if (each.id, each.key) not in known), *own)
        return AlertMemory(told, pending, file.doubted or self.memory.doubted)

    def remember(self, after: AlertMemory, before: AlertMemory) -> AlertMemory:
        """Keeps what is known after a change."""
        left = {(each.id, each.key) for each in after.pending}
        self._settled |= {(each.id, each.key) for each in before.pending} - left
        self.memory = after
        return after


def _newest(ours: tuple[Told, ...], own: tuple[Told, ...]) -> tuple[Told, ...]:
    return tuple({each.kind: each for each in (*ours, *own)}.values())


def _quiet(_text: str) -> None:
    """A wait of moments is not worth a word."""
