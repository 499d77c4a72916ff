"""Scores of continuations by vLLM: each is a request that ends with it, and vLLM tells the log-probability of each token.

A request for `prompt_logprobs` reads nothing of the prefix cache by default, since vLLM tells nothing of positions that it
did not compute. Here only the last positions are wanted, so the cache is read, and a request of which it had more than the
prompt is made again without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from batchinfer.core.records import Continuation, Failure, Generation, Prompt

SAMPLING = {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0, "flat_logprobs": True, "detokenize": False}
AGAIN = "again"


class Submit(Protocol):
    """Hands vLLM a request."""

    def __call__(self, request_id: str, token_ids: list[int], *, read_cache: bool) -> str | None:
        """Returns why vLLM refused it, or None. read_cache: whether it may take from the prefix cache."""


@dataclass(slots=True)
class _ScoredPrompt:
    """A prompt whose continuations are being scored.

    prompt: the prompt.
    logprobs: those that are known, by the continuation's number.
    read_tokens, cached_tokens: of its requests so far.
    """

    prompt: Prompt
    logprobs: dict[int, float | None] = field(default_factory=dict)
    read_tokens: int = 0
    cached_tokens: int = 0


class ContinuationScorer:
    """Makes requests of prompts with continuations, and a generation of their outputs."""

    def __init__(self, submit: Submit, abort: Callable[[list[str]], None]) -> None:
        """abort: ends the requests with these ids."""
        self._submit, self._abort = submit, abort
        self._underway: dict[str, _ScoredPrompt] = {}

    def add(self, prompt: Prompt) -> Failure | None:
        """Takes one prompt; a Failure if vLLM refuses a request of it."""
        name = prompt.prompt_key.hex()
        self._underway[name] = _ScoredPrompt(prompt)
        requests = (self._request(name, number, f"{name}/{number}") for number in range(len(prompt.continuations)))
        return next((refusal for refusal in requests if refusal is not None), None)

    def _request(self, name: str, number: int, request_id: str, *, read_cache: bool = True) -> Failure | None:
        """Asks for one continuation's score. A prompt of which vLLM refuses one has failed."""
        prompt = self._underway[name].prompt
        token_ids = [*prompt.token_ids, *prompt.continuations[number].token_ids]
        refusal = self._submit(request_id, token_ids, read_cache=read_cache)
        return refusal if refusal is None else self._failed(name, "refused", f"vLLM refused the prompt: {refusal}")

    def take(self, output: Any) -> Generation | Failure | None:
        """Takes what a request came to; returns the prompt's result once all of its requests are done."""
        name, number = str(output.request_id).split("/")[:2]
        state = self._underway.get(name)
        if state is None:
            return None  # of a prompt that failed
        completion, cached = output.outputs[0], int(output.num_cached_tokens or 0)
        if completion.finish_reason in ("error", "abort"):
            return self._failed(name, "engine_error", f"vLLM gave up on the prompt ({completion.stop_reason}).")
        state.read_tokens += len(output.prompt_token_ids or ())
        state.cached_tokens += cached
        if cached >= len(state.prompt.token_ids):
            return self._request(name, int(number), f"{name}/{number}/{AGAIN}", read_cache=False)
        state.logprobs[int(number)] = _logprob(state.prompt.continuations[int(number)], output.prompt_logprobs)
        return self._result(name, state)

    def _result(self, name: str, state: _ScoredPrompt) -> Generation | None:
        count = len(state.prompt.continuations)
        if len(state.logprobs) < count:
            return None
        del self._underway[name]
        known = [logprob for number in range(count) if (logprob := state.logprobs[number]) is not None]
        return Generation(
            prompt_key=state.prompt.prompt_key,
            text="",
            finish_reason="stop",
            prompt_tokens=state.read_tokens,
            cached_tokens=state.cached_tokens,
            output_tokens=0,
            logprobs=tuple(known) if len(known) == count else None,
        )

    def _failed(self, name: str, reason: str, detail: str) -> Failure:
        """Ends what is under way of a prompt."""
        prompt = self._underway.pop(name).prompt
        ids = [f"{name}/{number}" for number in range(len(prompt.continuations))]
        self._abort([*ids, *(f"{request_id}/{AGAIN}" for request_id in ids)])
        return Failure(prompt.prompt_key, "engine", reason, detail)


def _logprob(continuation: Continuation, told: Any) -> float | None:
    """A continuation's log-probability by its length; None if vLLM told too little.

    told: flat log-probabilities of positions, the last of them those of the continuation.
    """
    count = len(continuation.token_ids)
    if told is None or len(told.logprobs) < count:
        return None
    return math.fsum(told.logprobs[-count:]) / continuation.length
