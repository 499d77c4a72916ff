"""The engine that asks a server, against a scripted one that stages faults. The real one: `test_openai_vllm.py`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.records import Continuation, Failure, Generation, Prompt
from batchinfer.engines.openai import OpenAIEngine
from batchinfer.engines.protocol import EngineConfig, Task
from batchinfer.engines.server_engine import EngineClock, api_of
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import CutShort, MissingExtra, ModelError, Stopped, UsageError
from batchinfer.job.engine_spec import OpenAISpec
from tests.openai_server import BUSY, HALF, HTML, PAGE, Fault, ScriptedServer, card, serving
from tests.tiny import make_job, numbered

ASK = Task({"temperature": 0.0, "max_tokens": 8})
TEN_MINUTES = 600.0


@dataclass
class StagedTime:
    """A clock that only moves when somebody sleeps. at: what happens once it shows so many seconds."""

    now: float = 0.0
    at: dict[float, Any] = field(default_factory=dict)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for time in [time for time in self.at if time <= self.now]:
            self.at.pop(time)()

    @property
    def clock(self) -> EngineClock:
        return EngineClock(lambda: self.now, self.sleep)


@dataclass
class Bench:
    """An engine of a job on a scripted server.

    said: what it told. stall_seconds: that an answer may take. adapter: of the model. output: the job's section.
    more: sections of the job.
    """

    server: ScriptedServer
    tiny: Path
    folder: Path
    said: list[str] = field(default_factory=list)
    stall_seconds: float = 5.0
    adapter: str | None = None
    output: dict[str, Any] | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def engine(self, time: StagedTime | None = None, **engine: Any) -> Iterator[OpenAIEngine]:
        """Not looked at yet. engine: of the job's section."""
        section = {"kind": "openai", "base_url": self.server.url, **engine}
        job, _ = make_job(self.folder / "shop", numbered(1), self.tiny, engine=section, output=self.output, **self.more)
        spec = job.spec.engine
        assert isinstance(spec, OpenAISpec)
        api = api_of(spec, connections=8, stall_seconds=self.stall_seconds)
        clock = None if time is None else time.clock
        config = EngineConfig(str(self.tiny), adapter=self.adapter)
        with OpenAIEngine(api, job, spec, config, info=self.said.append, clock=clock) as made:
            yield made

    def ask(self, count: int, task: Task = ASK, time: StagedTime | None = None, **engine: Any) -> dict[str, Any]:
        """Asks so many prompts; each must come back once."""
        asked = prompts(count)
        with self.engine(time, **engine) as made:
            made.wait_ready()
            results = list(made.generate(task, iter(asked)))
        assert sorted(result.prompt_key or b"" for result in results) == [prompt.prompt_key for prompt in asked]
        return {str(int.from_bytes(result.prompt_key or b"")): result for result in results}


def prompts(count: int, scored: tuple[Continuation, ...] = ()) -> list[Prompt]:
    texts = [f"query {number:03d}" for number in range(count)]
    return [
        Prompt(number.to_bytes(16), (("user", text),), tuple(text.encode()), scored)
        for number, text in enumerate(texts)
    ]


@pytest.fixture
def bench(tiny: Path, tmp_path: Path) -> Iterator[Bench]:
    with serving(models=[card(str(tiny), max_model_len=500)]) as server:
        yield Bench(server, tiny, tmp_path)


def test_every_prompt_is_answered_once(bench: Bench) -> None:
    """Prompts go out as tokens, and answers come back with their key; no more are in flight than may be."""
    found = bench.ask(60, in_flight=7)
    assert found["41"] == Generation(
        (41).to_bytes(16), "query 041", "stop", prompt_tokens=9, cached_tokens=0, output_tokens=1
    )
    assert len(bench.server.asked) == 60
    assert bench.server.most <= 7
    assert bench.server.asked[0]["add_special_tokens"] is False
    assert bench.server.asked[0]["temperature"] == 0.0


