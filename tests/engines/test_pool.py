"""The pool of engine processes, with an engine that follows a script, so that faults come when they are called."""

from __future__ import annotations

import os
import platform
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.records import Failure, Generation, Prompt
from batchinfer.engines.devices import Gpu, Placement
from batchinfer.engines.pool import EnginePool
from batchinfer.engines.process import EngineChild, EngineEnded, EngineLost, LocalProcess, launch_here, start_beside
from batchinfer.engines.protocol import EngineConfig, Task
from batchinfer.errors import ModelError, Stopped
from tests.scripted import DRIVER, read_diary
from tests.tiny import alive, process, scripted, until

TASK = Task({"temperature": 0.0})
SCORING = Task({"temperature": 0.0}, score_tokens=(1, 2))


def prompt(number: int) -> Prompt:
    """The prompt whose key, text and only token are its number."""
    return Prompt(number.to_bytes(16, "big"), (("user", str(number)),), (number,))


def prompts(*numbers: int) -> list[Prompt]:
    return [prompt(number) for number in numbers]


def number(result: Generation | Failure) -> int:
    """Which prompt a result is of."""
    return int.from_bytes(result.prompt_key or b"", "big")


def texts(results: list[Generation | Failure]) -> dict[int, str]:
    """What came back for each prompt: its text, or the reason of its failure. Fails if one came back twice."""
    found = {number(result): result.text if isinstance(result, Generation) else result.reason for result in results}
    assert len(found) == len(results)
    return found


def echoes(*numbers: int) -> dict[int, str]:
    return {number: str(number) for number in numbers}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the processes print to."""
    return tmp_path / "engine.log"


@pytest.fixture
def diary(tmp_path: Path) -> str:
    """Where the processes note what they do."""
    return str(tmp_path / "diary")


def children(diary: str, what: str = "load") -> list[int]:
    """The ids of the processes that the pool started, in order; what="helper": of those below them."""
    return [int(entry[1 if what == "load" else 2]) for entry in read_diary(diary) if entry[0] == what]


def test_answers_every_prompt_once(log: Path) -> None:
    """Each prompt comes back exactly once, with its own answer."""
    with scripted(log, answer="echo", per_step=3) as pool:
        assert texts(list(pool.generate(TASK, prompts(*range(100))))) == echoes(*range(100))


def test_no_prompts_is_no_work(log: Path) -> None:
    """A generate call without prompts ends at once."""
    with scripted(log, answer="echo") as pool:
        pool.wait_ready()
        assert list(pool.generate(TASK, [])) == []


def test_waiting_tells_of_the_engine(log: Path) -> None:
    """wait_ready gives what the engine says of itself once it is loaded."""
    with scripted(log, answer="echo", max_len=77, in_flight=5) as pool:
        info = pool.wait_ready()
    assert (info.max_model_len, info.max_in_flight, info.description) == (77, 5, "a script on 1 CPU core")


def test_takes_prompts_as_it_needs_them(log: Path) -> None:
    """Of an endless stream only as many prompts are taken as can be in flight."""
    taken = 0

    def endless() -> Iterator[Prompt]:
        nonlocal taken
        while True:
            yield prompt(taken)
            taken += 1

    with scripted(log, answer="echo", in_flight=8) as pool:
        for answered, _ in enumerate(pool.generate(TASK, endless()), 1):
            assert taken - answered <= 8
            if answered == 50:
                break


def test_one_engine_takes_one_task_after_another(log: Path) -> None:
    """A loaded engine answers a second call with that call's own task."""
    with scripted(log, answer="echo", scores=[0.7, 0.1]) as pool:
        assert texts(list(pool.generate(TASK, prompts(1)))) == {1: "1"}
        [scored] = pool.generate(SCORING, prompts(2))
    assert isinstance(scored, Generation)
    assert scored.text == ""
    assert scored.logprobs is not None
    assert len(scored.logprobs) == 2


def test_a_call_that_was_not_read_to_its_end(log: Path) -> None:
    """Answers that nobody waited for do not turn up in the next call."""
    with scripted(log, answer="echo", per_step=4) as pool:
        next(pool.generate(TASK, prompts(*range(20))))
        assert texts(list(pool.generate(TASK, prompts(*range(10, 40))))) == echoes(*range(10, 40))


