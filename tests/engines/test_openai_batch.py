"""The engine that hands a list over in parts, against a scripted batch API."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.records import Failure, Generation, Prompt
from batchinfer.engines.batch_parts import PartShelf
from batchinfer.engines.openai_batch import OpenAIBatchEngine
from batchinfer.engines.protocol import EngineConfig, Task
from batchinfer.engines.server_engine import api_of
from batchinfer.errors import BatchinferError, CutShort, ModelError, Stopped, StoreError
from batchinfer.job.engine_spec import OpenAIBatchSpec
from tests.batch_server import BatchServer, serving_batches
from tests.engines.test_openai import StagedTime, prompts
from tests.openai_server import HTML, PAGE, Fault, card
from tests.tiny import make_job, numbered

ASK = Task({"temperature": 0.0, "max_tokens": 8})
Results = dict[int, Generation | Failure]


def keys(results: list[Generation | Failure]) -> list[bytes]:
    """Of the prompts that they answer."""
    return [result.prompt_key or b"" for result in results]


@dataclass
class Bench:
    """An engine of a job on a scripted server. said: what it told. time: as it sees it."""

    server: BatchServer
    tiny: Path
    folder: Path
    said: list[str] = field(default_factory=list)
    time: StagedTime = field(default_factory=StagedTime)

    @property
    def notes(self) -> Path:
        return self.folder / "batches"

    @contextlib.contextmanager
    def engine(self, **more: Any) -> Iterator[OpenAIBatchEngine]:
        section = {"kind": "openai_batch", "base_url": self.server.url, "trust_model": True, "part": 10, **more}
        job, _ = make_job(self.folder / "shop", numbered(1), self.tiny, engine=section)
        spec = job.spec.engine
        assert isinstance(spec, OpenAIBatchSpec)
        api, config = api_of(spec, connections=1, stall_seconds=5.0), EngineConfig(str(self.tiny))
        shelf = PartShelf(self.notes)
        with OpenAIBatchEngine(
            api, job, spec, config, shelf, info=self.said.append, clock=self.time.clock, meanwhile=self.meanwhile
        ) as made:
            yield made

    def meanwhile(self) -> None:
        """Called while it waits; tests replace it."""

    def ask(self, asked: list[Prompt], **more: Any) -> Results:
        """Asks these prompts, as a run does, which commits what it has unless it dies; each must come back once."""
        results = list[Generation | Failure]()
        with self.engine(**more) as made:
            made.wait_ready()
            try:
                results.extend(made.generate(ASK, iter(asked)))
            except BatchinferError:
                made.committed(keys(results))
                raise
            made.committed(keys(results))
        assert sorted(result.prompt_key or b"" for result in results) == sorted(prompt.prompt_key for prompt in asked)
        return {int.from_bytes(result.prompt_key or b""): result for result in results}


@pytest.fixture
def bench(tiny: Path, tmp_path: Path) -> Iterator[Bench]:
    with serving_batches(models=[card(str(tiny), vllm=False)]) as server:
        yield Bench(server, tiny, tmp_path)


def test_a_list_goes_out_in_parts(bench: Bench) -> None:
    """Each prompt is in one batch, and its answer comes back with its key; nothing is left behind in the folder."""
    found = bench.ask(prompts(25))
    assert {number: result.text for number, result in found.items() if isinstance(result, Generation)} == {
        number: f"query {number:03d}" for number in range(25)
    }
    assert [len(bench.server.requests(batch)) for batch in bench.server.batches.values()] == [10, 10, 5]
    [first, *_] = bench.server.requests(bench.server.batches["batch-0"])
    assert (first["method"], first["url"], first["body"]["max_tokens"]) == ("POST", "/v1/chat/completions", 8)
    assert bench.server.batches["batch-0"]["endpoint"] == "/v1/chat/completions"
    assert not list(bench.notes.iterdir())
    assert bench.time.now >= 60  # between two looks


def interrupted(bench: Bench, asked: list[Prompt], **more: Any) -> None:
    """Asks, and is stopped while it waits for the first time."""

    def stop() -> None:
        if bench.time.now > 0:
            raise Stopped("asked to")

    bench.meanwhile = stop  # type: ignore[method-assign]
    with pytest.raises(Stopped, match="asked to"):
        bench.ask(asked, **more)
    bench.meanwhile = lambda: None  # type: ignore[method-assign]
    bench.time.now = 0.0


def test_a_run_that_was_stopped_pays_for_nothing_twice(bench: Bench) -> None:
    """The next one waits for what was handed over before, and hands over the rest."""
    bench.server.looks = 5
    interrupted(bench, prompts(25))
    assert len(bench.server.batches) == 3
    found = bench.ask(prompts(40))
    assert all(isinstance(result, Generation) for result in found.values())
    assert set(Counter(bench.server.rows()).values()) == {1}
    assert len(bench.server.rows()) == 40
    assert "25 rows were handed over before: what they came to is waited for." in bench.said


def test_what_another_model_was_asked_is_not_taken(bench: Bench) -> None:
    """A name that was wrong, and was corrected after a stop: the answers under way are another model's."""
    bench.server.models.append(card("another", vllm=False))
    bench.server.looks = 5
    interrupted(bench, prompts(10), served_model_name="another")
    bench.ask(prompts(10))
    first, second = (bench.server.requests(batch)[0]["body"]["model"] for batch in bench.server.batches.values())
    assert (first, second) == ("another", str(bench.tiny))
    assert len(list(bench.notes.iterdir())) == 1  # of what is there if the name was right after all


