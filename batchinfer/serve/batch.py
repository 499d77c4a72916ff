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

_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


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
    fitting = [values for values in rows if isinstance(values, tuple)]
    bodies = opened.snapshot.find_many(opened.reader.lookup_hashes(fitting))
    results, missed, size, answers, student, rest = [], [], 0, 0, opened.student, Rests()
    for query, values in zip(queries, rows, strict=True):
        if not isinstance(values, tuple):
            results.append(_refused(values))
            continue
        body = next(bodies)
        if body is None:
            missed.append(values)
            body = None if student is None else student(values[0])
            answers += body is not None
            rest()
        if body is None:
            results.append(_missed(query, opened))
            continue
        size += len(body)
        if size > MAX_REPLY:
            _check_large(body, len(fitting))
        results.append(b'{"found":true,' + body[1:])
    content = b'{"version":%d,"results":[%b]}' % (opened.version, b",".join(results))
    counts = {"hits": len(fitting) - len(missed), "misses": len(missed)}
    if student is not None:
        counts |= {"student_answers": answers, "student_abstentions": len(missed) - answers}
    return BatchReply(content, missed, counts)


def _check_large(last: bytes, count: int) -> None:
    """What is to be done once a reply has more than MAX_REPLY bytes: one alone may. last: the body that came last. Raises Problem."""
    if len(last) > MAX_ENTRY:
        raise Problem("too-large", TOO_LARGE)
    if count > 1:
        raise Problem("too-large", f"The reply would have more than {MAX_REPLY:,} bytes: send fewer queries at a time.")


def _refused(why: UsageError) -> bytes:
    return b'{"found":false,"error":%b}' % problem_body("bad-query", str(why))


def _missed(query: dict[str, Any], opened: OpenVersion) -> bytes:
    """JSON has no infinity: a number that is too large for a float, and so became one, is written as 1e999."""
    try:
        text = _as_json(query)
    except ValueError:
        text = "{" + ",".join(f"{_plain(name)}:{_plain(value)}" for name, value in query.items()) + "}"
    abstained = b"" if opened.student is None else b',"abstained":true'
    return b'{"found":false,"query":%b%b}' % (text.encode(), abstained)


def _plain(value: str | float) -> str:
    is_infinite = isinstance(value, float) and math.isinf(value)
    return f"{'-' * (value < 0)}1e999" if is_infinite else json.dumps(value, ensure_ascii=False)  # type: ignore[operator]
