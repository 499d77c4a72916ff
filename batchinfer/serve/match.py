"""GET and POST /v1/jobs/{job}/match: which concepts live texts mention, and where, from one version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from batchinfer.core.http_limits import MAX_TEXTS
from batchinfer.errors import MissingExtra, UsageError, shortened
from batchinfer.match.budget import MatchBudget, ResultTooLarge, TooMuchWork
from batchinfer.match.matcher import Matcher
from batchinfer.match.version import IncompatibleMatcher
from batchinfer.serve.beside import Beside, Rests
from batchinfer.serve.body import read_json
from batchinfer.serve.problems import Problem
from batchinfer.serve.served_job import OpenVersion
from batchinfer.versions.query import in_utf16, language_ranges, parameters

THREAD_FROM = 2_000  # characters; more are matched beside the event loop, which answers look-ups meanwhile
# what fewer may cost there
AT_ONCE: dict[str, Any] = {"room": 1 << 16, "places": 1_000, "seconds": 0.02, "names": 1 << 16}
IN_URL = ("text", "language", "offsets")
IN_BODY = {"texts", "languages", "offsets"}


@dataclass(frozen=True, slots=True)
class MatchRequest:
    """What a client wants to be matched.

    texts: those to be matched; exactly one if it came in a URL.
    languages: what the matches are restricted to; empty for all.
    utf16: whether spans count UTF-16 units rather than code points.
    is_batch: whether the texts came in a list, so that the answer is one.
    """

    texts: list[str]
    languages: tuple[str, ...]
    utf16: bool
    is_batch: bool

    @classmethod
    def from_url(cls, query_string: bytes) -> MatchRequest:
        """One text. Raises Problem."""
        try:
            return _in_url(parameters(query_string))
        except UsageError as exc:
            raise Problem("bad-query", str(exc)) from exc

    @classmethod
    def from_body(cls, body: bytes) -> MatchRequest:
        """Many texts. Raises Problem."""
        content = read_json(body)
        try:
            return _in_body(content)
        except UsageError as exc:
            raise Problem("bad-body", str(exc)) from exc


def _in_url(values: dict[str, list[str]]) -> MatchRequest:
    """Raises UsageError."""
    unknown = [name for name in values if name not in IN_URL]
    if unknown:
        raise UsageError(f"{shortened(unknown[0])} is not a parameter of this URL; it can have {', '.join(IN_URL)}.")
    for name in ("text", "offsets"):
        if len(values.get(name, ())) > 1:
            raise UsageError(f"{name} is given more than once.")
    if "text" not in values:
        raise UsageError("text is missing.")
    [offsets] = values.get("offsets", ["code_points"])
    return MatchRequest(values["text"], language_ranges(values.get("language", ())), in_utf16(offsets), is_batch=False)


def _in_body(content: Any) -> MatchRequest:
    """Raises UsageError, or Problem for too many texts."""
    if not isinstance(content, dict) or not {"texts"} <= content.keys() <= IN_BODY:
        raise UsageError(
            'The body should be {"texts": ["…", …]}, and can have "languages" and "offsets" beside it, and no more.'
        )
    texts, languages = content["texts"], content.get("languages", [])
    for name, value in (("texts", texts), ("languages", languages)):
        if not isinstance(value, list):
            raise UsageError(f"{name} should be a list of strings.")
    if len(texts) > MAX_TEXTS:
        raise Problem("too-large", f"A batch may have {MAX_TEXTS:,} texts; this one has {len(texts):,}.")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"texts[{number}] should be a string.")
    return MatchRequest(
        texts, language_ranges(languages), in_utf16(content.get("offsets", "code_points")), is_batch=True
    )


async def match_texts(opened: OpenVersion, request: MatchRequest, beside: Beside) -> tuple[bytes, int]:
    """The body of the reply, and how many matches it tells of. Raises Problem."""
    matcher = _matcher(opened)
    if sum(map(len, request.texts)) <= THREAD_FROM:
        try:
            return _answer(matcher, opened.version, request, MatchBudget(**AT_ONCE))
        except (ResultTooLarge, TooMuchWork):
            pass  # short, but not little work
    return await beside(_within_limits, matcher, opened.version, request)


def _matcher(opened: OpenVersion) -> Matcher:
    """It was loaded when the version was opened. Raises Problem where there is none."""
    try:
        return opened.snapshot.matcher
    except (MissingExtra, IncompatibleMatcher) as exc:
        raise Problem("not-installed", f"The service cannot match texts: {exc}") from exc
    except UsageError as exc:
        raise Problem("no-match-section", str(exc)) from exc


def _within_limits(matcher: Matcher, version: int, request: MatchRequest) -> tuple[bytes, int]:
    """Raises Problem."""
    try:
        return _answer(matcher, version, request, MatchBudget(), Rests())
    except (ResultTooLarge, TooMuchWork) as exc:
        raise Problem("too-large", str(exc)) from exc


def _answer(
    matcher: Matcher, version: int, request: MatchRequest, budget: MatchBudget, rest: Callable[[], None] = lambda: None
) -> tuple[bytes, int]:
    """rest: called between two texts. Raises ResultTooLarge or TooMuchWork."""
    results, count = [], 0
    for text in request.texts:
        rest()
        found = matcher.find_json(text, languages=request.languages, utf16=request.utf16, budget=budget)
        count += found.count(b'{"concept":')  # which stands in no value: quotes are escaped there
        results.append(b'"matches":%b' % found)
    if request.is_batch:
        return b'{"version":%d,"results":[%b]}' % (version, b",".join([b"{%b}" % result for result in results])), count
    return b'{%b,"version":%d}' % (results[0], version), count