def test_what_was_handed_over_twice_is_not_handed_over_again(bench: Bench) -> None:
    """The rest of a part that expired is in another one: after a program that died, the newer one is waited for alone."""
    bench.server.ends = lambda number: {"status": "completed"} if number else {"status": "expired"}
    bench.server.line = lambda number, line: line if number or int(line["custom_id"], 16) < 4 else None

    def die() -> None:
        if len(bench.server.batches) > 1:
            raise KeyboardInterrupt

    bench.meanwhile = die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        bench.ask(prompts(10))
    bench.meanwhile = lambda: None  # type: ignore[method-assign]
    assert len(bench.ask(prompts(10))) == 10
    assert [len(bench.server.requests(batch)) for batch in bench.server.batches.values()] == [10, 6]


def test_a_run_of_a_few_rows_leaves_the_rest_of_a_part_to_the_next(bench: Bench) -> None:
    """What was paid and is not asked for now is taken when it is."""
    bench.server.looks = 5
    interrupted(bench, prompts(20))
    assert len(bench.ask(prompts(3))) == 3
    assert len(bench.ask(prompts(20)[3:])) == 17
    assert len(bench.server.rows()) == 20
    assert not list(bench.notes.iterdir())


def test_a_crash_between_two_commits_pays_for_nothing_twice(bench: Bench) -> None:
    """What was taken of a part, and not committed since the program died, is had again from the same batch."""
    with bench.engine() as made:
        made.wait_ready()
        results = made.generate(ASK, iter(prompts(10)))
        for _ in range(10):
            next(results)
        assert next(results, None) is None
        notes = {path.name: path.read_bytes() for path in bench.notes.iterdir()}
    for name, content in notes.items():
        (bench.notes / name).write_bytes(content)
    assert len(bench.ask(prompts(10)[4:])) == 6
    assert len(bench.server.batches) == 1


@pytest.mark.parametrize("commits", [0, 1, 4, 10])
def test_what_could_not_be_committed_is_had_again(bench: Bench, commits: int) -> None:
    """As where the disk is full, whatever the run ended with: what is in the cache alone is settled."""
    with contextlib.suppress(Stopped), bench.engine() as made:
        made.wait_ready()
        results = made.generate(ASK, iter(prompts(10)))
        had = [next(results) for _ in range(max(commits, 1))]
        made.committed(keys(had[:commits]))  # and the run ends there, with the last of them in the cache, too
        raise Stopped("asked to")
    left = [json.loads(note.read_text())["keys"] for note in bench.notes.iterdir()]
    assert [len(keys) for keys in left] == ([] if commits == 10 else [10 - commits])
    asked = prompts(10)[commits:]
    assert len(bench.ask(asked)) == len(asked)
    assert len(bench.server.batches) == 1


def test_what_was_committed_before_an_error_is_asked_anew(bench: Bench) -> None:
    """Who asks it again wants another answer, and is not told that anything is waited for."""
    bench.server.ends = lambda number: {
        "status": "failed" if number else "completed", "errors": {"data": [{"message": "No money."}]},
    }  # fmt: skip
    with pytest.raises(ModelError, match=r"No money\."):
        bench.ask(prompts(20))
    assert not list(bench.notes.iterdir())
    bench.server.ends = lambda _number: {"status": "completed"}
    bench.ask(prompts(20))
    assert Counter(bench.server.rows())[(3).to_bytes(16).hex()] == 2
    assert not any("handed over before" in said for said in bench.said)