def test_choices_are_scored_by_their_tokens(bench: Bench) -> None:
    """The log-probabilities of exactly the tokens that are asked for come back in their order, by number, not by spelling."""
    found = bench.ask(2, Task({"temperature": 0.0}, score_tokens=(80, 78)))
    assert found["1"].logprobs == (-1.0, -2.0)
    assert bench.server.asked[0]["logprob_token_ids"] == [80, 78]
    assert bench.server.asked[0]["return_tokens_as_token_ids"] is True


def test_whole_choices_are_scored(bench: Bench) -> None:
    """All continuations of a prompt go out in one request; their log-probabilities are summed, and divided by their length."""
    [asked] = prompts(1, (Continuation((65, 66)), Continuation((67,), 2)))
    with bench.engine() as made:
        made.wait_ready()
        [result] = made.generate(Task({"temperature": 0.0}, score_continuations=True), [asked])
    assert isinstance(result, Generation)
    assert result.logprobs == pytest.approx((-0.131, -0.0335))
    assert (result.prompt_tokens, result.output_tokens) == (2 * 9 + 3, 0)


def test_a_choice_outside_what_came_back_is_a_failure(bench: Bench) -> None:
    """It is never taken for a probability of 0; nor is a number that is none."""
    for told in ({"token_id:80": -1.0}, {"token_id:80": -1.0, "token_id:78": float("nan")}, None):

        def less(reply: dict[str, Any], told: Any = told) -> dict[str, Any]:
            reply["choices"][0]["logprobs"] = None if told is None else {"top_logprobs": [told]}
            return reply

        bench.server.answer = less
        [failure] = bench.ask(1, Task({"temperature": 0.0}, score_tokens=(80, 78))).values()
        assert isinstance(failure, Failure)
        assert failure.reason == "score_missing"


@pytest.mark.parametrize(
    "change",
    [
        lambda reply: reply.update(choices=[]),
        lambda reply: reply.update(choices=None),
        lambda reply: reply.update(usage=None),
        lambda reply: reply["usage"].update(completion_tokens=1 << 40),
        lambda reply: reply["usage"].update(completion_tokens=-1),
        lambda reply: reply["choices"][0].update(text="half a pair: \ud83d"),
        lambda reply: reply["choices"][0].pop("finish_reason"),
    ],
)
def test_a_reply_that_nobody_can_use_fails_the_row(bench: Bench, change: Callable[[dict[str, Any]], object]) -> None:
    """Whatever stands in it, the row fails with a sentence, and what is told can be stored."""

    def changed(reply: dict[str, Any]) -> dict[str, Any]:
        change(reply)
        return reply

    with bench.engine() as made:
        made.wait_ready()
        bench.server.answer = changed
        [failure] = made.generate(ASK, prompts(1))
    assert isinstance(failure, Failure)
    assert (failure.reason, "lacks what an answer must have" in failure.detail) == ("engine_error", True)


def test_a_server_that_reads_other_tokens_fails_the_prompt(bench: Bench) -> None:
    """One that adds a token, or cuts a prompt off, did not answer what was asked."""

    def cut(reply: dict[str, Any]) -> dict[str, Any]:
        reply["usage"]["prompt_tokens"] -= 1
        return reply

    with bench.engine() as made:
        made.wait_ready()
        bench.server.answer = cut
        [failure] = made.generate(ASK, prompts(1))
    assert isinstance(failure, Failure)
    assert (failure.reason, "8 tokens where 9 were sent" in failure.detail) == ("other_tokens", True)


@pytest.mark.parametrize(
    "fault", [BUSY, PAGE, HALF, Fault(429, b"", {"retry-after": "7"}), Fault(502, HTML), Fault(500)]
)
def test_it_asks_again_whatever_went_wrong(bench: Bench, fault: Fault) -> None:
    """The first request for each prompt fails: each is answered once all the same, without a failure."""
    bench.server.fault = lambda _number, content: fault if bench.server.asked.count(content) == 1 else None
    found = bench.ask(12, time=StagedTime(), in_flight=4)
    assert all(isinstance(result, Generation) for result in found.values())


