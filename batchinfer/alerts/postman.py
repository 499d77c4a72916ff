"""A process that tries once to tell one receiver of one event: who started it ends it, whatever it waits for.

python -m batchinfer.alerts.postman < JSON with id, receiver, body and seconds; it prints what came of it as JSON
"""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime

from batchinfer.alerts.outcome import Outcome
from batchinfer.alerts.rules import CommandReceiver, MailReceiver, Receiver, receiver_of


def send_event(event_id: str, receiver: Receiver, body: str, seconds: float) -> Outcome:
    """One try."""
    now = datetime.now(UTC)
    if isinstance(receiver, CommandReceiver):
        from batchinfer.alerts.command import run_command

        return run_command(receiver, body, seconds)
    if isinstance(receiver, MailReceiver):
        from batchinfer.alerts.mail import send_mail

        return send_mail(receiver, event_id, body, os.environ, now, seconds)
    from batchinfer.alerts.webhook import send_webhook

    return send_webhook(receiver, event_id, body, os.environ, now, seconds)


def main() -> None:
    """Tries, and says on stdout what came of it."""
    # who started this one may ignore them, and so would a program that it starts
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    wanted = json.load(sys.stdin)
    signal.setitimer(signal.ITIMER_REAL, wanted["seconds"] + 1)  # where nobody is left to end it
    outcome = send_event(wanted["id"], receiver_of(wanted["receiver"]), wanted["body"], wanted["seconds"])
    json.dump(outcome.to_json(), sys.stdout)


if __name__ == "__main__":
    main()
