"""How a prompt is put to a server, and how its reply is read: as tokens to vLLM's, as chat turns to others."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from batchinfer.core.records import Continuation, Failure, Generation, Prompt
from batchinfer.engines import grammars
from batchinfer.engines.protocol import Task
from batchinfer.engines.server_api import Broken
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.engines.unknown_tokens import CHARACTERS
from batchinfer.errors import ModelError, shortened

MOST_TOP = 20  # of the likeliest tokens that a chat API tells the log-probabilities of
# sampling that OpenAI's API lacks, where it does nothing
BEYOND_OPENAI = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
# reasons for an end of answers that are whole, or at their limit
ENDS = frozenset({"stop", "length", "repetition", "eos_token", "stop_sequence"})
FILTERED = "content_filter"
NEUTRAL = {
    "top_p": 1.0,
    **BEYOND_OPENAI,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}  # fmt: skip - what an engine here does unless told otherwise, and a server as the model's generation_config.json has it
NO_CHANCE = -9998.0  # vLLM writes -9999 where a log-probability is minus infinity
ROUNDING = 1e-3  # by which a probability may be beyond 1
PART = "\ufffd"  # how a token is written that is no whole character
MOST_COUNTED = (1 << 31) - 1  # tokens
TOKEN = "token_id:"  # noqa: S105 - how vLLM spells a token by its number


class Dialect(ABC):
    """Requests and replies of one task.

    path: below the API's address.
    """

    path: str

    @abstractmethod
    def body(self, prompt: Prompt) -> dict[str, Any]:
        """The request."""

    @abstractmethod
    def _read(self, prompt: Prompt, reply: Any) -> Generation | Failure:
        """Raises LookupError, TypeError, ValueError or ArithmeticError for a reply that is not as it should be."""

    def read(self, prompt: Prompt, reply: Any) -> Generation | Failure:
        """What a reply says of the prompt. Raises Broken for one that lacks what it must have, or is not whole."""
        try:
            ends = [choice["finish_reason"] for choice in reply["choices"]]
            if FILTERED in ends:
                return Failure(prompt.prompt_key, "engine", "refused", "The server's filter withheld the answer.")
            if early := [end for end in ends if end not in ENDS]:
                raise Broken(f"ended its answer early ({shortened(str(early[0]))})")
            return _storable(self._read(prompt, reply))
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as exc:
            raise Broken("sent a reply that lacks what an answer must have") from exc


class TokenDialect(Dialect):
    """Tokens in, as they are: what only vLLM's own server takes, so that it answers what vLLM does in a child process."""

    path = "/completions"

    def __init__(self, task: Task, name: str, *, follows_xgrammar: bool = True) -> None:
        """name: of the model, or of its adapter, at the server."""
        self._task = task
        self._common: dict[str, Any] = {"model": name, "add_special_tokens": False, **NEUTRAL, **task.sampling}
        if task.score_tokens is not None:
            self._common |= {
                "max_tokens": 1, "logprobs": 0, "logprob_token_ids": list(task.score_tokens),
                "return_tokens_as_token_ids": True,
            }  # fmt: skip
        elif task.score_continuations:
            self._common |= {"max_tokens": 1, "prompt_logprobs": 0}
        elif task.constraint is not None:
            kind, value = task.constraint
            self._common["structured_outputs"] = {kind: _followed(kind, value) if follows_xgrammar else value}

    def body(self, prompt: Prompt) -> dict[str, Any]:
        tokens = list(prompt.token_ids)
        if self._task.score_continuations:
            return self._common | {"prompt": [[*tokens, *each.token_ids] for each in prompt.continuations]}
        return self._common | {"prompt": tokens}

    def _read(self, prompt: Prompt, reply: Any) -> Generation | Failure:
        choices, usage = sorted(reply["choices"], key=lambda choice: int(choice["index"])), reply["usage"]
        read, sent = _count(usage["prompt_tokens"]), _sent(prompt)
        if read != sent:
            said = (
                f"The server read {read:,} tokens where {sent:,} were sent: it is not vLLM's own, or changes prompts."
            )
            return Failure(prompt.prompt_key, "engine", "other_tokens", said)
        logprobs = None
        if self._task.score_continuations:
            pairs = zip(prompt.continuations, choices, strict=True)
            logprobs = _all(_logprob(scored, choice.get("prompt_logprobs")) for scored, choice in pairs)
        elif self._task.score_tokens is not None:
            told = ((choices[0].get("logprobs") or {}).get("top_logprobs") or [{}])[0]
            logprobs = _likelihoods(told.get(f"{TOKEN}{token}") for token in self._task.score_tokens)
        if logprobs is None and (self._task.score_continuations or self._task.score_tokens is not None):
            return _score_missing(prompt)
        is_whole = self._task.score_continuations
        return Generation(
            prompt_key=prompt.prompt_key,
            text="" if logprobs is not None else _text(choices[0]["text"]),
            finish_reason=choices[0]["finish_reason"],
            prompt_tokens=read,
            cached_tokens=_cached(usage),
            output_tokens=0 if is_whole else _count(usage["completion_tokens"]),
            logprobs=logprobs,
        )


