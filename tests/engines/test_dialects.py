"""How replies of servers are read: what is an answer, and what only looks like one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.records import Failure, Generation, Prompt
from batchinfer.engines.dialects import ChatDialect, Dialect, TokenDialect
from batchinfer.engines.protocol import Task
from batchinfer.engines.server_api import Broken
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import ModelError

PROMPT = Prompt(bytes(16), (("user", "?"),), (1, 2))
SCORED = Task({"temperature": 0.0}, score_tokens=(5, 6))


def completion(**choice: Any) -> dict[str, Any]:
    """A reply of vLLM's server to the prompt. choice: what is otherwise in its only answer."""
    usage = {"prompt_tokens": 2, "completion_tokens": 1}
    return {"choices": [{"index": 0, "text": "yes", "finish_reason": "stop"} | choice], "usage": usage}


def chat(
    content: Any = "yes", likely: list[tuple[str, float]] | None = None, end: str | None = "stop"
) -> dict[str, Any]:
    """A reply of another server. likely: tokens that its answer may begin with."""
    top = [{"token": token, "logprob": logprob} for token, logprob in likely or ()]
    logprobs = {"content": [{"top_logprobs": top}]}
    return {"choices": [{"message": {"content": content}, "finish_reason": end, "logprobs": logprobs}]}


def tokens(task: Task = Task({})) -> Dialect:  # noqa: B008 - frozen
    return TokenDialect(task, "model")


def turns(source: str, *choices: str) -> Dialect:
    """The dialect of other servers, for a job with these choices. source: of the model."""
    tokenizer = Tokenizer(source, None, {})
    first = tuple(ids[0] for ids in tokenizer.in_place(choices, chat=True)) if choices else None
    return ChatDialect(Task({}, score_tokens=first), "model", "max_tokens", tokenizer, {})


def scored(dialect: Dialect, reply: dict[str, Any]) -> tuple[float, ...] | None:
    """The log-probabilities that a reply tells; None where it tells too little."""
    found = dialect.read(PROMPT, reply)
    if isinstance(found, Failure):
        assert found.reason == "score_missing"
        return None
    return found.logprobs


def likely(first: Any, second: Any) -> dict[str, Any]:
    return completion(logprobs={"top_logprobs": [{"token_id:5": first, "token_id:6": second}]})


@pytest.mark.parametrize("end", ["abort", "error", "insufficient_system_resource", None, 5, ["stop"]])
def test_half_an_answer_is_none(end: Any) -> None:
    """A server that is restarted ends what it has under way, and tells the beginnings: they are asked for again."""
    with pytest.raises(Broken):
        tokens().read(PROMPT, completion(text="half an ans", finish_reason=end))
    with pytest.raises(Broken):
        turns("server/large").read(PROMPT, chat("half an ans", end=end))
    with pytest.raises(Broken):
        tokens(SCORED).read(
            PROMPT, likely(-1.0, -2.0) | {"choices": [likely(-1.0, -2.0)["choices"][0] | {"finish_reason": end}]}
        )


@pytest.mark.parametrize("end", ["stop", "length"])
def test_a_whole_answer(end: str) -> None:
    """One that the model ended, or that reached its limit, which whoever parses it decides about."""
    for found in (
        tokens().read(PROMPT, completion(finish_reason=end)),
        turns("server/large").read(PROMPT, chat(end=end)),
    ):
        assert isinstance(found, Generation)
        assert (found.text, found.finish_reason) == ("yes", end)


def test_an_answer_that_a_filter_withheld() -> None:
    """It is the row's failure, by whatever server."""
    for found in (
        tokens().read(PROMPT, completion(finish_reason="content_filter")),
        turns("server/large").read(PROMPT, chat(end="content_filter")),
    ):
        assert isinstance(found, Failure)
        assert found.reason == "refused"


def test_a_text_is_a_text() -> None:
    """An answer in parts, or none, is never written out as if it were one; chats leave an empty text out."""
    with pytest.raises(Broken):
        tokens().read(PROMPT, completion(text=None))
    with pytest.raises(Broken):
        turns("server/large").read(PROMPT, chat([{"type": "text", "text": "yes"}]))
    found = turns("server/large").read(PROMPT, chat(None))
    assert isinstance(found, Generation)
    assert found.text == ""


@pytest.mark.parametrize("told", [(-9999.0, -0.1), (17.5, -1.0), (-0.1, -0.2), (10**400, -1.0), (float("nan"), -1.0)])
def test_what_is_no_log_probability(told: tuple[Any, Any]) -> None:
    """Raw logits, vLLM's number for a chance of 0, and probabilities that are more than 1 together tell nothing."""
    assert scored(tokens(SCORED), likely(*told)) is None
    assert scored(tokens(SCORED), likely(-0.1, -3.0)) == (-0.1, -3.0)


def test_numbers_beyond_all_bounds() -> None:
    """They are this reply's fault, and end nothing else."""
    with pytest.raises(Broken):
        tokens().read(PROMPT, completion(index=float("inf")))


def test_the_likeliest_of_two_tokens_of_one_spelling_counts(tiny: Path) -> None:
    """Servers write a word's beginning with and without its space alike; the less likely one stands later."""
    told = [("P", -0.1), ("N", -3.0), ("P", -9.0)]
    assert scored(turns(str(tiny), "P", "N"), chat(likely=told)) == (-0.1, -3.0)


def test_a_choice_that_begins_with_a_part_of_a_character(tiny: Path) -> None:
    """Servers write all such parts alike, so another character's score would be taken for it."""
    with pytest.raises(
        ModelError, match="Choices that begin with a part of a character, as of a rare sign, are for vLLM alone"
    ):
        turns(str(tiny), "✓", "no")
    assert scored(turns("server/large", "✓", "no"), chat(likely=[("✓", -0.1), ("no", -3.0)])) == (-0.1, -3.0)


@pytest.mark.parametrize(
    ("choices", "told", "expected"),
    [
        (("A", "B"), [("Actually", -0.1), ("B", -2.5), ("A", -5.0)], (-5.0, -2.5)),
        (("yes", "no"), [("not", -0.1), ("yes", -2.5), ("no", -6.0)], (-2.5, -6.0)),
        (("positive", "negative"), [("positive", -0.2), ("neg", -2.5)], (-0.2, -2.5)),
        (("positive", "post"), [("pos", -0.2), ("posit", -2.5), ("post", -3.0)], (-2.5, -3.0)),
    ],
)
def test_tokens_with_which_a_choice_may_begin(
    choices: tuple[str, ...], told: list[tuple[str, float]], expected: tuple[float, ...]
) -> None:
    """Where nobody knows the tokens: the choice's beginning, or as much of it as is known; never another word."""
    assert scored(turns("server/large", *choices), chat(likely=told)) == expected
