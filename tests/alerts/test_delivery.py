"""Rounds of telling: in time whatever receivers do, again until it arrives, and once."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from batchinfer.alerts import delivery
from batchinfer.alerts.delivery import KEPT_FOR, LONGEST_WAIT, after_round, due_alerts, send_all, send_apart
from batchinfer.alerts.notes import AlertMemory, PendingAlert
from batchinfer.alerts.outcome import Outcome
from batchinfer.alerts.rules import AlertRule, MailReceiver
from tests.alerts.made import DAY, SECRET, START, command_rule, hanging_receiver, rule, web_receiver
from tests.tiny import alive, until

MINUTE = timedelta(minutes=1)
NO, DONE = Outcome(said="it answered 500."), Outcome(delivered=True)
REFUSED = Outcome(said="it answered 404.", lasting=True)


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERTS_SECRET", SECRET)


def alerts(*rules: AlertRule, name: str = "e") -> list[PendingAlert]:
    """One event for each, numbered."""
    body = json.dumps({"type": "job.failed", "data": {"job": "shop"}})
    return [PendingAlert(f"{name}{number}", rule.receiver, body, START, START) for number, rule in enumerate(rules)]


@pytest.mark.long
def test_receivers_that_hang_hold_nobody_up() -> None:
    """No answer, a trickle of one, a TLS handshake that hangs, a program that sleeps, no greeting: all end with the round."""
    sleeper = command_rule(sys.executable, "-c", "import time; time.sleep(60)")
    with hanging_receiver() as silent, hanging_receiver(b"HTTP/1.1 200 OK\r\nx: ") as slow, web_receiver() as good:
        to = MailReceiver(("ops@example.org",), "jobs@example.org", "127.0.0.1", int(silent[10:]), "none", None, None)
        mail = rule(receiver=to)
        found = alerts(
            rule(f"http://{silent}/"),
            rule(f"http://{slow}/"),
            rule(f"https://{silent}/tls"),
            sleeper,
            mail,
            rule(good.url),
        )
        began = time.monotonic()
        outcomes = send_all(found, 4.0)
        assert time.monotonic() - began < 30, "a bound for a busy machine: the hang would have no end"
    assert [outcomes[each.id, each.key].delivered for each in found] == [False] * 5 + [True]
    assert outcomes[found[1].id, found[1].key].said == "it did not take it within 4 s."
    assert len(good.got) == 1


def test_a_program_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """What a command leaves behind goes with it."""
    child = f"import subprocess, sys; p = subprocess.Popen(['sleep', '60']); open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid))"
    [alert] = alerts(command_rule(sys.executable, "-c", child))
    assert send_apart(alert, 20.0) == DONE
    until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_a_program_gets_the_event_and_says_whether_it_was_told(tmp_path: Path) -> None:
    """JSON on standard input; any other exit code than 0 means again later, and so does a program that is not there."""
    script = f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read()); sys.exit(len(sys.argv) - 1)"
    for more, said in (((), ""), (("x",), "the command ended with 1.")):
        [alert] = alerts(command_rule(sys.executable, "-c", script, *more))
        assert send_apart(alert, 20.0) == Outcome(delivered=not more, said=said)
        assert (tmp_path / "got").read_text() == alert.body
    [alert] = alerts(command_rule(str(tmp_path / "gone")))
    assert send_apart(alert, 20.0).said == "the command cannot be started: No such file or directory."


class Receivers:
    """Pretended receivers. says: what comes of each try, by the event's id; got: what was tried, in order."""

    def __init__(self, **says: Sequence[Outcome]) -> None:
        self.says = {name: list(outcomes) for name, outcomes in says.items()}
        self.got: list[str] = []

    def __call__(self, alert: PendingAlert, seconds: float) -> Outcome:
        assert seconds > 0
        self.got.append(alert.id)
        outcomes = self.says.get(alert.id, [])
        return outcomes.pop(0) if outcomes else DONE


def rounds(memory: AlertMemory, receivers: Receivers, times: Sequence[timedelta]) -> AlertMemory:
    for at in times:
        memory = after_round(memory, send_all(due_alerts(memory.pending, START + at), 5.0, receivers), START + at)
    return memory


def test_what_could_not_be_told_is_tried_ever_more_rarely_and_arrives_once() -> None:
    """After a minute, two, four and so on; once it was taken it is never sent again."""
    receivers = Receivers(e0=[NO] * 5)
    memory = rounds(AlertMemory(pending=tuple(alerts(rule()))), receivers, [minutes * MINUTE for minutes in range(64)])
    assert receivers.got == ["e0"] * 6
    assert memory.pending == ()
    receivers = Receivers(e0=[NO] * 100)
    memory = rounds(AlertMemory(pending=tuple(alerts(rule()))), receivers, [hours * DAY / 24 for hours in range(48)])
    assert 10 < len(receivers.got) < 16
    assert memory.pending[0].next_at - (START + 47 * DAY / 24) <= LONGEST_WAIT