def test_what_nobody_asks_for_now_is_not_waited_for(bench: Bench) -> None:
    """Only what is asked for counts in what is told."""
    bench.server.looks = 5
    interrupted(bench, prompts(20))
    bench.ask(prompts(3))
    assert "3 rows were handed over before: what they came to is waited for." in bench.said


def test_what_was_taken_before_a_stop_is_asked_anew(bench: Bench) -> None:
    """It was committed on the way out: only what was not had yet is waited for by the next run."""
    bench.server.ends = lambda number: {"status": "completed"} if number == 0 else {"status": "in_progress", "left": 3}

    def stop() -> None:
        if bench.time.now > 150:
            raise Stopped("asked to")

    bench.meanwhile = stop  # type: ignore[method-assign]
    with pytest.raises(Stopped, match="asked to"):
        bench.ask(prompts(20))
    [note] = bench.notes.iterdir()
    assert set(json.loads(note.read_text())["keys"]) == {number.to_bytes(16).hex() for number in range(10, 20)}


def test_replies_that_lack_what_they_must_have(bench: Bench) -> None:
    """They are waited out as any other fault of the server."""
    real, lacking = bench.server.make, [True, True]
    bench.server.make = lambda content: {} if lacking and lacking.pop() else real(content)  # type: ignore[method-assign]
    assert len(bench.ask(prompts(3))) == 3
    assert any("lacks what it must have" in said for said in bench.said)


def test_what_ended_well_is_asked_anew(bench: Bench) -> None:
    """Who asks the same again after a run that ended well wants another answer."""
    bench.ask(prompts(3))
    bench.ask(prompts(3))
    assert len(bench.server.batches) == 2


def test_a_batch_whose_reply_was_lost_is_found_again(bench: Bench) -> None:
    """The server made it, and who asked did not hear: it is in its list."""
    bench.server.lost = 1
    bench.ask(prompts(10))
    assert len(bench.server.batches) == 1


def test_a_program_that_died_before_it_heard_finds_its_batch(bench: Bench) -> None:
    """The note was there before the batch was made."""
    bench.server.looks = 5
    interrupted(bench, prompts(10))
    [note] = bench.notes.iterdir()
    note.write_text(json.dumps(json.loads(note.read_text()) | {"batch": None}))
    bench.ask(prompts(10))
    assert len(bench.server.batches) == 1


def test_a_batch_that_expires_is_handed_over_again_in_part(bench: Bench) -> None:
    """What it had until then is taken; only the rest is asked again."""

    def first_half(number: int, line: dict[str, Any]) -> dict[str, Any] | None:
        if number == 0 and int(line["custom_id"], 16) >= 4:
            return line | {"response": None, "error": {"code": "batch_expired"}}
        return line

    bench.server.ends = lambda number: {"status": "completed" if number else "expired"}
    bench.server.line = first_half
    found = bench.ask(prompts(10))
    assert all(isinstance(result, Generation) for result in found.values())
    assert [len(bench.server.requests(batch)) for batch in bench.server.batches.values()] == [10, 6]


def test_batches_that_come_to_nothing_are_not_made_for_ever(bench: Bench) -> None:
    """Where the provider has no capacity, or forgets them: each time is told, and the rows fail in the end."""
    bench.server.ends, bench.server.line = lambda _number: {"status": "expired"}, lambda _number, _line: None
    found = bench.ask(prompts(3))
    assert {result.detail for result in found.values() if isinstance(result, Failure)} == {
        "The server let its batch expire, each of the 4 times that it was asked this."
    }
    assert f"The batch batch-0 expired at {bench.server.url}: 3 rows are handed over again." in bench.said
    bench.server.knows, bench.time.now = False, 0.0
    found = bench.ask(prompts(3))
    assert all("lost its batch, each of the 4 times" in result.detail for result in found.values())  # type: ignore[union-attr]
    assert len(bench.server.batches) == 8


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"response": {"status_code": 404, "body": {"error": {"message": "Not for batches."}}}}, "HTTP 404: Not for batches"),
        ({"response": None, "error": {"code": "server_error", "message": "It broke."}}, "says: It broke"),
        ({"response": {"status_code": 200, "body": {"choices": []}}}, "lacks what an answer must have"),
        ({"response": None, "error": 5}, "gave no answer"),
        ({"response": None, "error": {}}, "gave no answer"),
    ],
)  # fmt: skip
def test_what_a_server_says_of_a_row_is_told(bench: Bench, fields: dict[str, Any], said: str) -> None:
    """When it has failed four times."""
    bench.server.line = lambda _number, line: line | fields
    [failure] = bench.ask(prompts(1)).values()
    assert isinstance(failure, Failure)
    assert failure.reason == "engine_error"
    assert said in failure.detail


