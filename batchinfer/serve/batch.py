"""POST /v1/jobs/{job}/lookup: up to 1,000 queries, answered in order from one version."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from batchinfer.core.http_limits import MAX_ENTRY, MAX_QUERIES, MAX_REPLY
from batchinfer.errors import UsageError
from batchinfer.serve.beside import Rests
from batchinfer.serve.body import read_json
from batchinfer.serve.lookup import TOO_LARGE
from batchinfer.serve.problems import Problem, problem_body
from batchinfer.serve.served_job import OpenVersion


def read_queries(body: bytes) -> list[Any]:
    """The queries of {"queries": [...]}. Raises Problem."""
    content = read_json(body)
    if not isinstance(content, dict) or content.keys() != {"queries"} or not isinstance(content["queries"], list):
        raise Problem("bad-body", 'The body should be {"queries": [{"COLUMN": VALUE, …}, …]}, and no more.')
    if len(content["queries"]) > MAX_QUERIES:
        raise Problem(
            "too-large", f"A batch may have {MAX_QUERIES:,} queries; this one has {len(content['queries']):,}."
        )
    return content["queries"]


@dataclass(frozen=True, slots=True)
class BatchReply:
    """What a batch is answered with.

    content: the body.
    missed: the values of the queries that the version does not have; what does not fit the lookup key is not among them.
    counts: hits and misses, and of the misses, where there is a student, how many it answered and left.
    """

    content: bytes
    missed: list[tuple[Any, ...]]
    counts: dict[str, int]


def look_up_all(opened: OpenVersion, queries: list[Any]) -> BatchReply:
    """Answers each query: with a hit, a miss, what the student says to that, or why it does not fit. Raises Problem."""
    rows = opened.reader.from_many(queries)
    bodies = _bodies(opened, [values for values in rows if not isinstance(values, UsageError)])
    size, found = sum(len(body or b"") for body in bodies), iter(bodies)
    results, missed, hits, answers, rest = [], [], 0, 0, Rests()
    for query, values in zip(queries, rows, strict=True):
        if isinstance(values, UsageError):
            results.append(_refused(values))
        elif (body := next(found)) is not None:
            results.append(b'{"found":true,' + body[1:])
            hits += 1
        else:
            missed.append(values)
            said = None if opened.student is None else opened.student(values[0])
            size += len(said or b"")
            if said is not None and size > MAX_REPLY and len(queries) > 1:
                raise _too_many()
            results.append(_missed(query, opened) if said is None else b'{"found":true,' + said[1:])
            answers += said is not None
            rest()
    content = b'{"version":%d,"results":[%b]}' % (opened.version, b",".join(results))
    counts = {"hits": hits, "misses": len(missed)}
    if opened.student is not None:
        counts |= {"student_answers": answers, "student_abstentions": len(missed) - answers}
    return BatchReply(content, missed, counts)


def _too_many() -> Problem:
    return Problem("too-large", f"The reply would have more than {MAX_REPLY:,} bytes: send fewer queries at a time.")


def _refused(why: UsageError) -> bytes:
    return b'{"found":false,"error":%b}' % problem_body("bad-query", str(why))


def _bodies(opened: OpenVersion, rows: list[tuple[Any, ...]]) -> list[bytes | None]:
    """The bodies that are found, in the order of the queries. Raises Problem for more than a reply may have; one alone may have more."""
    bodies: list[bytes | None] = []
    size = 0
    for body in opened.snapshot.find_many(opened.reader.lookup_hash(values) for values in rows):
        size += len(body or b"")
        if body is not None and len(body) > MAX_ENTRY:
            raise Problem("too-large", TOO_LARGE)
        if size > MAX_REPLY and len(rows) > 1:
            raise _too_many()
        bodies.append(body)
    return bodies


def _missed(query: dict[str, Any], opened: OpenVersion) -> bytes:
    """JSON has no infinity: a number that is too large for a float, and so became one, is written as 1e999."""
    try:
        text = json.dumps(query, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = "{" + ",".join(f"{_plain(name)}:{_plain(value)}" for name, value in query.items()) + "}"
    abstained = b"" if opened.student is None else b',"abstained":true'
    return b'{"found":false,"query":%b%b}' % (text.encode(), abstained)


def _plain(value: str | float) -> str:
    is_infinite = isinstance(value, float) and math.isinf(value)
    return f"{'-' * (value < 0)}1e999" if is_infinite else json.dumps(value, ensure_ascii=False)  # type: ignore[operator]
