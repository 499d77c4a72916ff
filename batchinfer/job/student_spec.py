"""The section student of the job file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from batchinfer.core.fields import NonEmpty, Section

Number = Annotated[float, Field(ge=-1e9, le=1e9)]


class StudentSpec(Section):
    """A small model that learns the job's scores, for live queries that are not in the list.

    Nothing here changes an answer.
    """

    kind: Literal["linear", "model2vec"] = Field(
        "linear",
        description="What it is: weights of words and of pieces of words, or a head on static embeddings as model2vec makes them.",
    )
    text: NonEmpty = Field(
        description="The column whose text it reads: the lookup key, which has no other column then."
    )
    embeddings: NonEmpty | None = Field(
        None,
        description="With kind model2vec: the folder of the embeddings (`tokenizer.json` and `model.safetensors`), below the job's folder "
        "or an allowed root; those of the package wordllama unless given.",
    )
    agree: float = Field(
        0.9, ge=0.5, le=0.999, description="How often it should say what the model says, of what it answers at all."
    )
    confidence: float = Field(0.9, ge=0.5, le=0.999, description="How sure that promise should be.")
    max_abstain: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Most of the queries that it may leave unanswered; one that leaves more is not used.",
    )
    score: dict[str, Number] | None = Field(
        None, description="A number for each choice: it then learns of each text the one that the model expects."
    )

    def scale(self, choices: Sequence[str]) -> tuple[float, ...] | None:
        """What `score` says of each choice, from 0 for the least to 1 for the most; None without it."""
        if self.score is None:
            return None
        numbers = [self.score[choice] for choice in choices]
        least, most = min(numbers), max(numbers)
        return tuple((number - least) / (most - least) for number in numbers)