def test_a_receiver_is_told_in_order() -> None:
    """The second thing waits until it could be told the first; another receiver does not wait for it."""
    first, second = (alerts(rule(), name=name)[0] for name in ("first", "second"))
    [other] = alerts(rule("http://other.example/"), name="other")
    receivers = Receivers(first0=[NO])
    memory = rounds(AlertMemory(pending=(first, second, other)), receivers, [0 * MINUTE])
    assert sorted(receivers.got) == ["first0", "other0"]
    rounds(memory, receivers, [MINUTE / 2, MINUTE])
    assert sorted(receivers.got) == ["first0", "first0", "other0", "second0"]


def test_what_is_refused_is_given_up_after_days() -> None:
    """Refusals for three days, anything for two weeks; it is still shown, until the receiver takes something or a month passed."""
    hours = [number * DAY / 24 for number in range(24 * 16)]
    receivers = Receivers(e0=[REFUSED] * 1000, later=[REFUSED])
    memory = rounds(AlertMemory(pending=tuple(alerts(rule()))), receivers, hours[: 24 * 5])
    assert [(each.given_up, each.said) for each in memory.pending] == [(True, "it answered 404.")]
    tried = len(receivers.got)
    assert tried > 5
    memory = rounds(memory, receivers, hours[24 * 5 :])
    assert len(receivers.got) == tried
    later = AlertMemory(pending=(*memory.pending, PendingAlert("new", rule().receiver, "{}", START + 17 * DAY, START)))
    assert rounds(later, receivers, [17 * DAY]).pending == ()
    assert after_round(memory, {}, START + KEPT_FOR).pending == ()
    broken = rounds(AlertMemory(pending=tuple(alerts(rule()))), Receivers(e0=[NO] * 1000), hours)
    assert [each.given_up for each in broken.pending] == [True]


def test_a_receiver_that_asks_for_a_wait_gets_it() -> None:
    """Retry-After is kept to, within bounds; a time from the future that a wrong clock noted is not."""
    asks = Outcome(said="it answered 429.", wait=3600)
    receivers = Receivers(e0=[asks])
    memory = rounds(AlertMemory(pending=tuple(alerts(rule()))), receivers, [0 * DAY])
    assert memory.pending[0].next_at == START + timedelta(hours=1)
    assert due_alerts(memory.pending, START + timedelta(minutes=59)) == []
    assert len(due_alerts(memory.pending, START - 9 * DAY)) == 1


def test_a_try_is_a_process_that_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no process can be started, or it dies, that is a try in vain."""
    [alert] = alerts(rule())
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    assert send_apart(alert, 5.0).said == "nothing can be sent: No such file or directory."
    monkeypatch.setattr(sys, "executable", "false")
    assert send_apart(alert, 5.0).said == "the process that was to tell it died."
    assert os.environ["ALERTS_SECRET"] not in json.dumps(alert.to_json())


def test_those_that_hang_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other: who was told in vain before does not use up the time of who was not tried yet."""
    monkeypatch.setattr(delivery, "MOST_AT_ONCE", 1)
    tried = [replace(each, tries=3) for each in alerts(rule("http://one.example/"), rule("http://two.example/"))]
    [new] = alerts(rule("http://new.example/"), name="new")
    receivers = Receivers()
    send_all([*tried, new], 5.0, receivers)
    assert receivers.got[0] == "new0"


def test_a_clock_that_goes_ahead_gives_nothing_up() -> None:
    """One try under a clock of next year is no reason to be silent for ever."""
    memory = rounds(AlertMemory(pending=tuple(alerts(rule()))), Receivers(e0=[NO, DONE]), [365 * DAY, MINUTE])
    assert memory.pending == ()


def test_what_receivers_say_is_short_and_plain() -> None:
    """It is shown in terminals and kept in files."""
    said = Outcome.of({"delivered": False, "said": "\x1b]0;owned\x07" + "x" * 50_000, "lasting": False, "wait": 0}).said
    assert said.startswith("?]0;owned?xxx")
    assert len(said) == 300


def test_a_program_can_be_told_to_end(tmp_path: Path) -> None:
    """Who looks after alerts heeds no SIGTERM; what it starts does."""
    asked = tmp_path / "asked"
    script = f"import signal; open({str(asked)!r}, 'w').write(str(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL))"
    [alert] = alerts(command_rule(sys.executable, "-c", script))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert send_apart(alert, 20.0).delivered
    finally:
        signal.signal(signal.SIGTERM, before)
    assert asked.read_text() == "True"


def test_modules_of_the_folder_that_it_is_started_in_are_none_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the name of one of Python's modules lies beside many jobs."""
    (tmp_path / "hmac.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    with web_receiver() as good:
        [alert] = alerts(rule(good.url))
        assert send_apart(alert, 20.0).delivered
