"""What is to be told now: a pure function of what was told, the rules, how the job stands, and the time.

standing ──► troubles (failed, refused, stale) ──► for each receiver: new? ──► told once, then reminded after days
                                                                    none any more? ──► recovered, once
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from batchinfer.alerts.attempts import Trouble
from batchinfer.alerts.event import AlertEvent
from batchinfer.alerts.notes import AlertMemory, PendingAlert, Told
from batchinfer.alerts.rules import AlertKind, AlertRule
from batchinfer.alerts.standing import Standing
from batchinfer.core.clock import SKEW, iso
from batchinfer.errors import counted

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def decide(
    memory: AlertMemory,
    rules: Sequence[AlertRule],
    standing: Standing,
    now: datetime,
    may_tell: Callable[[AlertRule], bool] = lambda _: True,
) -> AlertMemory:
    """What is known afterwards: with what is to be told among `pending`.

    rules: all that there are; of receivers that they do not name any more nothing is kept.
    may_tell: whether this process tells a receiver of a rule. now: in UTC.
    """
    memory = replace(memory, doubted=_doubted(memory, standing, now))
    told = {rule.key: memory.told[rule.key] for rule in rules if rule.key in memory.told}
    named = {rule.key for rule in rules}
    pending = [each for each in memory.pending if each.key in named]
    for rule in filter(may_tell, rules):
        known, events = _for_rule(rule, told.get(rule.key, ()), memory, standing, now)
        told[rule.key] = known
        pending += [PendingAlert(event.id, rule.receiver, event.body(now), now, now) for event in events]
    return replace(memory, told={key: known for key, known in told.items() if known}, pending=_distinct(pending))


def fresh_since(standing: Standing, doubted: tuple[datetime, datetime] | None, now: datetime) -> datetime | None:
    """When what is served was as new as could be; None if it never was.

    A time from the future was written under a clock that went wrong, or is read under one: it counts from when it was met.
    """
    believed = [min(each, now) for each in standing.fresh_times if each <= now + SKEW]
    if len(believed) < len(standing.fresh_times):
        believed.append(now if doubted is None else min(doubted[1], now))
    return max(believed, default=None)


def stale_trouble(rule: AlertRule, fresh: datetime | None, now: datetime) -> Trouble | None:
    """That no run ended well for too long; None if that is not so, or was never asked."""
    if fresh is None or rule.stale_after is None or now - fresh < rule.stale_after:
        return None
    said = (
        f"What is served is stale: no run ended well since {iso(fresh)}, {_days(now - fresh)} ago; "
        f"it was to be told after {_days(rule.stale_after)}."
    )
    return Trouble(AlertKind.STALE, fresh + rule.stale_after, said, str(iso(fresh)))  # whatever limit passed


def _doubted(memory: AlertMemory, standing: Standing, now: datetime) -> tuple[datetime, datetime] | None:
    """The time from the future that files have now, and when it was met."""
    ahead = [each for each in standing.fresh_times if each > now + SKEW]
    if not ahead:
        return None
    known = memory.doubted
    if known is not None and iso(known[0]) == iso(max(ahead)) and known[1] <= now + SKEW:  # as the file has it
        return known
    return max(ahead), now


def _for_rule(
    rule: AlertRule, told: tuple[Told, ...], memory: AlertMemory, standing: Standing, now: datetime
) -> tuple[tuple[Told, ...], list[AlertEvent]]:
    """What the receiver of a rule knows afterwards, and what it is told for that."""
    stale = stale_trouble(rule, fresh_since(standing, memory.doubted, now), now)
    wrong = {each.kind: each for each in (*standing.troubles, *([] if stale is None else [stale]))}
    before = {each.kind: each for each in told if each.kind in rule.kinds}
    known = {  # until all is well again, which they are still to be told
        kind: each for kind, each in before.items()
        if kind not in wrong and (wrong or not _is_over(kind, memory, standing))
    }  # fmt: skip
    events = list[AlertEvent]()
    for kind in sorted(wrong.keys() & rule.kinds):
        known[kind], number = _known(wrong[kind], before.get(kind), rule, now)
        events += [] if number is None else [_event(wrong[kind], standing, number)]
    if before and not known and not wrong and AlertKind.RECOVERED in rule.kinds:
        events.append(_recovered(standing, before.keys(), now))
    return tuple(known.values()), sorted(events, key=lambda event: (event.since, event.kind))


def _known(found: Trouble, before: Told | None, rule: AlertRule, now: datetime) -> tuple[Told, int | None]:
    """What the receiver knows of a trouble afterwards, and as which reminder it is told that, 0 for none; None if it is not.

    Reminders that were missed are one.
    """
    count = max(0, (now - found.since) // rule.remind_after)
    after = Told(found.kind, found.marker, count)
    if before is None or before.marker != found.marker:
        return after, 0
    return after, count if count > before.reminders else None  # fewer: the clock had gone ahead


def _is_over(kind: AlertKind, memory: AlertMemory, standing: Standing) -> bool:
    """Whether it is known that a trouble which is not found any more is over: not where notes are gone, or a clock is wrong."""
    if kind is AlertKind.STALE:
        return bool(standing.fresh_times) and memory.doubted is None
    return standing.attempt is not None


def _event(trouble: Trouble, standing: Standing, reminder: int) -> AlertEvent:
    run = "The run" if trouble.run_id is None else f"Run {trouble.run_id}"
    said = f"{run} failed: {trouble.said}" if trouble.kind is AlertKind.FAILED else trouble.said
    return AlertEvent(
        standing.job, trouble.kind, _version(standing), trouble.run_id, trouble.since, said, reminder, trouble.marker,
        standing.succeeded_at,
    )  # fmt: skip


def _recovered(standing: Standing, told: Collection[AlertKind], now: datetime) -> AlertEvent:
    since = max((each for each in standing.fresh_times), default=now)
    served = "" if standing.published is None else f", and version {standing.published.version} was published last"
    said = f"All is well again, after it was {' and '.join(sorted(told))}: what is served is as new as of {iso(since)}{served}."
    return AlertEvent(
        standing.job, AlertKind.RECOVERED, _version(standing), None, since, said, 0, str(iso(since)), standing.succeeded_at
    )  # fmt: skip


def _version(standing: Standing) -> int | None:
    return None if standing.published is None else standing.published.version


def _distinct(pending: Sequence[PendingAlert]) -> tuple[PendingAlert, ...]:
    """Each event once for each receiver."""
    return tuple({(each.id, each.key): each for each in reversed(pending)}.values())[::-1]


def _days(time: timedelta) -> str:
    """A time as people read it, in days, or in hours below two days."""
    if time < 2 * DAY:
        return counted(time // HOUR, "hour")
    return counted(time // DAY, "day")
