"""What a version's matcher would hold and find with other values of match.min_score: nothing is published, no model is asked.

A version is enough: `min_score` keeps terms out of its matcher only, and predictions.parquet has all of them with their scores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batchinfer.core.database import scratch_database
from batchinfer.core.files import os_errors
from batchinfer.errors import UsageError
from batchinfer.job.spec import MatchSpec
from batchinfer.match.matcher import Matcher
from batchinfer.match.version import MATCHER
from batchinfer.publish.golden_texts import GoldenText
from batchinfer.publish.matcher import FoldedTerms, Terms, need_libraries
from batchinfer.versions.layout import PREDICTIONS
from batchinfer.versions.query import language_ranges
from batchinfer.versions.snapshot import Snapshot

CUT_OFFS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A matcher with one value of min_score.

    min_score: from 0 to 1; None without any.
    terms: that it would hold.
    concepts: that they name.
    hits: mentions of the golden texts that it would find; None without such texts.
    wrong: what it would find in them beyond their mentions, once for each text and concept; None without such texts.
    """

    min_score: float | None
    terms: int
    concepts: int
    hits: int | None
    wrong: int | None


@dataclass(frozen=True, slots=True)
class ScoreCurve:
    """A version's matcher by min_score.

    job: its name.
    version: its number.
    min_score: that it was published with; None without any.
    texts: golden texts.
    mentions: what they mention, once for each text and concept.
    unscored: terms of the model without a score, which any min_score leaves out.
    points: by min_score, the lowest first.
    """

    job: str
    version: int
    min_score: float | None
    texts: int
    mentions: int
    unscored: int
    points: tuple[CurvePoint, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def score_curve(version: Snapshot, texts: Sequence[GoldenText], scratch: Path) -> ScoreCurve:
    """texts: whose mentions are known, if there are any. scratch: a folder.

    Raises UsageError for a version without a matcher, StoreError for a damaged one, MissingExtra, ResultTooLarge.
    """
    manifest = version.manifest
    match = manifest.spec.sections.get("match", "null")
    if match == "null":
        raise UsageError(
            f"The job {manifest.job} has no match section, so there are no terms to choose by their scores."
        )
    need_libraries()
    version.verify()
    spec = MatchSpec.model_validate_json(match)
    wide = spec.model_copy(update={"min_score": None})
    points = []
    with scratch_database(scratch) as db:
        folded = FoldedTerms(db, manifest.key, version.folder / PREDICTIONS, wide, is_json=manifest.is_json)
        for least in (None, *sorted({*CUT_OFFS, *([] if spec.min_score is None else [spec.min_score])})):
            terms = folded.choose(least)
            found = _found(folded, wide, texts, scratch) if texts else None
            points.append(_point(least, terms, texts, found))
        unscored = folded.unscored
    mentions = sum(len(text.concepts) for text in texts)
    return ScoreCurve(manifest.job, version.number, spec.min_score, len(texts), mentions, unscored, tuple(points))


def _found(folded: FoldedTerms, spec: MatchSpec, texts: Sequence[GoldenText], scratch: Path) -> list[set[str]]:
    """The concepts that a matcher of the terms that were chosen finds in each text."""
    path = scratch / MATCHER
    with os_errors(scratch), path.open("wb") as file:
        folded.write(file).finish(file, spec)
    matcher = Matcher(path)
    return [
        {
            name.concept if isinstance(name.concept, str) else json.dumps(name.concept)
            for place in matcher.find(each.text, languages=language_ranges([each.language] if each.language else []))
            for name in place.names
        }
        for each in texts
    ]


def _point(
    least: float | None, terms: Terms, texts: Sequence[GoldenText], found: Sequence[set[str]] | None
) -> CurvePoint:
    if found is None:
        return CurvePoint(least, terms.terms, terms.concepts, None, None)
    hits = sum(len(text.concepts & there) for text, there in zip(texts, found, strict=True))
    wrong = sum(len(there - text.concepts) for text, there in zip(texts, found, strict=True))
    return CurvePoint(least, terms.terms, terms.concepts, hits, wrong)