def test_rows_fail_alone(bench: Bench) -> None:
    """What the server refuses is a failure with its words; what it leaves out, or breaks on, is asked again, up to four times."""

    def faulty(_number: int, line: dict[str, Any]) -> dict[str, Any] | None:
        number = int(line["custom_id"], 16)
        if number == 2:
            return line | {"response": {"status_code": 400, "body": {"error": {"message": "too long"}}}}
        if number == 3:
            return None
        if number == 5:
            return line | {"response": {"status_code": float("inf"), "body": {}}}
        if number == 4:
            return line | {"response": {"status_code": 200, "body": {"choices": []}}}
        return line

    bench.server.line = faulty
    found = bench.ask(prompts(8))
    failures = {number: result for number, result in found.items() if isinstance(result, Failure)}
    assert {number: failure.reason for number, failure in failures.items()} == {
        2: "refused",
        3: "engine_error",
        4: "engine_error",
        5: "engine_error",
    }
    assert failures[2].detail == "The server refused the prompt: too long."
    assert Counter(bench.server.rows())[(3).to_bytes(16).hex()] == 4


def test_a_batch_that_is_not_taken_ends_the_run(bench: Bench) -> None:
    """With the server's words; nobody pays for it, so nothing is kept of it."""
    bench.server.ends = lambda _number: {
        "status": "failed",
        "errors": {"data": [{"code": "x", "message": "No such model."}]},
    }
    with pytest.raises(ModelError, match=r"does not take the batch batch-0: No such model\."):
        bench.ask(prompts(3))
    assert not list(bench.notes.iterdir())


def test_a_server_with_its_hands_full_gets_less(bench: Bench) -> None:
    """A part that is one too many is handed over again once another is done."""
    full = {"status": "failed", "errors": {"data": [{"code": "token_limit_exceeded", "message": "Too many."}]}}
    bench.server.ends = lambda number: full if number == 1 else {"status": "completed"}
    bench.server.looks = 2
    real = bench.server.look
    bench.server.look = lambda name: real(name) | ({} if name != "batch-1" else full)  # type: ignore[method-assign]
    found = bench.ask(prompts(30))
    assert all(isinstance(result, Generation) for result in found.values())


def test_a_cancelled_batch_ends_the_run(bench: Bench) -> None:
    """Somebody wanted that; what it had is taken."""
    bench.server.ends = lambda _number: {"status": "cancelled"}
    bench.server.line = lambda _number, line: line if int(line["custom_id"], 16) < 2 else None
    with bench.engine() as made:
        made.wait_ready()
        results = made.generate(ASK, iter(prompts(5)))
        assert [int.from_bytes(next(results).prompt_key or b"") for _ in range(2)] == [0, 1]
        with pytest.raises(Stopped, match="batch-0 was cancelled"):
            next(results)


def test_a_batch_that_the_server_forgot(bench: Bench) -> None:
    """It is said, and its rows are asked again: there is no other way."""
    bench.server.looks = 5
    interrupted(bench, prompts(10))
    bench.server.batches["gone"] = bench.server.batches.pop("batch-0") | {"id": "gone"}
    assert len(bench.ask(prompts(10))) == 10
    assert any("knows of no batch batch-0 any more" in said for said in bench.said)


GONE = Fault(404, b'{"error": {"message": "No such thing."}}')


@pytest.mark.parametrize("fault", [PAGE, Fault(302), Fault(408), Fault(425), Fault(404, HTML), GONE])
@pytest.mark.parametrize("what", ["/batches/", "/files/"])
def test_what_something_before_the_server_says_costs_nothing(bench: Bench, fault: Fault, what: str) -> None:
    """A batch and its answers are there still, whatever a proxy says of them once."""
    left = [fault]
    bench.server.trouble = lambda path: left.pop() if path.startswith(what) and left else None
    assert all(isinstance(result, Generation) for result in bench.ask(prompts(3)).values())
    assert len(bench.server.rows()) == 3