def test_a_refused_prompt_fails_alone(log: Path) -> None:
    """A prompt that the engine refuses becomes a failure; those around it are answered."""
    with scripted(log, answer="echo", refuse=[3]) as pool:
        results = texts(list(pool.generate(TASK, prompts(1, 2, 3, 4, 5))))
    assert results == echoes(1, 2, 4, 5) | {3: "refused"}


def test_all_prompts_refused(log: Path) -> None:
    """When every prompt is refused the call still ends, with a failure each."""
    with scripted(log, refuse=[1, 2]) as pool:
        assert texts(list(pool.generate(TASK, prompts(1, 2)))) == {1: "refused", 2: "refused"}


def test_a_process_that_dies_is_replaced(log: Path, diary: str) -> None:
    """Death with many prompts in flight costs only the prompt that caused it."""
    said: list[str] = []
    config = EngineConfig("a script", options={"answer": "echo", "die_on": [11], "in_flight": 16, "diary": diary})
    with EnginePool(config, [Placement(cores=(0,))], log, driver=DRIVER, info=said.append) as pool:
        results = list(pool.generate(TASK, prompts(*range(30))))
        started = children(diary)
        assert [alive(pid) for pid in started] == [False, False, True]  # died in company, died alone, lives
    assert texts(results) == echoes(*(n for n in range(30) if n != 11)) | {11: "engine_died"}
    [failure] = [result for result in results if isinstance(result, Failure)]
    assert "exit code -9" in failure.detail
    assert len(said) == 2
    assert str(log) in said[0]


def test_a_death_that_no_prompt_causes_costs_nothing(log: Path, tmp_path: Path) -> None:
    """When the process dies once, by chance, every prompt that it held is answered by the next one."""
    with scripted(log, answer="echo", die_on=[4], once=str(tmp_path), in_flight=16) as pool:
        assert texts(list(pool.generate(TASK, prompts(*range(20))))) == echoes(*range(20))


def test_a_new_process_gets_the_task_too(log: Path, tmp_path: Path) -> None:
    """The process that replaces another works on the same task."""
    with scripted(log, scores=[0.5, 0.5], die_on=[4], once=str(tmp_path)) as pool:
        results = list(pool.generate(SCORING, prompts(*range(10))))
    assert all(isinstance(result, Generation) and result.logprobs for result in results)
    assert sorted(number(result) for result in results) == list(range(10))


class LostWithItsMachine(EngineChild):
    """A process of which only that it is gone is known, as of one on a machine that is gone."""

    def receive(self) -> tuple[str, Any]:
        try:
            return super().receive()
        except EngineEnded as exc:
            raise EngineLost("was lost") from exc


def launch_elsewhere(driver: str, config: EngineConfig, placement: Placement, log: Path) -> LostWithItsMachine:
    """Starts a process on a machine that may be lost."""
    started = start_beside("batchinfer.engines.child")
    process = LostWithItsMachine(started.process, started.pipe)
    process.send("load", (driver, config, placement, log))
    return process


@pytest.mark.long
def test_a_machine_that_is_lost_is_first_of_all_no_prompts_fault(log: Path, diary: str) -> None:
    """What was under way goes on in company, and alone from the second loss on; what takes one machine after another down fails."""
    config = EngineConfig("a script", options={"answer": "echo", "die_on": [11], "in_flight": 16, "diary": diary})
    with EnginePool(config, [Placement(cores=(0,))], log, driver=DRIVER, launch=launch_elsewhere) as pool:
        results = list(pool.generate(TASK, prompts(*range(30))))
    assert texts(results) == echoes(*(n for n in range(30) if n != 11)) | {11: "engine_died"}
    assert len(children(diary)) == 5  # lost in company twice, and twice alone


@pytest.mark.long
def test_machines_that_are_lost_again_and_again_stop_the_run(log: Path, diary: str) -> None:
    """When none of them answers anything the run ends in the end."""
    config = EngineConfig("a script", options={"loads": ["die"] * 12, "diary": diary})
    with (
        EnginePool(config, [Placement(cores=(0,))], log, driver=DRIVER, launch=launch_elsewhere) as pool,
        pytest.raises(Stopped, match="was lost 11 times in a row"),
    ):
        pool.wait_ready()


