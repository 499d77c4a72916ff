"""Starts a program and gives it an event."""

from __future__ import annotations

import subprocess

from batchinfer.alerts.outcome import Outcome
from batchinfer.alerts.rules import CommandReceiver


def run_command(receiver: CommandReceiver, body: str, seconds: float) -> Outcome:
    """One try: the event as JSON is the program's standard input, and an exit code of 0 says that it was told."""
    try:
        done = subprocess.run(
            list(receiver.words), input=body.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Outcome(said=f"the command did not end within {seconds:g} s.")
    except (OSError, ValueError) as exc:
        return Outcome(
            said=f"the command cannot be started: {(exc.strerror if isinstance(exc, OSError) else None) or exc}."
        )
    return (
        Outcome(delivered=True) if done.returncode == 0 else Outcome(said=f"the command ended with {done.returncode}.")
    )