class ChatDialect(Dialect):
    """Chat turns in, and the likeliest tokens out: what every server of the kind has."""

    path = "/chat/completions"

    def __init__(
        self, task: Task, name: str, longest: str, tokenizer: Tokenizer, chat_template_kwargs: Mapping[str, Any], *,
        takes_all: bool = False,
    ) -> None:  # fmt: skip
        """longest: what the server calls the limit of an answer's tokens. takes_all: whether it takes sampling beyond OpenAI's.

        Raises ModelError for a task that needs vLLM.
        """
        self._task = task
        self._common: dict[str, Any] = {"model": name, **_sampling(task, takes_all=takes_all)}
        if chat_template_kwargs:
            self._common["chat_template_kwargs"] = dict(chat_template_kwargs)
        if task.constraint is not None:
            self._common["response_format"] = _response_format(*task.constraint)
        self._spelled, self._is_exact = _spelled(task.score_tokens, tokenizer), tokenizer.is_known
        if task.score_continuations:
            raise needs_vllm("Whole choices, and the likelihood of a text, are")
        if task.score_tokens is not None:
            self._common |= {"max_tokens": 1, "logprobs": True, "top_logprobs": MOST_TOP}
        if (most := self._common.pop("max_tokens", None)) is not None:
            self._common[longest] = most

    def body(self, prompt: Prompt) -> dict[str, Any]:
        turns = [{"role": role, "content": content} for role, content in prompt.messages]
        return self._common | {"messages": turns}

    def _read(self, prompt: Prompt, reply: Any) -> Generation | Failure:
        choice, usage = reply["choices"][0], reply.get("usage") or {}
        logprobs = None
        if self._spelled:
            content = (choice.get("logprobs") or {}).get("content") or [{}]
            pairs = [(str(each["token"]), each["logprob"]) for each in content[0].get("top_logprobs") or ()]
            told = _by_text(pairs) if self._is_exact else _by_beginning(pairs, self._spelled)
            logprobs = _likelihoods(told.get(text) for text in self._spelled)
            if logprobs is None:
                return _score_missing(prompt)
        return Generation(
            prompt_key=prompt.prompt_key,
            text="" if logprobs is not None else _text(choice["message"]["content"], or_none=True),
            finish_reason=choice["finish_reason"],
            prompt_tokens=_count(usage.get("prompt_tokens") or 0),
            cached_tokens=_cached(usage),
            output_tokens=_count(usage.get("completion_tokens") or 0),
            logprobs=logprobs,
        )


def _storable(result: Generation | Failure) -> Generation | Failure:
    """The same. Raises ValueError for a text with half a surrogate pair, which JSON may have and nothing can store."""
    if isinstance(result, Generation):
        result.text.encode()
    return result


def _text(value: Any, *, or_none: bool = False) -> str:
    """A text. or_none: whether it may be left out, as it is of an empty answer. Raises ValueError for all else, such as parts."""
    if isinstance(value, str):
        return value
    if or_none and value is None:
        return ""
    raise ValueError("no text")


def _followed(kind: str, value: Any) -> Any:
    """What vLLM can follow of a schema or a pattern."""
    text = value if isinstance(value, str) else json.dumps(value)
    return grammars.followed_elsewhere(kind, text).value


def _sampling(task: Task, *, takes_all: bool) -> dict[str, Any]:
    """All of it where a server takes it, whose defaults may be others; else what it lacks only where that is to do something."""
    wanted = (NEUTRAL if takes_all else {}) | task.sampling
    return {
        name: value for name, value in wanted.items()
        if value is not None and value != [] and (takes_all or BEYOND_OPENAI.get(name, ...) != value)
    }  # fmt: skip