def test_the_first_that_is_ready_begins(log: Path, diary: str) -> None:
    """With `least` a pool begins with so many; the others join when they are ready."""
    config = EngineConfig("a script", options={"answer": "echo", "loads": ["fine", "hang"], "diary": diary})
    places = [Placement(cores=(0,)), Placement(cores=(1,))]
    with EnginePool(config, places, log, driver=DRIVER, least=1) as pool:
        pool.wait_ready()
        assert texts(list(pool.generate(TASK, prompts(*range(20))))) == echoes(*range(20))


@pytest.mark.parametrize("fault", ["it is a picture", "die"])
def test_the_others_go_on_without_one_that_cannot_be_loaded(log: Path, diary: str, fault: str) -> None:
    """Where a pool begins with fewer than all, one bad machine is said and left out; the last of them ends the run."""
    said = list[str]()
    config = EngineConfig("a script", options={"answer": "echo", "loads": ["fine", fault], "diary": diary})
    places = [Placement(cores=(0,)), Placement(cores=(1,))]
    with EnginePool(config, places, log, driver=DRIVER, least=1, info=said.append) as pool:
        pool.wait_ready()
        until(lambda: len(children(diary)) == 2)
        for count in range(2):
            assert texts(list(pool.generate(TASK, prompts(*range(20))))) == echoes(*range(20)), count
            until(lambda: not [pid for pid in children(diary)[1:] if alive(pid)])
    [sentence] = said
    assert "The others go on without it" in sentence
    Path(diary).unlink()
    config = EngineConfig("a script", options={"loads": [fault, fault], "diary": diary})
    with EnginePool(config, places, log, driver=DRIVER, least=1) as pool, pytest.raises((ModelError, Stopped)):
        pool.wait_ready()


def launch_two_scripts(driver: str, config: EngineConfig, placement: Placement, log: Path) -> LocalProcess:
    """Starts an engine that on any core but the first has nothing to answer with."""
    options = config.options | {"answer": "echo" if placement.cores == (0,) else None}
    return launch_here(driver, replace(config, options=options), placement, log)


def test_one_that_cannot_go_on_with_its_work_gives_it_back(log: Path) -> None:
    """A process that is ready and then cannot do a task, as one with another vLLM, is left out; others get its prompts."""
    said = list[str]()
    config, places = EngineConfig("a script", options={"slow": 0.01}), [Placement(cores=(core,)) for core in range(2)]
    with EnginePool(config, places, log, driver=DRIVER, launch=launch_two_scripts, least=1, info=said.append) as pool:
        while not said:
            assert texts(list(pool.generate(TASK, prompts(*range(60))))) == echoes(*range(60))
    [sentence] = said
    assert "no answer for" in sentence


def launch_with_own_version(driver: str, config: EngineConfig, placement: Placement, log: Path) -> LocalProcess:
    """Starts an engine whose version is that of its core."""
    options = config.options | {"version": f"vLLM 0.{placement.cores[0]}"}
    return launch_here(driver, replace(config, options=options), placement, log)


def test_engines_of_two_versions_do_not_answer_one_list(log: Path) -> None:
    """What is ready later with another version is left out and told; where all are needed, that ends the run."""
    config, places = EngineConfig("a script", options={"answer": "echo"}), [Placement(cores=(n,)) for n in range(2)]
    said, launch = list[str](), launch_with_own_version
    with EnginePool(config, places, log, driver=DRIVER, launch=launch, least=1, info=said.append) as pool:
        while not said:
            assert texts(list(pool.generate(TASK, prompts(*range(20))))) == echoes(*range(20))
    node = platform.node()
    assert re.match(rf"The node {node} has vLLM 0\.(\d), and {node} vLLM 0\.(?!\1)\d: install the same", said[0])
    with (
        EnginePool(config, places, log, driver=DRIVER, launch=launch) as pool,
        pytest.raises(ModelError, match=r"install the same version on all\.$"),
    ):
        pool.wait_ready()