def test_an_answer_that_does_not_come(bench: Bench) -> None:
    """The prompt is asked again after as long as an answer may take; one that is only slow is waited for."""
    bench.stall_seconds = 0.4
    bench.server.fault = lambda number, _content: Fault(late=0.8 if number == 0 else 0.1)
    found = bench.ask(3, in_flight=1)
    assert all(isinstance(result, Generation) for result in found.values())
    assert len(bench.server.asked) == 4


def test_less_is_sent_to_a_server_that_sheds_load(bench: Bench) -> None:
    """One that takes three at a time and answers 503 to others gets no more than it takes, soon."""

    def shed(_number: int, _content: dict[str, Any]) -> Fault | None:
        return BUSY if bench.server._in_flight > 3 else None

    bench.server.fault = shed
    found = bench.ask(300, time=StagedTime())
    assert all(isinstance(result, Generation) for result in found.values())
    assert len(bench.server.asked) < 600  # shed at first, and once for each time that it tries one more


def test_retry_after_is_honoured(bench: Bench) -> None:
    """Nothing is sent for as long as the server asks for."""
    time = StagedTime()
    bench.server.fault = lambda number, _content: Fault(429, b"", {"retry-after": "90"}) if number == 0 else None
    bench.ask(3, time=time, in_flight=1)
    assert 90 <= time.now < 120


def test_a_prompt_that_breaks_the_server_fails_alone(bench: Bench) -> None:
    """It is asked alone the third time, so that those beside it are not blamed, and fails with the fourth."""
    poison = list(b"query 005")
    alone: list[int] = []

    def breaks(_number: int, content: dict[str, Any]) -> Fault | None:
        if content["prompt"] == poison:
            alone.append(bench.server._in_flight)
            return Fault(500, b'{"error": {"message": "assertion failed"}}')
        return None

    bench.server.fault = breaks
    found = bench.ask(20, in_flight=6)
    failure = found.pop("5")
    assert isinstance(failure, Failure)
    assert failure.reason == "engine_error"
    assert "assertion failed" in failure.detail
    assert alone[2:] == [1, 1]
    assert all(isinstance(result, Generation) for result in found.values())


def test_what_the_server_refuses_fails_with_its_words(bench: Bench) -> None:
    """A prompt that is too long for it, for example, is not asked again."""
    bench.server.fault = lambda number, _content: (
        Fault(400, b'{"error": {"message": "longer than\\n the maximum."}}') if number == 1 else None
    )
    found = bench.ask(3, in_flight=1)
    failure = found["1"]
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.detail) == ("refused", "The server refused the prompt: longer than the maximum.")
    assert len(bench.server.asked) == 3


def test_a_server_that_is_down_for_ten_minutes_is_waited_for(bench: Bench) -> None:
    """Rows go on where they were once it is there again; it was looked at before, and people were told twice."""
    time = StagedTime(at={TEN_MINUTES: bench.server.start})

    def end(number: int, _content: dict[str, Any]) -> Fault | None:
        if number == 5:
            bench.server.stop()
        return HALF if number >= 5 and time.now < TEN_MINUTES else None

    bench.server.fault = end
    found = bench.ask(30, time=time, in_flight=1)
    assert all(isinstance(result, Generation) for result in found.values())
    assert TEN_MINUTES <= time.now < TEN_MINUTES + 100
    assert bench.server.probes == 2
    assert [said.partition("/v1 ")[2].partition(":")[0] for said in bench.said] == [
        "cannot be reached",
        "answers again.",
    ]


def test_patience_has_an_end(bench: Bench) -> None:
    """A server that answers nothing for longer than the job allows ends the run, which can be resumed."""
    bench.server.fault = lambda _number, _content: BUSY
    time = StagedTime()
    with pytest.raises(
        CutShort,
        match=r"has too much to do \(HTTP 503: overloaded\).* as long as engine.patience allows",
    ):
        bench.ask(3, time=time, patience="2h")
    assert 7200 <= time.now < 7300


