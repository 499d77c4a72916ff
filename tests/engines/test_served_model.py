"""Whether a server has the job's model: what its list says, and what its names cannot show."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from batchinfer.core.records import Generation
from batchinfer.engines.protocol import EngineConfig
from batchinfer.engines.served_model import _untold
from batchinfer.engines.server_engine import check_server
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import ModelError
from batchinfer.job.engine_spec import OpenAIBatchSpec
from tests.engines.test_openai import ASK, TRUST, Bench, StagedTime
from tests.openai_server import BUSY, HTML, PROBE, Fault, card, serving
from tests.tiny import make_job, numbered


def said_instead(reply: dict[str, Any], text: str, ends: str) -> dict[str, Any]:
    """The reply with another text, but to a probe of tokens."""
    choice = reply["choices"][0]
    choice["finish_reason"] = ends
    if "message" in choice:
        choice["message"]["content"] = text
    elif "prompt_token_ids" not in choice:
        choice["text"] = text
    return reply


@pytest.fixture
def bench(tiny: Path, tmp_path: Path) -> Iterator[Bench]:
    with serving(models=[card(str(tiny), max_model_len=500)]) as server:
        yield Bench(server, tiny, tmp_path)


def test_a_name_that_stands_for_another_folder(bench: Bench, tiny: Path) -> None:
    """Anybody can choose a name, as that of the model for a quantised copy: what it stands for decides."""
    bench.server.models = [card(str(tiny), root="/models/other-awq")]
    with pytest.raises(ModelError, match=rf"open is that {tiny}, which is /models/other-awq, is {tiny}\."):
        bench.ask(1)
    bench.server.models.append(card("ours", root=str(tiny)))
    bench.ask(1)
    assert bench.server.asked[-1]["model"] == "ours"


def test_an_adapter_in_place_of_the_model(bench: Bench, tiny: Path) -> None:
    """What a fine-tuned model answers is not the model's, however it is trusted."""
    bench.server.models = [card(str(tiny)), card("tuned", root="/srv/adapter", parent=str(tiny))]
    for trust in False, True:
        with pytest.raises(ModelError, match=rf"calls tuned is an adapter of {tiny}, and the job's model has none"):
            bench.ask(1, served_model_name="tuned", trust_model=trust)
    assert not bench.server.asked


def test_a_smaller_window_is_told(bench: Bench, tiny: Path, tmp_path: Path) -> None:
    """Rows that only the server has no room for are failures that another engine could answer."""
    config = tmp_path / "larger" / "config.json"
    shutil.copytree(tiny, config.parent)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 2048}), encoding="utf-8")
    bench.tiny, bench.server.models = config.parent, [card(str(config.parent), max_model_len=500)]
    with bench.engine() as made:
        assert (
            made.wait_ready()
            .checked[-1]
            .startswith("It takes 500 tokens, and the model 2,048: rows that need more fail")
        )


class TestChats:
    """How a server that is not vLLM's takes chat turns."""

    @pytest.fixture
    def bench(self, bench: Bench) -> Bench:
        bench.server.models = [card("shop/model", vllm=False)]
        return bench

    def trusted(self, bench: Bench) -> tuple[str, ...]:
        """What is not shown."""
        with bench.engine(**TRUST) as made:
            return made.wait_ready().unshown

    def test_sampling_that_it_does_not_take(self, bench: Bench) -> None:
        """Its own defaults hold then, and that is told."""
        said = "its own top_k, min_p, repetition_penalty, which it does not take from the job"
        assert said not in self.trusted(bench)
        bench.server.unknown, bench.server.longest = ("top_k",), "max_completion_tokens"
        assert said in self.trusted(bench)

    def test_the_same_chat_template(self, bench: Bench, tiny: Path) -> None:
        """It is told by the number of tokens that the server counts; one that counts none tells nothing."""
        own = len(Tokenizer(str(tiny), None, {}).text([("user", PROBE[0]["content"])]))

        def counted(reply: dict[str, Any]) -> dict[str, Any]:
            return reply | {"usage": {"prompt_tokens": own}}

        assert any("its chat template" in said for said in self.trusted(bench))
        bench.server.answer = lambda reply: {name: value for name, value in reply.items() if name != "usage"}
        assert "its chat template" in self.trusted(bench)
        bench.server.answer = counted
        assert not any("its chat template" in said for said in self.trusted(bench))

    def test_a_model_that_thinks_beyond_the_limit(self, bench: Bench) -> None:
        """It took the request: that it came to no end within a few tokens says nothing against it."""
        said = "Could not finish the message because max_tokens or model output limit was reached. Please try again with higher max_tokens."
        bench.server.longest, bench.server.unfinished = "max_completion_tokens", said
        bench.ask(1, **TRUST)
        assert "max_completion_tokens" in bench.server.asked[0]


