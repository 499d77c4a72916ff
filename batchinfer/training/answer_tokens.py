"""What a model gives the tokens of answers that follow prompts: what a training learns from, and what rows are scored by."""

from __future__ import annotations

import math
from typing import Any

from batchinfer.training.records import TokenIds


class AnswerTokens:
    """What the model gives the tokens of answers.

    goals: those tokens, to the right; -1 elsewhere: (rows, tokens).
    """

    def __init__(self, logits: Any, goals: Any) -> None:
        self._logits, self.goals = logits.float(), goals

    @property
    def logprobs(self) -> Any:
        """Of all tokens of all answers, in one row."""
        said = self._logits.log_softmax(-1)
        known = self.goals >= 0
        return said[known].gather(-1, self.goals[known].unsqueeze(-1)).squeeze(-1)

    def logprob(self, row: int, answer: TokenIds) -> float:
        """Of a whole answer to that row."""
        said = self._logits[row, -len(answer) :].double().log_softmax(-1)
        return math.fsum(float(said[place, token]) for place, token in enumerate(answer))

    def is_greedy(self, row: int, answer: TokenIds) -> bool:
        """Whether each token of an answer to that row is the likeliest in its place."""
        likeliest: list[int] = self._logits[row, -len(answer) :].argmax(-1).tolist()
        return likeliest == list(answer)