def test_another_model_in_its_place_ends_the_run(bench: Bench, tiny: Path) -> None:
    """A server that comes back with another model is not asked on: what it answers would stay in the cache."""

    def other(number: int, _content: dict[str, Any]) -> Fault | None:
        bench.server.models = [card("other/model")]
        return Fault(502) if number == 1 else None

    bench.server.fault = other
    with pytest.raises(CutShort, match=rf"cannot go on: .* lists other/model, not {tiny}"):
        bench.ask(5, time=StagedTime(), in_flight=1)
    assert len(bench.server.asked) == 2


def test_a_key_that_is_taken_back_ends_the_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for: only another key can help."""
    monkeypatch.setenv("SHOP_KEY", "right")

    def revoke(number: int, _content: dict[str, Any]) -> None:
        if number == 1:
            bench.server.key = "another"

    bench.server.key, bench.server.fault = "right", revoke
    with pytest.raises(CutShort, match=r"cannot go on: .* does not take the key \(HTTP 401\): .*SHOP_KEY"):
        bench.ask(5, time=StagedTime(), in_flight=1, api_key_env="SHOP_KEY")


def test_a_call_that_was_not_read_to_its_end(bench: Bench) -> None:
    """What is under way of it is nobody's any more."""
    with bench.engine(in_flight=4) as made:
        made.wait_ready()
        next(iter(made.generate(ASK, prompts(20))))
        results = list(made.generate(ASK, prompts(10)))
    assert sorted(int.from_bytes(result.prompt_key or b"") for result in results) == list(range(10))


def test_a_wait_for_the_server_can_be_ended(bench: Bench) -> None:
    """What is called meanwhile may raise, as a run that was asked to stop does."""
    bench.server.stop()

    def stop() -> None:
        raise Stopped("asked to")

    with bench.engine(StagedTime()) as made:
        made._meanwhile = stop
        with pytest.raises(Stopped, match="asked to"):
            made.wait_ready()


TRUST: dict[str, Any] = {"served_model_name": "shop/model", "trust_model": True}