def test_the_others_go_on_while_suspects_are_tried(log: Path, diary: str) -> None:
    """What one process died of holds up that one alone."""
    with scripted(log, 2, answer="echo", die_on=[5], in_flight=16, slow=0.02, diary=diary) as pool:
        results = texts(list(pool.generate(TASK, prompts(*range(400)))))
    assert results == echoes(*(n for n in range(400) if n != 5)) | {5: "engine_died"}
    entries = [(entry[0], entry[1], entry[2]) for entry in read_diary(diary) if entry[0] != "load"]
    dead = next(pid for what, pid, key in entries if what == "take" and int(key, 16) == 5)
    done = {key for what, pid, key in entries if what == "answer" and pid == dead}
    suspects = {key for what, pid, key in entries if what == "take" and pid == dead} - done
    assert len(suspects) > 4
    places = {key: place for place, (what, _, key) in enumerate(entries) if what == "answer"}
    tried = sorted(places.get(key, 0) for key in suspects)
    others = [key for what, _, key in entries[tried[1] : tried[-2]] if what == "take" and key not in suspects]
    assert others


def test_while_nothing_can_answer_a_wait_can_be_ended(log: Path, diary: str) -> None:
    """Whoever waits is asked while the only engine is started again."""
    script = {"answer": "echo", "die_on": [1], "loads": ["fine", "hang"], "diary": diary}
    asked = list[None]()

    def ends() -> None:
        asked.append(None)
        if len(children(diary)) == 2:
            raise Stopped("enough")

    config = EngineConfig("a script", options=script)
    with EnginePool(config, [Placement(cores=(0,))], log, driver=DRIVER, meanwhile=ends) as pool:
        pool.wait_ready()
        with pytest.raises(Stopped, match="enough"):
            list(pool.generate(TASK, prompts(1)))


@pytest.mark.long
def test_a_hung_process_is_replaced(log: Path, diary: str) -> None:
    """A process that is silent for stall_seconds while it has work is killed; the prompt that stalls it alone fails."""
    with scripted(log, stall_seconds=5, answer="echo", hang_on=[2], diary=diary) as pool:
        results = list(pool.generate(TASK, prompts(*range(6))))
        assert [alive(pid) for pid in children(diary)] == [False, False, True]
    assert texts(results) == echoes(0, 1, 3, 4, 5) | {2: "engine_died"}
    [failure] = [result for result in results if isinstance(result, Failure)]
    assert "did not respond for 5 s" in failure.detail


@pytest.mark.long
def test_a_process_that_takes_nothing_is_replaced(log: Path, diary: str) -> None:
    """One that is frozen before it has read its prompts, more than a pipe holds, is told from one that works."""
    long = [replace(each, token_ids=tuple(range(100_000))) for each in prompts(*range(4))]
    with scripted(log, stall_seconds=3, answer="echo", diary=diary) as pool:
        pool.wait_ready()
        os.kill(children(diary)[0], signal.SIGSTOP)
        assert texts(list(pool.generate(TASK, long))) == echoes(*range(4))
    assert [alive(pid) for pid in children(diary)] == [False, False]


@pytest.mark.long
def test_a_process_that_freezes_in_mid_message_is_replaced(log: Path, diary: str, tmp_path: Path) -> None:
    """Nobody waits for the rest: others go on, and after stall_seconds it is told from one that works."""
    with scripted(log, 2, stall_seconds=15, answer="echo", freeze_on=[0], once=str(tmp_path), diary=diary) as pool:
        found = [number(result) for result in pool.generate(TASK, prompts(*range(200)))]
        assert [alive(pid) for pid in children(diary)].count(False) == 1
    assert sorted(found) == list(range(200))
    assert found.index(0) >= 20  # others were answered meanwhile


