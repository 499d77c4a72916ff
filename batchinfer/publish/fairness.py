"""The gate's check on groups: slices of the candidate, and what an audit found by asking. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from batchinfer.core.records import SMALL_GROUPS, Check
from batchinfer.errors import counted
from batchinfer.publish.slices import AuditedSlice, FairVerdict

MOST_NAMED = 5  # groups in a sentence
UNASKED = (
    "not enough data for exchanged terms and sentences, since no audit has asked them with this prompt and model: "
    "run batchinfer audit JOB"
)


@dataclass(frozen=True, slots=True)
class AuditedGroup:
    """What an audit said of a group that it asked about.

    name: of the exchange, or of the group of sentences.
    verdict: pass, fail or not enough data.
    why: what moved, as part of a sentence.
    """

    name: str
    verdict: FairVerdict
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FittingAudit:
    """An audit that asked as the job asks now.

    version: what was audited, a version or a candidate.
    made_at: when, RFC 3339, UTC.
    groups: that it asked about.
    """

    version: int | str
    made_at: str
    groups: tuple[AuditedGroup, ...]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> FittingAudit:
        """What the file says. Raises ValueError, KeyError or TypeError."""
        groups = (
            AuditedGroup(str(each["name"]), FairVerdict(each["verdict"]), (str(each["message"]),))
            for each in (*content["swaps"], *content["templates"])
        )
        return cls(content["version"], str(content["made_at"]), tuple(groups))


@dataclass(frozen=True, slots=True)
class Fairness:
    """What is known of groups.

    slices: groups of the list's keys, as the candidate serves them.
    asks: whether the job exchanges terms, or has sentences.
    audit: the newest that asked them as the candidate was asked; None without one.
    """

    slices: Sequence[AuditedSlice] = ()
    asks: bool = False
    audit: FittingAudit | None = None


class _JudgedGroup(Protocol):
    """What is said of a group, by slices or by asking."""

    @property
    def name(self) -> str: ...

    @property
    def verdict(self) -> FairVerdict: ...

    @property
    def why(self) -> tuple[str, ...]: ...


def judge_groups(known: Fairness) -> Check:
    """Refuses if a group fails, if nothing could be said of any, or if nobody asked what the job would have asked.

    Groups that are too small are named.
    """
    groups: list[_JudgedGroup] = [*known.slices, *(known.audit.groups if known.audit else ())]
    failed = [f"{each.name}: {'; '.join(each.why)}" for each in groups if each.verdict is FairVerdict.FAIL]
    named, unknown = (
        [each.name for each in groups if each.verdict is verdict] for verdict in (FairVerdict.FAIL, FairVerdict.UNKNOWN)
    )
    unasked = known.asks and known.audit is None
    message = (
        f"{len(failed):,} of {counted(len(groups), 'group')} {'stands' if len(failed) == 1 else 'stand'} too far apart"
    )
    if failed:
        message += f" ({', '.join(named[:MOST_NAMED])})"
    if unknown:
        more = f" and {len(unknown) - MOST_NAMED:,} more" if len(unknown) > MOST_NAMED else ""
        message += f"{SMALL_GROUPS}{', '.join(unknown[:MOST_NAMED])}{more}"
    if unasked:
        message += f"; {UNASKED}"
    passed = not failed and not unasked and len(unknown) < len(groups)
    return Check(
        "audit", len(failed), 0, passed, message, tuple((failed or unknown)[:MOST_NAMED]), _used(known, groups)
    )


def _used(known: Fairness, groups: Sequence[_JudgedGroup]) -> dict[str, Any]:
    """What the check was judged by."""
    audit = known.audit and {"version": known.audit.version, "made_at": known.audit.made_at}
    # others may be of one row, which can be erased
    told = [each for each in groups if each.verdict is not FairVerdict.UNKNOWN]
    return {"groups": [{"name": each.name, "verdict": each.verdict} for each in told], "asked": audit}
