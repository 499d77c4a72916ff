"""A round of telling: each receiver what it is still to be told, the oldest first, all receivers at once, within a time.

Each try is a process of its own, which is ended with all that it started when the time is over: nothing that a receiver can do (a
name that does not resolve, a handshake that hangs, a reply that trickles) holds anybody up.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

from batchinfer.alerts.notes import AlertMemory, PendingAlert
from batchinfer.alerts.outcome import Outcome
from batchinfer.core.own_process import command_of

ROUND_SECONDS = 6.0  # for all receivers together; a run may be held up for ten
MOST_AT_ONCE = 8  # receivers
FIRST_WAIT, LONGEST_WAIT = timedelta(minutes=1), timedelta(hours=6)  # between two tries
REFUSED_FOR = timedelta(days=3)  # after which what a receiver refuses is given up
TRIED_FOR = timedelta(days=14)  # after which anything is
LEAST_TRIES = 5  # before anything is given up: a clock may have gone ahead by years
KEPT_FOR = timedelta(days=30)  # that what was given up is still shown

Send = Callable[[PendingAlert, float], Outcome]
Outcomes = Mapping[tuple[str, str], Outcome]  # by an event's id and the key of its receiver


def due_alerts(pending: Iterable[PendingAlert], now: datetime) -> list[PendingAlert]:
    """Those to be tried now: a receiver that is left alone for a while is left alone for all of them."""
    waiting: set[str] = set()
    due = list[PendingAlert]()
    for each in pending:
        if each.given_up or each.key in waiting:
            continue
        if now < each.next_at <= now + LONGEST_WAIT:  # what is later was noted under a clock that went ahead
            waiting.add(each.key)
        else:
            due.append(each)
    return due


def send_all(due: Sequence[PendingAlert], seconds: float, send: Send | None = None) -> Outcomes:
    """What came of each that was tried: a receiver that cannot be told one thing is not told the next. Ends within the time."""
    send = send or send_apart
    deadline = time.monotonic() + seconds
    by_receiver: dict[str, list[PendingAlert]] = {}
    for each in due:
        by_receiver.setdefault(each.key, []).append(each)
    outcomes: dict[tuple[str, str], Outcome] = {}

    def tell(alerts: Sequence[PendingAlert]) -> None:
        for alert in alerts:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            outcome = outcomes[alert.id, alert.key] = send(alert, left)
            if not outcome.delivered:
                return

    with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="batchinfer-alerts") as threads:
        # Those that hang come last: they must not keep others waiting for ever.
        list(threads.map(tell, sorted(by_receiver.values(), key=lambda alerts: alerts[0].tries)))
    return outcomes


def send_apart(alert: PendingAlert, seconds: float) -> Outcome:
    """One try, in a process of its own that is ended after so many seconds."""
    wanted = {"id": alert.id, "receiver": alert.receiver.to_json(), "body": alert.body, "seconds": seconds}
    command = command_of("batchinfer.alerts.postman")
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as exc:
        return Outcome(said=f"nothing can be sent: {exc.strerror}.")
    try:
        printed, _ = process.communicate(json.dumps(wanted).encode(), timeout=seconds)
        return Outcome.of(json.loads(printed))
    except subprocess.TimeoutExpired:
        return Outcome(said=f"it did not take it within {seconds:.0f} s.")
    except (OSError, ValueError, KeyError, TypeError):
        return Outcome(said="the process that was to tell it died.")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what a command left behind, too
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def after_round(memory: AlertMemory, outcomes: Outcomes, now: datetime) -> AlertMemory:
    """What is known after a round: what was delivered goes, and the rest is tried again, ever more rarely."""
    told = {key for (_, key), outcome in outcomes.items() if outcome.delivered}
    kept = list[PendingAlert]()
    for each in memory.pending:
        outcome = outcomes.get((each.id, each.key))
        if outcome is not None and outcome.delivered:
            continue
        if each.given_up and (each.key in told or not timedelta() <= now - each.made_at < KEPT_FOR):
            continue
        kept.append(each if outcome is None else _tried(each, outcome, now))
    return replace(memory, pending=tuple(kept))


def _tried(alert: PendingAlert, outcome: Outcome, now: datetime) -> PendingAlert:
    """The same after a try that failed."""
    wait = min(FIRST_WAIT * 2 ** min(alert.tries, 16), LONGEST_WAIT)
    wait = max(wait, min(timedelta(seconds=outcome.wait), LONGEST_WAIT))
    is_long = now - alert.made_at >= (REFUSED_FOR if outcome.lasting else TRIED_FOR)
    given_up = is_long and alert.tries + 1 >= LEAST_TRIES
    return replace(alert, tries=alert.tries + 1, next_at=now + wait, said=outcome.said, given_up=given_up)