def test_interrupts_come_through_where_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with too many of them: what a program blocked before stays blocked, and nothing else."""

    def full(*_: object, **__: object) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr("batchinfer.engines.process.subprocess.Popen", full)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(BlockingIOError):
        start_beside("batchinfer.engines.child")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_slow_engine_is_not_a_hung_one(log: Path, diary: str) -> None:
    """An engine whose answers come slowly, all together for longer than stall_seconds, is left alone."""
    with scripted(log, stall_seconds=5, answer="echo", slow=0.75, diary=diary) as pool:
        assert texts(list(pool.generate(TASK, prompts(*range(8))))) == echoes(*range(8))
        assert len(children(diary)) == 1


def test_death_while_loading_stops_the_run(log: Path, diary: str) -> None:
    """A process that dies before it is ready ends the run, and the sentence says where its log lies."""
    with scripted(log, loads=["die"], diary=diary) as pool, pytest.raises(Stopped, match="while it loaded") as stopped:
        pool.wait_ready()
    assert str(log) in str(stopped.value)


def test_death_while_loading_again_stops_the_run(log: Path, diary: str) -> None:
    """A process that cannot be started a second time ends the run rather than being tried for ever."""
    with (
        scripted(log, answer="echo", die_on=[1], loads=["fine", "die"], diary=diary) as pool,
        pytest.raises(Stopped, match="while it loaded"),
    ):
        list(pool.generate(TASK, prompts(0, 1)))
    assert len(children(diary)) == 2


def test_a_fault_of_the_model_is_passed_on_in_words(log: Path, diary: str) -> None:
    """What the engine says about a model that cannot be loaded reaches the caller as it was said, with the log's place."""
    sentence = "vLLM could not load x: it is a picture."
    with scripted(log, loads=[sentence], diary=diary) as pool, pytest.raises(ModelError) as refused:
        pool.wait_ready()
    assert str(refused.value) == f"{sentence} What the engine printed is in {log}."


def test_the_script_makes_nothing_up(log: Path) -> None:
    """The scripted engine ends the test when it is asked for something that its script does not cover."""
    with scripted(log, answer={1: "one"}) as pool, pytest.raises(ModelError, match="no answer for '2'"):
        list(pool.generate(TASK, prompts(1, 2)))
    with scripted(log, anwser="echo") as pool, pytest.raises(ModelError, match="The script is invalid"):
        pool.wait_ready()


def test_dying_again_and_again_stops_the_run(log: Path) -> None:
    """When process after process dies without one answer in between, the run ends and says so."""
    with (
        scripted(log, answer="echo", die_on=list(range(12))) as pool,
        pytest.raises(Stopped, match="6 times in a row") as stopped,
    ):
        list(pool.generate(TASK, prompts(*range(12))))
    assert str(log) in str(stopped.value)


@pytest.mark.long
def test_deaths_between_answers_do_not_add_up(log: Path) -> None:
    """However many prompts are deadly, as long as others are answered in between the run goes on."""
    deadly = [0, 2, 4, 6, 8, 10]
    with scripted(log, answer="echo", die_on=deadly, in_flight=12) as pool:
        results = texts(list(pool.generate(TASK, prompts(*range(12)))))
    assert results == echoes(1, 3, 5, 7, 9, 11) | dict.fromkeys(deadly, "engine_died")


def answerers(diary: str) -> set[str]:
    """Which processes answered anything."""
    return {entry[1] for entry in read_diary(diary) if entry[0] == "answer"}


def test_replicas_share_one_queue(log: Path, diary: str) -> None:
    """Two processes work off the same prompts: both answer some, and each prompt is asked once."""
    with scripted(log, 2, answer="echo", slow=0.01, in_flight=4, diary=diary) as pool:
        pool.wait_ready()
        assert texts(list(pool.generate(TASK, prompts(*range(60))))) == echoes(*range(60))
        assert answerers(diary) == {str(pid) for pid in children(diary)}
    assert len(answerers(diary)) == 2
    assert len([entry for entry in read_diary(diary) if entry[0] == "take"]) == 60


def test_a_short_list_keeps_all_replicas_busy(log: Path, diary: str) -> None:
    """A list that one process could take whole is shared out."""
    with scripted(log, 2, answer="echo", slow=0.01, in_flight=100, diary=diary) as pool:
        pool.wait_ready()
        assert texts(list(pool.generate(TASK, prompts(*range(60))))) == echoes(*range(60))
    assert len(answerers(diary)) == 2


def test_the_death_of_a_replica_loses_no_row(log: Path, diary: str) -> None:
    """When one of two processes dies over a prompt, all the others are answered, by either."""
    with scripted(log, 2, answer="echo", slow=0.01, in_flight=8, die_on=[20], diary=diary) as pool:
        results = texts(list(pool.generate(TASK, prompts(*range(60)))))
        until(lambda: len(children(diary)) == 4)  # the last one may still begin: the others answered all
    assert results == echoes(*(n for n in range(60) if n != 20)) | {20: "engine_died"}