class TestAnotherServer:
    """One that is not vLLM's: chat turns, and the likeliest tokens."""

    @pytest.fixture
    def bench(self, tiny: Path, tmp_path: Path) -> Iterator[Bench]:
        with serving(models=[card("shop/model", vllm=False)]) as server:
            yield Bench(server, tiny, tmp_path)

    def test_it_is_asked_in_turns(self, bench: Bench) -> None:
        """Messages go out as they are, with all sampling where it takes that, since its own defaults may be others.

        What OpenAI's API lacks is left out at its default where it does not, and told.
        """
        sampling = {
            "temperature": 0.0,
            "max_tokens": 8,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop": [],
            "seed": 3,
        }
        bench.ask(1, Task(sampling), **TRUST)
        assert (
            bench.server.asked.pop().items() >= {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 3}.items()
        )
        bench.server.unknown = ("min_p",)
        found = bench.ask(3, Task(sampling), **TRUST)
        assert found["2"].text == "query 002"
        assert bench.server.asked[0] == {
            "model": "shop/model", "temperature": 0.0, "max_tokens": 8, "seed": 3,
            "messages": bench.server.asked[0]["messages"],
        }  # fmt: skip

    def test_the_limit_of_an_answer_has_the_server_s_name(self, bench: Bench) -> None:
        """OpenAI's later models refuse the older one; which it is, is found before the first row."""
        bench.server.longest = "max_completion_tokens"
        bench.ask(1, **TRUST)
        assert (bench.server.asked[0]["max_completion_tokens"], "max_tokens" in bench.server.asked[0]) == (8, False)

    def test_a_server_that_takes_no_chat(self, bench: Bench) -> None:
        """It is told with the server's words, before the first row."""
        bench.server.longest = "max_something"
        with pytest.raises(ModelError, match=r"takes no chat: Unsupported parameter: use 'max_something' instead\."):
            bench.ask(1, **TRUST)

    def test_json_is_asked_for_by_its_schema(self, bench: Bench) -> None:
        """As response_format, which all of them know."""
        bench.ask(1, Task({}, ("json", {"type": "object"})), **TRUST)
        assert bench.server.asked[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}

    def test_choices_are_scored_by_the_likeliest_tokens(self, bench: Bench) -> None:
        """By their spelling; one that is not among the likeliest is a failure."""
        [scored] = bench.ask(1, Task({"temperature": 0.0}, score_tokens=(80, 78)), **TRUST).values()
        assert scored.logprobs == (-1.0, -2.0)
        [failure] = bench.ask(1, Task({"temperature": 0.0}, score_tokens=(80, 81)), **TRUST).values()
        assert failure.reason == "score_missing"

    @pytest.mark.parametrize(
        ("task", "what"),
        [
            (Task({}, ("regex", "a+")), "output.pattern is for vLLM alone"),
            (Task({}, score_continuations=True), "Whole choices, and the likelihood of a text, are for vLLM alone"),
        ],
    )
    def test_what_needs_vllm_is_refused(self, bench: Bench, task: Task, what: str) -> None:
        """Before a row is asked."""
        with pytest.raises(ModelError, match=what):
            bench.ask(1, task, **TRUST)
        assert not bench.server.asked

    def test_it_must_be_trusted(self, bench: Bench) -> None:
        """That it has the job's model cannot be shown: neither name nor tokens say so."""
        with pytest.raises(
            ModelError, match=r"cannot be shown to have .*open is that shop/model is .*; its tokens"
        ) as refused:
            bench.ask(1, served_model_name="shop/model")
        assert "engine.trust_model: true" in str(refused.value)
        with bench.engine(**TRUST) as made:
            info = made.wait_ready()
        assert info.checked == (f"The server at {bench.server.url} lists shop/model.",)
        name, tokens, template, *rest = info.unshown
        assert (name, tokens) == (f"that shop/model is {bench.tiny}", "its tokens, which only vLLM's server tells")
        assert template.startswith("its chat template, which makes 9 tokens of a turn where the model's makes")
        assert rest == ["its dtype, quantisation and KV cache", f"that it has the files of {bench.tiny}"]


def test_a_proxy_that_hides_tokens_must_be_trusted(bench: Bench) -> None:
    """What passes for vLLM and tells no tokens is asked as any other server is."""

    def hide(reply: dict[str, Any]) -> dict[str, Any]:
        reply["choices"][0].pop("prompt_token_ids", None)
        return reply

    bench.server.answer = hide
    with pytest.raises(ModelError, match="open is its tokens"):
        bench.ask(1)
    bench.ask(1, trust_model=True)
    assert "messages" in bench.server.asked[0]


