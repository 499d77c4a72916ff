"""Of what a version is made, as its manifest says it: the run, what was asked, and how two models shared the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from batchinfer.versions.checked import checked_count, checked_text


@dataclass(frozen=True, slots=True)
class CascadeModel:
    """One of the two models.

    model: its label, as entries have it.
    fingerprint: of what it was asked.
    answers: how many prompts took its answer; None where that was not known.
    """

    model: str
    fingerprint: bytes
    answers: int | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Of what manifest.json says. Raises KeyError, TypeError or ValueError for a damaged one."""
        answers = document.get("answers")
        count = None if answers is None else checked_count(answers)
        return cls(checked_text(document["model"]), bytes.fromhex(document["fingerprint"]), count)

    def to_json(self) -> dict[str, Any]:
        return {"model": self.model, "fingerprint": self.fingerprint.hex(), "answers": self.answers}


@dataclass(frozen=True, slots=True)
class PublishedCascade:
    """How the two models shared the answers.

    agree, confidence: what the job asked for.
    sample: prompts that both were asked.
    threshold: from which score on the small one's answer was taken; None if the large one answered all.
    agreement: how often they agreed on those of the sample with such scores.
    coverage: which share of the sample those are.
    problem: why the large one answered all, as the rest of a sentence.
    small, large: the models.
    """

    agree: float
    confidence: float
    sample: int
    threshold: float | None
    agreement: float | None
    coverage: float | None
    problem: str | None
    small: CascadeModel
    large: CascadeModel

    @classmethod
    def of(cls, document: Mapping[str, Any] | None) -> Self | None:
        """Of what manifest.json says. Raises KeyError, TypeError, ValueError or AttributeError for a damaged one."""
        if document is None:
            return None
        names = ("agree", "confidence", "sample", "threshold", "agreement", "coverage", "problem")
        small, large = (CascadeModel.of(document[name]) for name in ("small", "large"))
        return cls(**{name: document[name] for name in names}, small=small, large=large)

    def __str__(self) -> str:
        """From which score on the small model's answer is taken, or why it is not, as a sentence."""
        if self.problem is not None:
            return f"The large model answers all, since {self.problem}."
        if self.threshold is None:
            return "Where the small model is sure is found once both have answered a sample."
        return (
            f"The small model's answer is taken from a score of {self.threshold:.3f} on: {self.coverage:.0%} of the {self.sample:,} "
            f"prompts that both were asked have that, and the models agree on {self.agreement:.1%} of those."
        )

    def to_json(self) -> dict[str, Any]:
        """As manifest.json has it."""
        return {
            "agree": self.agree, "confidence": self.confidence, "sample": self.sample, "threshold": self.threshold,
            "agreement": self.agreement, "coverage": self.coverage, "problem": self.problem,
            "small": self.small.to_json(), "large": self.large.to_json(),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """Of what a version is made.

    run_id: the newest run, whose answers it holds; 0 before the first.
    input: where the list came from; None in an old manifest.
    fingerprint: of the question that its answers answer; None for a job without a model, and in an old manifest.
    parser: how they were read; None like the fingerprint.
    cascade: how two models shared the answers; None where there was one.
    """

    run_id: int
    input: str | None
    fingerprint: bytes | None = None
    parser: str | None = None
    cascade: PublishedCascade | None = None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Of what manifest.json says. Raises KeyError, TypeError, ValueError or AttributeError for a damaged one."""
        place = document.get("input")
        made_of, parser = document.get("fingerprint"), document.get("parser")
        return cls(
            run_id=checked_count(document.get("run_id", 0)),
            input=place if isinstance(place, str) else None,
            fingerprint=None if made_of is None else bytes.fromhex(made_of),
            parser=None if parser is None else checked_text(parser),
            cascade=PublishedCascade.of(document.get("cascade")),
        )
