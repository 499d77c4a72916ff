"""A student of static embeddings: for each choice, the mean of the weights of a text's tokens.

Its head is linear, and so is the mean of a text's vectors: head times mean of vectors = mean of head times vector. So the file has one
number for each token and choice in place of vectors of hundreds, and the tokenizer; serving needs nothing else of the embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from batchinfer.student.features import MOST_CHARACTERS
from batchinfer.student.student import Student

UNKNOWN = re.compile(rb'"unk_id":\s*(\d+)')


class Tokens:
    """Gives texts their tokens, as numbers. content: tokenizer.json. Raises ValueError for what is none.

    count: how many tokens there are.
    """

    def __init__(self, content: bytes) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(content.decode())
        except Exception as exc:  # the library raises Exception itself
            raise ValueError(f"its tokenizer cannot be read: {exc}") from exc
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.count = self._tokenizer.get_vocab_size()
        self._unknown = self._unknown_token(content)

    def _unknown_token(self, content: bytes) -> int | None:
        """The number of the token that stands for what it does not know. Models of one kind have it in the file alone."""
        name = getattr(self._tokenizer.model, "unk_token", None)
        if name is not None:
            found: int | None = self._tokenizer.token_to_id(name)
            return found
        written = UNKNOWN.search(content)
        return None if written is None else int(written[1])

    def __call__(self, text: str) -> npt.NDArray[np.intp]:
        """None of a text of white space; those that the tokenizer does not know are left out."""
        begin = text[:MOST_CHARACTERS]
        try:
            ids = self._tokenizer.encode(begin, add_special_tokens=False).ids if begin.strip() else []
        except (UnicodeError, TypeError):  # halves of characters, which are no text
            return self(begin.encode("utf-8", "replace").decode())
        if self._unknown in ids:
            ids = [each for each in ids if each != self._unknown]
        return np.array(ids, np.intp)


class TokenStudent(Student):
    """Needs numpy, tokenizers and regex."""

    KIND, FORMAT = "model2vec", 2

    def __init__(self, choices: tuple[str, ...], threshold: float, weights: npt.NDArray[np.floating[Any]],
                 bias: npt.NDArray[np.floating[Any]], tokenizer: bytes) -> None:  # fmt: skip
        """tokenizer: tokenizer.json. There is a column for each of its tokens; ValueError if not."""
        super().__init__(choices, threshold, weights, bias)
        self._lists = [np.ascontiguousarray(row, np.float32) for row in weights]
        self._sums = self._means
        self._tokenizer, self._tokens = tokenizer, Tokens(tokenizer)
        if self._tokens.count != weights.shape[1]:
            raise ValueError("its weights do not fit its tokenizer")

    def _means(self, text: str) -> list[float]:
        """Of each choice, that of the weights of the text's tokens."""
        columns = self._tokens(text)
        return [float(row.take(columns).mean()) for row in self._lists] if len(columns) else []

    def _own(self) -> tuple[Mapping[str, Any], Mapping[str, npt.NDArray[Any]]]:
        return {}, {"tokenizer": np.frombuffer(self._tokenizer, np.uint8)}