def test_answers_that_lie_elsewhere(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a store: they are fetched there, and the key stays here."""
    monkeypatch.setenv("SHOP_KEY", "secret")
    bench.server.key = "secret"
    store = f"http://localhost:{bench.server.port}/stored?signed=1"
    bench.server.trouble = lambda path: Fault(302, b"", {"location": store}) if path.startswith("/files/") else None
    bench.server.look_fault = lambda path: Fault(200, bench.server.files["file-1"]) if "/stored" in path else None
    with bench.engine(api_key_env="SHOP_KEY") as made:
        made.wait_ready()
        sent = list[tuple[str, Any]]()
        real = made._api._pool.request

        def noted(method: str, url: str, **more: Any) -> Any:
            sent.append((url, more["headers"]))
            return real(method, url, **more)

        monkeypatch.setattr(made._api._pool, "request", noted)
        assert len(list(made.generate(ASK, iter(prompts(3))))) == 3
    assert {url == store: "authorization" in headers for url, headers in sent} == {True: False, False: True}


def test_half_a_file_of_answers_is_had_again(bench: Bench) -> None:
    """It is no sign that the server left rows out, which would be paid again."""
    cut = [b'{"custom_id": "0", "resp']
    bench.server.trouble = lambda path: Fault(200, cut.pop()) if path.startswith("/files/") and cut else None
    assert len(bench.ask(prompts(3))) == 3
    assert len(bench.server.rows()) == 3


def test_a_file_that_the_server_lost(bench: Bench) -> None:
    """Of answers, or of a part whose batch was not made yet: the rows are asked again."""
    bench.server.trouble = lambda path: GONE if path.startswith("/files/file-1/") else None
    assert len(bench.ask(prompts(3))) == 3
    assert any("has no file file-1 any more" in said for said in bench.said)
    bench.server.looks, bench.time.now = 5, 0.0
    interrupted(bench, prompts(10))
    [note] = bench.notes.iterdir()
    note.write_text(json.dumps(json.loads(note.read_text()) | {"batch": None, "file": "away"}))
    assert len(bench.ask(prompts(10))) == 10


def test_a_file_that_the_server_refuses_is_not_asked_for_ever(bench: Bench) -> None:
    """The run ends with its words, and the next one hands over again."""

    def forget(content: dict[str, Any]) -> dict[str, Any]:
        bench.server.files.pop(content["input_file_id"])
        return {}

    bench.server.make = forget  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"refuses a batch: No such file\."):
        bench.ask(prompts(3))
    assert not list(bench.notes.iterdir())


def test_a_batch_that_is_made_after_a_gateway_gave_up(bench: Bench) -> None:
    """It is in the server's list a moment later, and is made once."""
    real = bench.server.make

    def late(content: dict[str, Any]) -> dict[str, Any]:
        bench.time.at[bench.time.now + 30] = lambda: real(content)
        raise ConnectionError

    bench.server.make = late  # type: ignore[method-assign]
    assert len(bench.ask(prompts(3))) == 3
    assert len(bench.server.batches) == 1


def test_a_batch_that_is_never_done_ends_the_run(bench: Bench) -> None:
    """A day is what was promised: after two somebody is to look, and the alerts for failed runs tell it."""
    bench.server.looks = 1000
    interrupted(bench, prompts(3))
    [note] = bench.notes.iterdir()
    old = datetime.now(UTC) - timedelta(days=3)
    note.write_text(json.dumps(json.loads(note.read_text()) | {"made": old.isoformat()}))
    with pytest.raises(CutShort, match=r"The batch batch-0 was handed over at .* still in_progress"):
        bench.ask(prompts(3))
    assert list(bench.notes.iterdir())


def test_a_status_in_capitals(bench: Bench) -> None:
    """As some servers write it."""
    bench.server.ends = lambda _number: {"status": "COMPLETED"}
    assert len(bench.ask(prompts(3))) == 3


def test_a_server_with_its_hands_full_is_not_asked_in_vain(bench: Bench) -> None:
    """A part is handed over again once another is done, and not before; with none at work, the run ends."""
    full = {"status": "failed", "errors": {"data": [{"code": "token_limit_exceeded", "message": "Too many."}]}}
    bench.server.looks = 40
    bench.server.ends = lambda number: {"status": "completed"} if number in (0, 2) else full
    real = bench.server.look
    bench.server.look = lambda name: real(name) | ({} if name != "batch-1" else full)  # type: ignore[method-assign]
    assert len(bench.ask(prompts(20))) == 20
    assert len(bench.server.batches) == 3
    bench.server.ends, bench.time.now = lambda _number: full, 0.0
    interrupted(bench, prompts(20)[10:])
    bench.server.look = lambda name: {"id": name, **full}  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="Too many"):
        bench.ask(prompts(10))