def _response_format(kind: str, value: Any) -> dict[str, Any]:
    if kind != "json":
        raise needs_vllm("output.pattern is")
    return (
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": value}}
        if value
        else {"type": "json_object"}
    )


def _spelled(tokens: Sequence[int] | None, tokenizer: Tokenizer) -> tuple[str, ...]:
    """The tokens to score, as the server writes them. Raises ModelError where two of them are written alike, or as others are."""
    spelled = tuple(tokenizer.spelled(token) for token in tokens or ())
    if any(PART in text for text in spelled):  # so are parts of other characters, whose score would be taken
        raise needs_vllm("Choices that begin with a part of a character, as of a rare sign, are")
    if len(set(spelled)) < len(spelled):
        raise needs_vllm("Choices that begin with tokens of one spelling are")
    return spelled


def _by_text(told: Iterable[tuple[str, Any]]) -> dict[str, float]:
    """The log-probability of each spelling: the likeliest token's, where a server writes two of them alike."""
    found = dict[str, float]()
    for text, told_logprob in told:
        if (logprob := _log_probability(told_logprob)) is not None:
            found[text] = max(logprob, found.get(text, logprob))
    return found


def _by_beginning(told: Iterable[tuple[str, Any]], spelled: Sequence[str]) -> dict[str, float]:
    """The likeliest of the tokens that each choice may begin with, where nobody knows the model's tokens.

    spelled: the beginnings of the choices: whole ones, where they are shorter than `CHARACTERS`. A token with which two of them may
    begin says nothing of either.
    """
    fitting = list[tuple[str, Any]]()
    for token, logprob in told:
        text = token.strip()
        fits = [each for each in spelled if text and _may_begin(each, text)]
        if len(fits) == 1:
            fitting.append((fits[0], logprob))
    return _by_text(fitting)


def _may_begin(spelled: str, token: str) -> bool:
    """Whether a choice, of which this is the beginning, may begin with a token: not with "Not" where the choice is No."""
    return spelled.startswith(token) or (len(spelled) == CHARACTERS and token.startswith(spelled))


def needs_vllm(what: str) -> ModelError:
    """Why a server that is not vLLM's cannot be asked. what: with its verb."""
    return ModelError(
        f"{what} for vLLM alone, and the server is another one: use a vLLM server, or leave the engine out.",
        field=("engine",),
    )


def _sent(prompt: Prompt) -> int:
    """The tokens of a prompt's requests together."""
    length = len(prompt.token_ids)
    if not prompt.continuations:
        return length
    return sum(length + len(each.token_ids) for each in prompt.continuations)


def _logprob(continuation: Continuation, told: Sequence[Any] | None) -> float | None:
    """A continuation's log-probability by its length; None if the server told too little."""
    count = len(continuation.token_ids)
    if told is None or len(told) < count:
        return None
    pairs = zip(continuation.token_ids, told[-count:], strict=True)
    parts = _all(_log_probability((position or {}).get(str(token), {}).get("logprob")) for token, position in pairs)
    return None if parts is None else math.fsum(parts) / continuation.length


def _all(values: Any) -> tuple[float, ...] | None:
    """All of them; None if one is missing."""
    found = tuple(values)
    return None if None in found else found


def _likelihoods(told: Iterable[Any]) -> tuple[float, ...] | None:
    """The log-probabilities of different tokens in one place; None if one is missing, or they cannot be that together."""
    found = _all(_log_probability(each) for each in told)
    return None if found is None or math.fsum(map(math.exp, found)) > 1 + ROUNDING else found


def _log_probability(value: Any) -> float | None:
    """The same; None for what is none: a raw logit, or what stands for a probability of 0, which no token has."""
    return float(value) if isinstance(value, int | float) and NO_CHANCE < value <= ROUNDING else None


def _cached(usage: Mapping[str, Any]) -> int:
    """Tokens of the prompt that the server had computed before, where it says so."""
    return _count((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)


def _count(value: Any) -> int:
    """A number of tokens. Raises ValueError for what is none."""
    if not isinstance(value, int) or not 0 <= value <= MOST_COUNTED:
        raise ValueError(f"{value!r} is no count")
    return value


def _score_missing(prompt: Prompt) -> Failure:
    said = "The server told nothing of how likely one of the choices is."
    return Failure(prompt.prompt_key, "engine", "score_missing", said)