def test_a_revision_is_told_by_no_server(bench: Bench) -> None:
    """Of a model that a hub has; of one in a folder, whether the files are the same."""
    found = _untold(EngineConfig("org/name", "a" * 40, adapter="/adapters/one"))
    assert found == ["its revision", "its dtype, quantisation and KV cache", "that it has the files of /adapters/one"]


class TestForms:
    """Whether a server holds its answers to a form is found before the list is paid."""

    SCHEMA: ClassVar[dict[str, Any]] = {"type": "json", "schema": {"type": "object"}}

    @pytest.fixture(params=["vllm", "another"])
    def asking(self, request: pytest.FixtureRequest, bench: Bench) -> dict[str, Any]:
        """The job's section engine, for vLLM's server and for another one."""
        if request.param == "vllm":
            return {}
        bench.server.models = [card("shop/model", vllm=False)]
        return TRUST

    def test_it_is_asked_for_one_answer(self, bench: Bench, asking: dict[str, Any]) -> None:
        """And then for the list."""
        bench.output = self.SCHEMA
        with bench.engine(**asking) as made:
            assert made.wait_ready().checked[-1] == "It holds an answer to what output.schema asks for."
        assert not bench.server.asked

    def test_a_server_that_ignores_it(self, bench: Bench, asking: dict[str, Any]) -> None:
        """It says what it said, and what to do; nothing of the list is asked."""
        bench.output, bench.server.holds = self.SCHEMA, False
        with pytest.raises(
            ModelError, match=r"does not hold its answers to output\.schema: .*Say hello\..*'\. Ask a server that does"
        ):
            bench.ask(1, **asking)
        assert not bench.server.asked

    def test_a_pattern(self, bench: Bench) -> None:
        """The same for what vLLM alone can hold an answer to."""
        bench.output = {"type": "regex", "pattern": "[a-z]+"}
        with bench.engine() as made:
            assert made.wait_ready().checked[-1] == "It holds an answer to what output.pattern asks for."
        bench.server.holds = False
        with pytest.raises(ModelError, match=r"does not hold its answers to output\.pattern"):
            bench.ask(1)

    def test_an_answer_that_tells_nothing(self, bench: Bench, asking: dict[str, Any]) -> None:
        """A model that only thought until the limit may hold it all the same: that is stored as not shown."""
        bench.output = self.SCHEMA
        bench.server.answer = lambda reply: said_instead(reply, "", "length")
        with bench.engine(**asking) as made:
            assert made.wait_ready().unshown[-1] == "that it holds its answers to a form"

    def test_a_server_that_has_too_much_to_do_is_asked_again(self, bench: Bench) -> None:
        """As for its list of models."""
        bench.output, faults = self.SCHEMA, [BUSY, BUSY]
        bench.server.form_fault = lambda _content: faults.pop() if faults else None
        bench.ask(1, time=StagedTime())
        assert not faults

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            (Fault(400, b'{"error": {"message": "no such parameter"}}'), "no such parameter"),
            (Fault(400, b'{"error": {"message": "output limit was reached"}}'), "output limit was reached"),
            (Fault(404, b'{"error": {"message": "no endpoint has it"}}'), "answers with HTTP 404: no endpoint has it"),
            (Fault(403), "does not take the key (HTTP 403)"),
            (Fault(500), "answers with HTTP 500"),
        ],
    )
    def test_a_probe_that_is_not_answered(self, bench: Bench, asking: dict[str, Any], fault: Fault, said: str) -> None:
        """It may be the probe that the server does not take, and not the form: that is stored, and the list is asked."""
        bench.output = self.SCHEMA
        bench.server.form_fault = lambda _content: fault
        with bench.engine(**asking) as made:
            unshown = made.wait_ready().unshown[-1]
        assert unshown == f"that it holds its answers to a form, since a probe of that was not answered ({said})"
        bench.ask(2, **asking)

    @pytest.mark.parametrize(("status", "said"), [(401, "does not take the key"), (402, "pay it, or take another key")])
    def test_a_key_that_ends_between_two_probes(self, bench: Bench, status: int, said: str) -> None:
        """It is told in a sentence, as of the probes before."""
        bench.output = self.SCHEMA
        bench.server.form_fault = lambda _content: Fault(status)
        with pytest.raises(ModelError, match=said):
            bench.ask(1)

    def test_it_is_asked_with_the_sampling_of_the_job(self, bench: Bench, asking: dict[str, Any]) -> None:
        """Some models take no other; what would end the answer before its form is left out."""
        bench.output, bench.more = self.SCHEMA, {"sampling": {"temperature": 1.0, "top_p": 0.9, "stop": ["{"]}}
        seen = list[dict[str, Any]]()
        bench.server.form_fault = seen.append
        bench.ask(1, **asking)
        [content] = seen
        assert (content["temperature"], content["top_p"], content["max_tokens"]) == (1.0, 0.9, 64)
        assert not content.get("stop")

    @pytest.mark.parametrize(
        ("text", "ends", "is_refused"),
        [
            ("<think>They want a greeting", "length", False),
            ('Here it is: {"word": "kiwi-7"}', "stop", False),
            ('{"greeting": "Hello!"}', "stop", False),
            ("Hello!", "stop", True),
        ],
    )
    def test_only_an_answer_with_nothing_of_the_form_is_held_against_it(
        self, bench: Bench, asking: dict[str, Any], text: str, ends: str, is_refused: bool
    ) -> None:
        """A thinking model is at its limit, a wrapper writes something around it: that is open, and no reason to end."""
        bench.output, bench.server.holds = self.SCHEMA, False
        bench.server.answer = lambda reply: said_instead(reply, text, ends)
        with bench.engine(**asking) as made:
            if is_refused:
                with pytest.raises(ModelError, match="does not hold its answers"):
                    made.wait_ready()
            else:
                assert made.wait_ready().unshown[-1] == "that it holds its answers to a form"

    def test_a_form_is_asked_for_behind_the_turn_of_the_job(self, bench: Bench, tiny: Path) -> None:
        """Where the prompt does not close what a model thinks, a server that parses thoughts lets it think first."""
        bench.output = self.SCHEMA
        seen = list[dict[str, Any]]()
        bench.server.form_fault = seen.append
        bench.ask(1)
        [content] = seen
        assert bytes(content["prompt"]).decode() == Tokenizer(str(tiny), None, {}).text([("user", "Say hello.")])