def test_one_too_many_while_another_ended_is_handed_over_again(bench: Bench) -> None:
    """It was refused for the other, however soon that was done."""
    full = {"status": "failed", "errors": {"data": [{"code": "token_limit_exceeded", "message": "Too many."}]}}
    bench.server.looks = 0
    bench.server.ends = lambda number: full if number == 1 else {"status": "completed"}
    assert len(bench.ask(prompts(20))) == 20
    assert len(bench.server.batches) == 3


def test_a_part_that_was_one_too_many_and_is_gone(bench: Bench) -> None:
    """With nothing left at the server, everything is handed over."""
    full = {"status": "failed", "errors": {"data": [{"code": "token_limit_exceeded", "message": "Too many."}]}}
    bench.server.looks = 5
    interrupted(bench, prompts(20))
    notes = sorted(bench.notes.iterdir(), key=lambda note: json.loads(note.read_text())["made"])
    notes[1].write_text(json.dumps(json.loads(notes[1].read_text()) | {"batch": None, "file": "away"}))
    bench.server.looks = 0
    bench.server.ends = lambda number: full if number < 2 else {"status": "completed"}
    assert len(bench.ask(prompts(20))) == 20


def test_a_batch_that_is_made_long_after_its_file_is_not_late(bench: Bench) -> None:
    """Its two days begin when the server has it."""
    bench.server.looks = 5
    interrupted(bench, prompts(3))
    [note] = bench.notes.iterdir()
    old = (datetime.now(UTC) - timedelta(days=7)).isoformat()
    note.write_text(json.dumps(json.loads(note.read_text()) | {"batch": None, "made": old}))
    assert len(bench.ask(prompts(3))) == 3
    assert len(bench.server.batches) == 1


def test_looks_that_are_far_apart_are_no_silence(bench: Bench) -> None:
    """With a `poll` beyond `patience`, a fault of a moment is waited out as any other."""
    faults = [Fault(502), Fault(502)]
    bench.server.trouble = lambda path: faults.pop() if path.startswith("/batches/") and faults else None
    assert len(bench.ask(prompts(3), poll="6h", patience="1h")) == 3
    assert not faults


def test_what_the_key_is_refused_for(bench: Bench) -> None:
    """A gateway's 403 is waited for; an account without money ends the run, with what to do."""
    faults = [Fault(403, HTML)]
    bench.server.trouble = lambda path: faults.pop() if path.startswith("/batches/") and faults else None
    assert len(bench.ask(prompts(3))) == 3
    assert not faults
    unpaid = Fault(402, b'{"error": "Insufficient balance"}')
    bench.server.trouble = lambda path: unpaid if path.startswith("/batches/") else None
    with pytest.raises(CutShort, match=r"Insufficient balance\. Run the job again once it is paid\."):
        bench.ask(prompts(3))


def test_a_server_that_is_away_is_waited_for(bench: Bench) -> None:
    """Also while a part is in its hands."""
    bench.server.looks = 5
    bench.time.at = {30.0: bench.server.stop, 900.0: bench.server.start}
    assert len(bench.ask(prompts(5))) == 5
    assert bench.time.now > 900
    assert any("answers again" in said for said in bench.said)


def test_a_server_without_a_batch_api(bench: Bench) -> None:
    """As a vLLM server: it is asked row by row instead."""
    from tests.openai_server import serving

    with serving(models=bench.server.models) as plain, pytest.raises(ModelError, match="has no batch API"):
        bench.ask(prompts(1), base_url=plain.url)


def test_a_note_that_a_disk_damaged(bench: Bench) -> None:
    """It is not passed over: what it is about would be paid twice."""
    bench.notes.mkdir()
    (bench.notes / "0.json").write_text('{"server": 5')
    with pytest.raises(StoreError, match=r"0\.json cannot be read: it is not JSON\. Remove it"):
        bench.ask(prompts(1))