class TestTheModel:
    """Whether the server has the job's model."""

    def test_what_was_checked_is_told(self, bench: Bench, tiny: Path) -> None:
        """Its list, and the tokens of a probe."""
        with bench.engine() as made:
            info = made.wait_ready()
        assert info.max_model_len == 500
        assert info.checked == (
            f"The server at {bench.server.url} lists {tiny}.",
            f"It makes the same {info.checked[1].split()[4]} tokens of a probe as {tiny}.",
        )
        assert info.unshown == ("its dtype, quantisation and KV cache", f"that it has the files of {tiny}")

    def test_a_server_that_calls_it_otherwise(self, bench: Bench, tiny: Path) -> None:
        """VLLM says which folder a name stands for."""
        bench.server.models = [card("ours", root=str(tiny))]
        found = bench.ask(1)
        assert bench.server.asked[0]["model"] == "ours"
        assert isinstance(found["0"], Generation)

    def test_an_adapter_is_found_by_its_folder(self, bench: Bench, tiny: Path, tmp_path: Path) -> None:
        """VLLM says where it has it from; by a name alone, whose weights it has is not shown."""
        adapter = str(tmp_path / "adapter")
        base, other = card(str(tiny)), card("named", root="/srv/adapter", parent=str(tiny))
        bench.adapter, bench.server.models = adapter, [base, card("ours", root=adapter, parent=str(tiny))]
        bench.ask(1)
        assert bench.server.asked[-1]["model"] == "ours"
        bench.server.models = [card("another"), card("ours", root=adapter, parent="another")]
        with pytest.raises(ModelError, match=rf"open is that another is {tiny}\."):
            bench.ask(1)
        bench.server.models = [base, other]
        with pytest.raises(ModelError, match=r"lists .+, named, not the adapter "):
            bench.ask(1)
        with pytest.raises(ModelError, match=rf"open is that named is the adapter in {adapter}\."):
            bench.ask(1, served_model_name="named")
        bench.ask(1, served_model_name="named", trust_model=True)
        assert bench.server.asked[-1]["model"] == "named"

    def test_other_tokens_are_refused_also_where_it_is_trusted(self, bench: Bench, tiny: Path) -> None:
        """A model of the same name with another tokenizer is another model."""

        def other(reply: dict[str, Any]) -> dict[str, Any]:
            reply["choices"][0]["prompt_token_ids"][3] += 1
            return reply

        bench.server.answer = other
        with pytest.raises(ModelError, match=rf"makes other tokens of a text than {tiny} has"):
            bench.ask(1, trust_model=True)

    @pytest.mark.parametrize(
        ("address", "said"),
        [
            ("", "is no OpenAI-compatible API: .*Such an address mostly ends in /v1"),
            ("/v1/page", "is no OpenAI-compatible API"),
        ],
    )
    def test_an_address_of_something_else(self, bench: Bench, address: str, said: str) -> None:
        """It is not waited for: only the address can help."""
        url = bench.server.url.removesuffix("/v1") + address
        with pytest.raises(ModelError, match=said):
            bench.ask(1, base_url=url)

    @pytest.mark.parametrize("entry", [3, {}, {"id": 5}, {"id": "\ud83d"}, {"id": "other", "root": "/a\0b"}, None])
    def test_a_list_with_anything_in_it(self, bench: Bench, tiny: Path, entry: Any) -> None:
        """What is no model's entry is passed over, or the address is no such API's."""
        bench.server.models = [entry, card(str(tiny))]
        try:
            assert isinstance(bench.ask(1)["0"], Generation)
        except ModelError as exc:
            assert "is no OpenAI-compatible API" in str(exc)  # noqa: PT017 - one or the other

    def test_a_key_that_the_server_does_not_take(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """The sentence names the variable, and never the key."""
        bench.server.key = "right"
        monkeypatch.setenv("SHOP_KEY", "wrong-and-secret")
        with pytest.raises(ModelError, match=r"does not take the key \(HTTP 401\): .*the variable SHOP_KEY") as refused:
            bench.ask(1, api_key_env="SHOP_KEY")
        assert "secret" not in str(refused.value)
        monkeypatch.setenv("SHOP_KEY", "right")
        assert isinstance(bench.ask(1, api_key_env="SHOP_KEY")["0"], Generation)
        monkeypatch.delenv("SHOP_KEY")
        with pytest.raises(UsageError, match="The environment has no SHOP_KEY"):
            bench.ask(1, api_key_env="SHOP_KEY")


def test_the_extra_is_named() -> None:
    """Where urllib3 is not installed."""
    code = "import sys; sys.modules['urllib3'] = None; import batchinfer.engines.server_api"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (
        "MissingExtra: urllib3, with which servers are asked, is not installed: pip install 'batchinfer-cache[openai]'."
        in done.stderr
    )


def test_the_extra_is_named_for_the_tokenizer(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers is not installed, which a job that asks a server has from an extra without vLLM."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        MissingExtra, match=r"transformers, .* is not installed: .*'batchinfer-cache\[openai\]' to ask a server"
    ):
        Tokenizer(str(tiny), None, {})
