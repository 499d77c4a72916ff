"""What crosses between `finetune` and its training process. Rows are token ids: that process knows no texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from batchinfer.engines.devices import Placement

TokenIds = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LearnedRow:
    """A row that the adapter learns.

    prompt: its tokens, as a run would ask it.
    answer: the tokens of the right answer that are scored or written after it; the loss is on these alone.
    """

    prompt: TokenIds
    answer: TokenIds


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A row that the adapter is held against.

    prompt: its tokens.
    candidates: the tokens of each choice; in a job without choices those of the right answer alone.
    lengths: what the log-probability of each is divided by.
    right: the place of the right answer among them.
    """

    prompt: TokenIds
    candidates: tuple[TokenIds, ...]
    lengths: tuple[int, ...]
    right: int


@dataclass(frozen=True, slots=True)
class RowScore:
    """What the model gives the candidates of a row.

    logprobs: natural logarithm of the probability of each as a whole, not divided by its length.
    greedy: whether taking the likeliest token each time writes the right answer.
    """

    logprobs: tuple[float, ...]
    greedy: bool


@dataclass(frozen=True, slots=True)
class Course:
    """The work of one training process.

    source: of the base model, a folder or a hub id.
    revision: a hub commit.
    label: the base model's name, for the adapter's config.
    placement: its devices.
    digest: of all that the training depends on; a checkpoint of another one is not used.
    rank, alpha, learning_rate, epochs, batch, seed: as in the job file.
    trainer: who takes the steps, `plain` or `trl`.
    learned: what it learns.
    held: what it is held against, before and after.
    further: rows that are scored after the training only.
    draft: the folder for the adapter, which is empty.
    checkpoint: the file that it keeps while it trains.
    """

    source: str
    revision: str | None
    label: str
    placement: Placement
    digest: str
    rank: int
    alpha: float
    learning_rate: float
    epochs: int
    batch: int
    seed: int
    trainer: str
    learned: Sequence[LearnedRow]
    held: Sequence[HeldRow]
    further: Sequence[HeldRow]
    draft: Path
    checkpoint: Path


@dataclass(frozen=True, slots=True)
class Step:
    """How far a training is.

    number: of the step that is done, from 1.
    count: of all steps.
    loss: of this step's rows, before it; nats a token.
    seconds: of training so far, in all processes.
    """

    number: int
    count: int
    loss: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Scored:
    """How far the scoring of held-out rows is.

    done: prompts that are scored.
    count: all that will be.
    """

    done: int
    count: int


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to.

    losses: of each step.
    seconds: of training alone.
    before, after: scores of the held rows; after also of the further ones.
    libraries: versions, by name.
    """

    losses: tuple[float, ...]
    seconds: float
    before: tuple[RowScore, ...]
    after: tuple[RowScore, ...]
    libraries: dict[str, str]
