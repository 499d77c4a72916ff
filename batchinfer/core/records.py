"""The records that cross the borders between modules. All are frozen; none knows how to do anything."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

TEXT = "text"  # the role of a plain completion's only message

Message = tuple[str, str]
"""(role, content); roles as in chat templates: system, user, assistant."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question, ready for an engine.

    key: 16 bytes, the generation key; engines hand it back to say which prompt they answered.
    messages: the chat turns, or one ("text", …) for plain completion.
    token_ids: the same, as the model reads it.
    """

    key: bytes
    messages: tuple[Message, ...]
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Generation:
    """What the model returned for one prompt.

    logprobs: natural logarithms of the first token's probability for each of the task's
    score tokens, in the task's order; None where the task asks for no scores.
    """

    key: bytes
    text: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A row or prompt with no prediction, and why.

    stage: where it failed: in the query list, at the engine, or when its answer was read.
    reason: a short stable word for machines, such as cut_off; detail: a sentence for people.
    """

    key: bytes | None
    stage: Literal["input", "engine", "parse"]
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """A generation that was parsed and checked.

    value: a string, or any JSON value. score: the probability of the value where the job
    has scores, renormalised over the choices. mass: what the model gave all choices together.
    """

    value: Any
    score: float | None = None
    scores: dict[str, float] | None = None
    mass: float | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is the same for all that a run makes, and stored with each row."""

    fingerprint: bytes
    parser: str
    model: str
    run_id: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A generation and what was made of it, ready to be stored."""

    generation: Generation
    result: Prediction | Failure


@dataclass(frozen=True, slots=True)
class Counts:
    """What a list comes to: rows = bad + duplicates + unique; unique = hits + failed + to_generate (before a run).

    unique counts prompts; failed are those that failed before and are not tried again by themselves. misses: rows that
    clients asked for and the list does not have; they count in rows. None if the job does not take them in.
    """

    rows: int
    bad: int
    duplicates: int
    unique: int
    hits: int
    failed: int
    to_generate: int
    lookups: int  # distinct lookup keys in the list, those of bad rows included as far as they have one
    misses: int | None = None


class Source(StrEnum):
    """Where an entry's value comes from."""

    MODEL = "model"
    IMPORT = "import"
    REVIEW = "review"


class VerdictKind(StrEnum):
    """What a person may say of a value."""

    ACCEPT = "accept"
    REJECT = "reject"
    CORRECT = "correct"