class TestLooksWithinARun:
    """A look at a server that was away, and came back with what it had."""

    def test_the_form_is_not_asked_for_again(self, bench: Bench) -> None:
        """An answer is drawn: another one than before is no other server."""
        bench.output, seen = {"type": "json", "schema": {"type": "object"}}, list[Fault]()

        def fault(_content: dict[str, Any]) -> Fault | None:
            seen.append(Fault(400))
            return seen[-1] if len(seen) > 1 else None

        bench.server.form_fault = fault
        bench.server.fault = lambda number, _content: Fault(502) if number == 1 else None
        found = bench.ask(5, time=StagedTime(), in_flight=2)
        assert all(isinstance(result, Generation) for result in found.values())
        assert len(seen) == 1

    def test_a_turn_that_comes_to_its_end_by_chance(self, bench: Bench) -> None:
        """What a turn took of tokens is known in one look, and not in the next, where the model thought beyond the limit."""
        bench.server.models = [card("shop/model", vllm=False)]

        def fault(number: int, _content: dict[str, Any]) -> Fault | None:
            if number in (1, 5):
                said = "max_tokens or model output limit was reached"
                bench.server.unfinished = "" if bench.server.unfinished else said
                return Fault(502)
            return None

        bench.server.fault = fault
        found = bench.ask(9, time=StagedTime(), in_flight=1, **TRUST)
        assert all(isinstance(result, Generation) for result in found.values())


