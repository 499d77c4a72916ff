"""How choices are scored: by the first token of each, or as wholes where first tokens collide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from batchinfer.core.records import Continuation
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import ModelError

Normalize = Literal["none", "tokens", "characters"]


class ChoicesCollide(ModelError):
    """Two choices are the same tokens, so no score can tell them apart."""


@dataclass(frozen=True, slots=True)
class Collision:
    """Choices that begin with the same token.

    choices: at least two.
    token: that they share, as text.
    """

    choices: tuple[str, ...]
    token: str

    def __str__(self) -> str:
        return f"{' and '.join(self.choices)} begin with {self.token!r}"


@dataclass(frozen=True, slots=True)
class ChoiceScoring:
    """What is scored of a job's choices.

    first_tokens: the token that stands for each choice; None where whole choices are scored.
    continuations: the whole choices; empty where first tokens are scored.
    collisions: why first tokens do not do.
    """

    first_tokens: tuple[int, ...] | None
    continuations: tuple[Continuation, ...] = ()
    collisions: tuple[Collision, ...] = ()


def scoring_of(choices: Sequence[str], normalize: Normalize, tokenizer: Tokenizer, *, chat: bool) -> ChoiceScoring:
    """One token decides where it can; whole choices are scored where first tokens collide, or lengths are to count.

    Raises ChoicesCollide for choices that are the same tokens.
    """
    tokens = tokenizer.in_place(choices, chat=chat)
    collisions = tuple(_collisions(choices, tokens, tokenizer))
    if normalize == "none" and not collisions:
        return ChoiceScoring(tuple(ids[0] for ids in tokens))
    if twins := [
        pair for pair, ids in zip(permutations(choices, 2), permutations(tokens, 2), strict=True) if ids[0] == ids[1]
    ]:
        raise ChoicesCollide(f"{' and '.join(twins[0])} are the same tokens for this model: take other words.")
    if _begins_another(choices):  # without its end a choice would be as likely as all that begin with it together
        end = tokenizer.end_token(chat=chat)
        tokens = [(*ids, end) for ids in tokens]
    pairs = zip(choices, tokens, strict=True)
    continuations = tuple(Continuation(ids, length(text, ids, normalize)) for text, ids in pairs)
    return ChoiceScoring(None, continuations, collisions)


def length(text: str, token_ids: Sequence[int], normalize: Normalize) -> int:
    """What a text's log-probability is divided by."""
    return {"none": 1, "tokens": len(token_ids), "characters": len(text)}[normalize]


def _collisions(choices: Sequence[str], tokens: Sequence[Sequence[int]], tokenizer: Tokenizer) -> Iterator[Collision]:
    sharing: dict[int, list[str]] = {}
    for choice, ids in zip(choices, tokens, strict=True):
        sharing.setdefault(ids[0], []).append(choice)
    for token, same in sharing.items():
        if len(same) > 1:
            yield Collision(tuple(same), tokenizer.spelled(token))


def _begins_another(choices: Sequence[str]) -> bool:
    return any(other.startswith(choice) for choice, other in permutations(choices, 2))
