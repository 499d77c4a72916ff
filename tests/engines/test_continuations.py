"""Requests for the scores of continuations, and what is made of their outputs; the outputs are staged."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from batchinfer.core.records import Continuation, Failure, Generation, Prompt
from batchinfer.engines.continuations import ContinuationScorer

KEY = bytes(16)
PROMPT = Prompt(KEY, (("user", "a"),), (1, 2, 3, 4), (Continuation((5, 6), 2), Continuation((7,))))


@dataclass
class Requests:
    """What was asked of vLLM. refuses: of which number on."""

    refuses: int | None = None
    made: list[tuple[str, list[int], bool]] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)

    def submit(self, request_id: str, token_ids: list[int], *, read_cache: bool) -> str | None:
        if self.refuses is not None and len(self.made) >= self.refuses:
            return "it is too long."
        self.made.append((request_id, token_ids, read_cache))
        return None

    def scorer(self) -> ContinuationScorer:
        return ContinuationScorer(self.submit, self.aborted.extend)

    def output(self, number: int, logprobs: list[float] | None, *, cached: int = 0, reason: str = "length") -> Any:
        """What vLLM returns for the request of this number."""
        request_id, token_ids, _ = self.made[number]
        return SimpleNamespace(
            request_id=request_id,
            prompt_token_ids=token_ids,
            num_cached_tokens=cached,
            outputs=[SimpleNamespace(finish_reason=reason, stop_reason=None)],
            prompt_logprobs=None if logprobs is None else SimpleNamespace(logprobs=logprobs),
        )


def test_a_prompt_is_answered_once_all_continuations_are_scored() -> None:
    """In any order; only the last positions count, each sum is divided by its length, and tokens are added up."""
    requests = Requests()
    scorer = requests.scorer()
    assert scorer.add(PROMPT) is None
    assert [token_ids for _, token_ids, _ in requests.made] == [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 7]]
    assert scorer.take(requests.output(1, [0.5, -3.0], cached=3)) is None
    result = scorer.take(requests.output(0, [-9.0, -9.0, -9.0, -1.0, -2.0]))
    assert result == Generation(KEY, "", "stop", 11, 3, 0, (-1.5, -3.0))


def test_what_the_cache_hides_is_asked_again_without_it() -> None:
    """VLLM tells nothing of positions that it did not compute: a score that needs one is never made of what lies there."""
    requests = Requests()
    scorer = requests.scorer()
    scorer.add(PROMPT)
    assert scorer.take(requests.output(0, [-9.0, -9.0, -9.0, 123.0, 456.0], cached=4)) is None
    assert scorer.take(requests.output(1, [-9.0, -9.0, -9.0, -3.0])) is None
    assert [read_cache for _, _, read_cache in requests.made] == [True, True, False]
    result = scorer.take(requests.output(2, [-9.0, -9.0, -9.0, -1.0, -2.0]))
    assert isinstance(result, Generation)
    assert result.logprobs == (-1.5, -3.0)


@pytest.mark.parametrize("told", [None, [], [-1.0]])
def test_too_few_log_probabilities_are_no_scores(told: list[float] | None) -> None:
    """The prompt is answered without scores, which reading it makes a failure of."""
    requests = Requests()
    scorer = requests.scorer()
    scorer.add(PROMPT)
    scorer.take(requests.output(0, told))
    result = scorer.take(requests.output(1, [-3.0]))
    assert isinstance(result, Generation)
    assert result.logprobs is None


@pytest.mark.parametrize("refuses", [0, 1])
def test_a_refused_request_fails_its_prompt(refuses: int) -> None:
    """The prompt fails once, its other requests are ended, and what they still give is of no use."""
    requests = Requests(refuses)
    scorer = requests.scorer()
    failure = scorer.add(PROMPT)
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.detail) == ("refused", "vLLM refused the prompt: it is too long.")
    assert {request_id for request_id, _, _ in requests.made} <= set(requests.aborted)
    assert all(scorer.take(requests.output(number, [-1.0, -2.0])) is None for number in range(len(requests.made)))


def test_a_request_that_is_refused_when_it_is_made_again_fails_its_prompt() -> None:
    """Nothing waits for an answer that never comes."""
    requests = Requests(2)
    scorer = requests.scorer()
    scorer.add(PROMPT)
    failure = scorer.take(requests.output(0, [], cached=4))
    assert isinstance(failure, Failure)
    assert failure.reason == "refused"


def test_an_error_of_the_engine_fails_the_prompt() -> None:
    """As with prompts that are answered in words."""
    requests = Requests()
    scorer = requests.scorer()
    scorer.add(PROMPT)
    failure = scorer.take(requests.output(0, None, reason="abort"))
    assert isinstance(failure, Failure)
    assert failure.reason == "engine_error"
    assert scorer.take(requests.output(1, [-3.0])) is None