class TestLooks:
    """A look at the server that goes wrong."""

    @pytest.mark.parametrize("fault", [Fault(500), Fault(502), Fault(content=b"[1, 2]", half=True)])
    def test_a_fault_is_waited_for(self, bench: Bench, fault: Fault) -> None:
        """As it is of a row: a server that starts, or is loaded, is looked at again."""
        faults = [fault, fault]
        bench.server.look_fault = lambda _path: faults.pop() if faults else None
        bench.ask(1, time=StagedTime())
        assert not faults

    @pytest.mark.parametrize("content", [b"hello", b"[]", HTML])
    def test_what_is_no_such_api(self, bench: Bench, content: bytes) -> None:
        """It is told at once: waiting does not help."""
        bench.server.look_fault = lambda _path: Fault(content=content)
        with pytest.raises(ModelError, match="is no OpenAI-compatible API"):
            bench.ask(1, time=StagedTime())

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            (
                Fault(400, b'[{"error": {"code": 400, "message": "API key not valid."}}]'),
                r"does not list its models: it refuses the request \(API key not valid\): correct engine.base_url, or the key\.",
            ),
            (
                Fault(402, b'{"error": "No credit."}'),
                r"answers with HTTP 402: No credit: pay it, or take another key\.",
            ),
            (Fault(400), r"does not list its models: it refuses the request \(it answers with HTTP 400\)"),
            (
                Fault(301, b"", {"location": "https://api.example.org/v1/models?key=secret"}),
                r"it answers with HTTP 301, and sends on to https://api\.example\.org/v1/models\. Such",
            ),
        ],
    )
    def test_what_it_says_in_place_of_a_list(self, bench: Bench, fault: Fault, said: str) -> None:
        """It is told: mostly the key is wrong, or the address."""
        bench.server.look_fault = lambda _path: fault
        with pytest.raises(ModelError, match=said):
            bench.ask(1, time=StagedTime())

    @pytest.mark.parametrize("told", [5, True, "abc"])
    def test_tokens_that_are_none(self, bench: Bench, told: Any) -> None:
        """They are told in a sentence."""

        def other(reply: dict[str, Any]) -> dict[str, Any]:
            reply["choices"][0]["prompt_token_ids"] = told
            return reply

        bench.server.answer = other
        with pytest.raises(ModelError, match=r"does not complete a text|makes other tokens"):
            bench.ask(1)

    @pytest.mark.parametrize(
        ("status", "said"),
        [
            (403, r"does not take the key \(HTTP 403\) for its batches"),
            (405, r"has no batch API at .*/batches: it answers with HTTP 405"),
            (404, r"has no batch API at .*/batches: it answers with HTTP 404"),
            (500, None),
        ],
    )
    def test_batches_that_cannot_be_looked_at(self, bench: Bench, status: int, said: str | None) -> None:
        """A sentence says why there can be none; what is the server's fault is waited for, and plan says so."""
        bench.server.look_fault = lambda path: Fault(status) if path.startswith("/v1/batches") else None
        section = {"kind": "openai_batch", "base_url": bench.server.url, "trust_model": True}
        job, _ = make_job(bench.folder / "shop", numbered(1), bench.tiny, engine=section)
        spec = job.spec.engine
        assert isinstance(spec, OpenAIBatchSpec)
        with contextlib.nullcontext() if said is None else pytest.raises(ModelError, match=said):
            check_server(job, spec, EngineConfig(str(bench.tiny)), ASK, bench.said.append)
        assert [each.partition("/v1 ")[2] for each in bench.said] == (
            ["answers with HTTP 500: a run would wait for it, for up to 6 h."] if said is None else []
        )
