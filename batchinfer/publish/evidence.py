"""A few rows for each check that failed: what a person wants to see of a candidate first."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from batchinfer.core.records import Check
from batchinfer.publish.candidate import Candidate
from batchinfer.publish.golden import Wrong

MOST = 5
LONGEST = 60  # characters of a value


def attach(checks: Sequence[Check], candidate: Candidate, wrong: Sequence[Wrong]) -> list[Check]:
    """The checks, those that failed with examples. wrong: golden rows that the candidate answers otherwise."""
    finders = FINDERS | {"golden": lambda _: [_wrong(row) for row in wrong[:MOST]]}
    return [
        replace(check, examples=tuple(finders[check.name](candidate)))
        if not check.passed and check.name in finders
        else check
        for check in checks
    ]


FINDERS: dict[str, Callable[[Candidate], list[str]]] = {
    "coverage": lambda candidate: [_key(query) for (query,) in candidate.uncovered(MOST)],
    "failures": lambda candidate: [f"{_key(query)}: {reason}" for query, reason in candidate.failed(MOST)],
    "shrink": lambda candidate: [_key(query) for (query,) in candidate.gone(MOST)],
    "changed": lambda candidate: [
        f"{_key(query)}: {_short(old)} → {_short(new)}" for query, old, new in candidate.changed(MOST)
    ],
    "carried": lambda candidate: [_key(query) for (query,) in candidate.carried(MOST)],
    "reviewed": lambda candidate: [f"{_key(query)}: {_short(value)}" for query, value in candidate.unreviewed(MOST)],
}


def _wrong(row: Wrong) -> str:
    got = "no prediction" if row.got is None else _short(row.got)
    return f"{_key(row.query)}: wanted {_short(row.wanted)}, got {got}"


def _key(query: str) -> str:
    """A lookup key as it is written on the command line."""
    return ", ".join(f"{name}={_short(_text(value))}" for name, value in json.loads(query).items())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    """A value in one line, without what a terminal would take for a command."""
    line = "".join(sign if sign.isprintable() else " " for sign in " ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
