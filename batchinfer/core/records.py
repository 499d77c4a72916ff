"""The records that cross the borders between modules. All are frozen; none knows more than its JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

TEXT = "text"  # the role of a plain completion's only message
Message = tuple[str, str]
"""(role, content); roles as in chat templates: system, user, assistant."""
Info = Callable[[str], None]
"""Tells a person a sentence about how it goes."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """A text that could follow a prompt, whose probability is asked for.

    token_ids: as the model would write it there.
    length: that its log-probability is divided by, in the unit of output.normalize; 1 to leave it as it is.
    """

    token_ids: tuple[int, ...]
    length: int = 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question, ready for an engine.

    prompt_key: 16 bytes; engines return it to say which prompt they answered.
    messages: the chat turns, or one ("text", …) for plain completion.
    token_ids: the same, as the model reads it.
    continuations: those to be scored, where the task asks for that.
    """

    prompt_key: bytes
    messages: tuple[Message, ...]
    token_ids: tuple[int, ...]
    continuations: tuple[Continuation, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """The model's response to one prompt.

    prompt_key: that of the prompt.
    text: as it was generated.
    finish_reason: stop, length, or another word of the engine's.
    prompt_tokens: how many the model was given: those of the prompt, or of the prompt with each of its continuations.
    cached_tokens: those of them that prefix caching saved.
    output_tokens: how many were generated.
    logprobs: natural logarithms of the first token's probability for each of the task's score tokens, in the task's
        order, or those of the prompt's continuations, each divided by its length; None where no scores are asked for.
    """

    prompt_key: bytes
    text: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A row or prompt with no prediction, and why.

    prompt_key: that of the prompt; None for a row of the list.
    stage: where it failed: in the query list, at the engine, or when its answer was read.
    reason: a short stable word for machines, such as cut_off.
    detail: a sentence for people.
    """

    prompt_key: bytes | None
    stage: Literal["input", "engine", "parse"]
    reason: str
    detail: str

    def to_json(self) -> dict[str, Any]:
        """As `try --json` prints it."""
        return {"reason": self.reason, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Prediction:
    """A generation that was parsed and checked.

    value: a string, or any JSON value.
    score: the probability of the value, renormalised over the choices; in a job that asks for a likelihood the value
        itself; None in others.
    scores: the same for each choice.
    choice_mass: the probability that the model gave all choices together; None in a job without choices, or with
        output.normalize.
    """

    value: Any
    score: float | None = None
    scores: dict[str, float] | None = None
    choice_mass: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As `try --json` prints it."""
        return {"value": self.value, "score": self.score, "scores": self.scores, "mass": self.choice_mass}


@dataclass(frozen=True, slots=True)
class Provenance:
    """Provenance shared by every row of a run, and stored with each.

    fingerprint: of all that could change an answer.
    parser: how answers were read.
    model: its label.
    run_id: None outside a run.
    """

    fingerprint: bytes
    parser: str
    model: str
    run_id: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A generation and the result of reading it, ready to be stored.

    generation: as the engine returned it.
    result: the prediction, or why there is none.
    """

    generation: Generation
    result: Prediction | Failure


@dataclass(frozen=True, slots=True)
class Counts:
    """The size of a list: rows = bad + duplicates + unique, and before a run unique = cached + failed + to_generate.

    rows: of the list, misses included.
    bad: rows that cannot be asked.
    duplicates: further rows of a prompt.
    unique: different prompts.
    cached: prompts that the cache has an answer for.
    failed: prompts that failed before and are not tried again by themselves.
    to_generate: prompts that a run would ask.
    lookups: distinct lookup keys of the list, those of bad rows included as far as they have one.
    misses: rows that clients asked for and the list does not have; None if the job does not include misses.
    """

    rows: int
    bad: int
    duplicates: int
    unique: int
    cached: int
    failed: int
    to_generate: int
    lookups: int
    misses: int | None = None


SMALL_GROUPS = (
    "; not enough data for "  # in what an audit's check says, before the names of groups, which may be of one row
)


@dataclass(frozen=True, slots=True)
class Check:
    """What one check of the gate came to.

    name: as in the job's section gate.
    value: what was measured, a share or a count.
    limit: what the job asks for.
    passed: whether the value keeps to the limit.
    message: the same as a sentence.
    examples: a few of the rows that it failed for.
    used: what else it was judged by, as JSON; None where the value says it all.
    """

    name: str
    value: float
    limit: float
    passed: bool
    message: str
    examples: tuple[str, ...] = ()
    used: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """As reports and manifests have it."""
        return {
            "name": self.name, "value": self.value, "limit": self.limit, "passed": self.passed, "says": self.message,
            "examples": self.examples, **({} if self.used is None else {"used": dict(self.used)}),
        }  # fmt: skip


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