def test_each_process_sees_its_own_gpus_only(log: Path) -> None:
    """A process on GPUs is told to see those alone, counted as nvidia-smi counts them."""
    gpus = (Gpu("3", "GPU-c", "H", 1), Gpu("5", "GPU-e", "H", 1))
    with EnginePool(EngineConfig("a script"), [Placement(gpus=gpus)], log, driver=DRIVER) as pool:
        assert pool.wait_ready().description == "a script on the GPUs 3,5 PCI_BUS_ID"


def test_closing_leaves_no_process(log: Path, diary: str) -> None:
    """Closing ends the engine's processes and those that they started, idle or in the midst of work."""
    with scripted(log, 2, answer="echo", helper=True, diary=diary) as pool:
        pool.wait_ready()
    with scripted(log, 2, answer="echo", hang_on=[1, 2, 3], helper=True, diary=diary) as pool:
        pool.wait_ready()
        assert texts([next(pool.generate(TASK, prompts(0, 1, 2, 3)))]) == echoes(0)
    started = children(diary) + children(diary, "helper")
    assert len(started) == 8
    until(lambda: not [pid for pid in started if alive(pid)])


def test_closing_an_engine_that_still_loads(log: Path) -> None:
    """An engine can be closed right after it was started."""
    with scripted(log, answer="echo") as pool:
        [member] = pool._members
        assert isinstance(member.process, LocalProcess)
        pid = member.process.process.pid
        assert alive(pid)
    assert not alive(pid)


HOLDER = """
import signal
import sys
from pathlib import Path

signal.signal(signal.SIGINT, lambda *_: None)

from tests.scripted import read_diary
from tests.engines.test_pool import TASK, prompts, texts
from tests.tiny import scripted, until

if __name__ == "__main__":
    log, diary, go = sys.argv[1:]
    print("deaf", flush=True)
    with scripted(Path(log), answer="echo", diary=diary) as pool:
        pool.wait_ready()
        print("ready", flush=True)
        until(Path(go).exists)
        print(texts(list(pool.generate(TASK, prompts(1, 2)))), flush=True)
"""


@pytest.fixture
def holder(tmp_path: Path) -> str:
    """A program that holds a pool and, once the file that it is given is there, asks it two prompts."""
    path = tmp_path / "holder.py"
    path.write_text(HOLDER, encoding="utf-8")
    return str(path)


def test_a_killed_parent_takes_its_processes_along(log: Path, diary: str, holder: str, tmp_path: Path) -> None:
    """When the run is killed with -9 its engine processes end by themselves."""
    errors = tmp_path / "errors"
    with process(holder, str(log), diary, str(tmp_path / "go"), temporary=tmp_path, log=errors) as parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline(), parent.stdout.readline()] == ["deaf\n", "ready\n"], errors.read_text()
        [pid] = children(diary)
        assert alive(pid)
        parent.kill()
        until(lambda: not alive(pid))


@pytest.mark.long
def test_ctrl_c_does_not_reach_the_processes(log: Path, diary: str, holder: str, tmp_path: Path) -> None:
    """Interrupts for the whole process group, as a terminal sends them, leave the engine starting and working."""
    errors, go = tmp_path / "errors", tmp_path / "go"
    with process(holder, str(log), diary, str(go), temporary=tmp_path, log=errors) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "deaf\n", errors.read_text()
        while not children(diary):
            assert parent.poll() is None, errors.read_text()
            os.killpg(parent.pid, signal.SIGINT)
            time.sleep(0.005)
        assert parent.stdout.readline() == "ready\n", errors.read_text()
        os.killpg(parent.pid, signal.SIGINT)
        go.touch()
        assert parent.stdout.readline() == "{1: '1', 2: '2'}\n", errors.read_text()
        assert parent.wait() == 0
    assert len(children(diary)) == 1
    assert errors.read_text() == ""


def test_what_processes_print_goes_to_the_log(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The chatter of an engine, on stdout and stderr, is found in the log and not on the terminal."""
    with scripted(log, answer="echo", prints="loading the shards") as pool:
        pool.wait_ready()
    assert log.read_text(encoding="utf-8").count("loading the shards") == 2
    assert capfd.readouterr() == ("", "")
