"""Engines on a Ray cluster: a real one on loopback, with an engine that follows a script, so that faults come when they are called."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import itertools
import math
import os
import platform
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.records import Failure, Generation, Prompt
from batchinfer.engines import ray_host
from batchinfer.engines.devices import Gpu, Placement
from batchinfer.engines.digests import folder_digest
from batchinfer.engines.pool import VLLM_DRIVER, EnginePool
from batchinfer.engines.protocol import EngineConfig, EngineInfo, Task
from batchinfer.engines.ray import UNKNOWN_GPU, ClusterRoom, RayCluster
from batchinfer.engines.ray_host import check_folders
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import MissingExtra, ModelError, Stopped, UsageError
from batchinfer.job.engine_spec import RaySpec
from tests.conftest import WINDOW, EngineSlot
from tests.engines.test_pool import SCORING, TASK, echoes, number, prompts, texts
from tests.engines.test_vllm import prompts as chat_prompts
from tests.ray_cluster import TestCluster, ray_cluster
from tests.scripted import DRIVER, read_diary
from tests.tiny import Cli, alive, numbered, until, write_job

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[TestCluster]:
    """A cluster of two CPUs, without vLLM."""
    with ray_cluster(2, without_vllm=True) as started:
        yield started


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "engine.log"


@pytest.fixture
def diary(tmp_path: Path) -> str:
    """Where the engines note what they do."""
    return str(tmp_path / "diary")


@contextlib.contextmanager
def engines(
    address: str, log: Path, *, driver: str = DRIVER, said: list[str] | None = None, wait: str = "30s", model: str = "a script",
    replicas: int = 1, script: dict[str, Any] | None = None, **section: Any,
) -> Iterator[EnginePool]:  # fmt: skip
    """A started pool on a cluster."""
    spec = RaySpec.model_validate(
        {"kind": "ray", "address": address, "cpus": 1, "replicas": replicas, "wait": wait} | section
    )
    info = [] if said is None else said
    with RayCluster(spec.address, log) as connected:
        room = ClusterRoom(spec, connected, info.append)
        config = EngineConfig(model, options=script or {})
        with EnginePool(
            config,
            room.places,
            log,
            driver=driver,
            launch=connected.launch,
            info=info.append,
            meanwhile=room.wait,
            least=1,
        ) as pool:
            yield pool


def loads(diary: str) -> list[int]:
    """The processes of the engines that began to load, in order."""
    return [int(entry[1]) for entry in read_diary(diary) if entry[0] == "load"]


def host_of(pid: int) -> int:
    """The actor that hosts an engine process."""
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()[1])


def until_loaded(pool: EnginePool, count: int) -> None:
    """Waits until so many engines of a pool can answer."""
    pool._least = count
    pool.wait_ready()


def test_two_actors_answer_every_prompt_once(cluster: TestCluster, log: Path, diary: str) -> None:
    """Both take part; a deadly and a refused prompt fail alone; scores and finish reasons come back; each node's share is known."""
    script = {
        "answer": "echo", "slow": 0.01, "in_flight": 8, "die_on": [20], "refuse": [30], "cut_off": [40],
        "scores": [0.75, 0.25], "diary": diary,
    }  # fmt: skip
    with engines(cluster.address, log, replicas=2, script=script) as pool:
        until_loaded(pool, 2)
        results = list(pool.generate(TASK, prompts(*range(60))))
        assert pool.nodes["head"].rows == 59  # all but the one that killed its engine
        [scored] = pool.generate(SCORING, prompts(1))
    assert texts(results) == echoes(*(n for n in range(60) if n not in (20, 30))) | {20: "engine_died", 30: "refused"}
    assert [number(each) for each in results if isinstance(each, Generation) and each.finish_reason == "length"] == [40]
    assert isinstance(scored, Generation)
    assert scored.logprobs == (math.log(0.75), math.log(0.25))
    assert len({entry[1] for entry in read_diary(diary) if entry[0] == "answer"}) >= 2
    [died] = [result for result in results if isinstance(result, Failure) and result.reason == "engine_died"]
    assert died.detail == "The engine on the node head died (exit code -9) each time it worked on this prompt."
    until(lambda: not [pid for pid in loads(diary) if alive(pid)])


def endless(goes_on: Callable[[], object]) -> Iterator[Prompt]:
    """Prompts for as long as something goes on."""
    for count in itertools.count():
        if not goes_on():
            return
        yield from prompts(count)


def test_an_actor_that_is_killed_again_and_again(cluster: TestCluster, log: Path, diary: str) -> None:
    """Five actors are killed during a run: it completes, every row is answered once, and none fails."""
    said = list[str]()
    script = {"answer": "echo", "slow": 0.005, "in_flight": 8, "diary": diary}
    results = list[Generation | Failure]()
    killed, since = set[int](), 0
    with engines(cluster.address, log, replicas=2, script=script, said=said) as pool:
        for result in pool.generate(TASK, endless(lambda: len(killed) < 5)):
            results.append(result)
            victims = {host_of(pid) for pid in loads(diary)[-2:] if alive(pid)} - killed
            if victims and len(killed) < 5 and len(results) > since + 20:
                os.kill(victim := victims.pop(), signal.SIGKILL)
                killed.add(victim)
                since = len(results)
    assert texts(results) == echoes(*range(len(results)))
    why = "The engine on the node head was lost (The actor is dead because its worker process has died); it is started"
    assert len([sentence for sentence in said if why in sentence]) >= 2  # Ray does not always say why


def test_a_node_that_is_removed_and_one_that_is_added(cluster: TestCluster, log: Path, diary: str) -> None:
    """A run begins with the engines that have a place; its rows outlive their node, and a new node takes the waiting engine."""
    script = {"answer": "echo", "slow": 0.005, "in_flight": 8, "diary": diary}
    results = list[Generation | Failure]()
    cluster.add("second", 1)
    with engines(cluster.address, log, replicas=3, script=script) as pool:
        for result in pool.generate(TASK, endless(lambda: "third" not in pool.nodes)):
            results.append(result)
            if "second" in pool.nodes and "second" in cluster.nodes:
                cluster.remove("second")
                cluster.add("third", 1)
        nodes = set(pool.nodes)
    cluster.remove("third")
    assert texts(results) == echoes(*range(len(results)))
    assert nodes == {"head", "second", "third"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_engine_takes_along_what_it_started(
    cluster: TestCluster, log: Path, diary: str, number: signal.Signals
) -> None:
    """On a GPU vLLM has processes of its own, which would keep it. One that is shut down with its machine is no prompt's fault."""
    said = list[str]()
    script = {"answer": "echo", "helper": True, "diary": diary}
    with engines(cluster.address, log, script=script, said=said) as pool:
        pool.wait_ready()
        [pid] = loads(diary)
        os.kill(pid, number)
        assert texts(list(pool.generate(TASK, prompts(*range(20))))) == echoes(*range(20))
    assert f"died (exit code -{int(number)})" in said[-1]
    helpers = [int(entry[2]) for entry in read_diary(diary) if entry[0] == "helper"]
    assert len(helpers) == 2
    until(lambda: not [helper for helper in helpers if alive(helper)])


def test_an_engine_that_is_shut_down_while_it_loads(cluster: TestCluster, log: Path, diary: str) -> None:
    """It is started again: its machine went, and the model may well be loaded."""
    script = {"answer": "echo", "loads": ["hang", "fine"], "diary": diary}
    with engines(cluster.address, log, script=script) as pool:
        until(lambda: loads(diary) or list(pool._listen()))
        os.kill(loads(diary)[0], signal.SIGTERM)
        assert texts(list(pool.generate(TASK, prompts(1)))) == echoes(1)


def test_the_code_travels(cluster: TestCluster, log: Path) -> None:
    """An engine runs the code of the run, wherever a node has another one."""
    with engines(cluster.address, log, driver="tests.engines.test_ray:PlaceOfCode") as pool:
        assert "runtime_resources" in pool.wait_ready().description


class PlaceOfCode:
    """A driver that tells where its code lies."""

    def __init__(self, *_: object) -> None:
        import batchinfer

        self.info = EngineInfo(1, 1, str(batchinfer.__file__))

    def busy(self) -> bool:
        return False


def test_a_cluster_without_vllm(cluster: TestCluster, log: Path) -> None:
    """A node that lacks vLLM says so, by its name."""
    with (
        engines(cluster.address, log, driver=VLLM_DRIVER) as pool,
        pytest.raises(ModelError, match=r"On the node head: vLLM is not installed: pip install"),
    ):
        pool.wait_ready()


def test_what_an_engine_printed_before_it_failed(cluster: TestCluster, log: Path, diary: str) -> None:
    """The last words of an engine are in the log of the run, and its sentence says where."""
    script = {"prints": "loading the shards", "loads": ["it is a picture"], "diary": diary}
    with (
        engines(cluster.address, log, script=script) as pool,
        pytest.raises(ModelError, match=f"On the node head: it is a picture.*{log}"),
    ):
        pool.wait_ready()
    assert "On the node head, the engine printed:\nloading the shards" in log.read_text(encoding="utf-8")


def test_a_death_while_loading_stops_the_run(cluster: TestCluster, log: Path, diary: str) -> None:
    """An engine that dies before it is ready would die again."""
    with (
        engines(cluster.address, log, script={"loads": ["die"], "diary": diary}) as pool,
        pytest.raises(Stopped, match=r"on the node head died .exit code -9. while it loaded the model"),
    ):
        pool.wait_ready()


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        (
            {"cpus": None},
            "The Ray cluster has no node with the 1 GPU of an engine; the largest of 1 node has 0: set engine.cpus",
        ),
        (
            {"cpus": 3},
            "The Ray cluster has no node with the 3 CPUs of an engine; the largest of 1 node has 2: lower engine.cpus",
        ),
    ],
)
def test_too_few_devices(cluster: TestCluster, log: Path, section: dict[str, Any], sentence: str) -> None:
    """An engine that fits on no node is waited for as long as the job says, and the sentence says what there is."""
    with (
        engines(cluster.address, log, wait="1s", **section) as pool,
        pytest.raises(UsageError, match=sentence) as refused,
    ):
        pool.wait_ready()
    assert refused.value.field == ("engine", "tensor_parallel" if section["cpus"] is None else "cpus")


def test_an_engine_has_the_gpus_that_ray_gave_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Ray was told not to hide the others. Staged: no machine of these tests has a GPU."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf '0, GPU-a, H100, 80\\n1, GPU-b, H100, 80\\n'\n", encoding="utf-8")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(ray_host, "ray_gpus", lambda: ["1"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    host = ray_host.EngineHost()
    with host._claims, host._log:
        assert host._placed(Placement(gpus=(UNKNOWN_GPU,))).gpus == (Gpu("1", "GPU-b", "H100", 80),)


def test_no_cluster_there(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address at which nobody listens, or no cluster on this machine, is a fault of the job file."""
    with pytest.raises(UsageError, match=r"There is no Ray cluster at 127\.0\.0\.1:9: correct the address") as refused:
        RayCluster("127.0.0.1:9", log).__enter__()
    assert refused.value.field == ("engine", "address")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(
        UsageError, match="The variable RAY_ADDRESS, which address: auto goes by, is ray://head:10001: set it to"
    ):
        RayCluster("auto", log).__enter__()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(UsageError, match=r"There is no Ray cluster at 127\.0\.0\.1:9"):
        RayCluster("auto", log).__enter__()


def test_a_gateway_that_cannot_begin(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a Ray that cannot be imported: nothing was lost that a second run would find."""
    monkeypatch.setattr("batchinfer.engines.ray.GATEWAY", "batchinfer.engines.none_such")
    with pytest.raises(UsageError, match=r"was lost at once; the last that Ray printed: .*none_such"):
        RayCluster("127.0.0.1:9", log).__enter__()


def test_another_version_of_ray(
    cluster: TestCluster, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster of another version is named with both. Staged: this machine's Ray says that it is another one."""
    (tmp_path / "sitecustomize.py").write_text("import ray\nray.__version__ = '2.50.1'\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError) as refused:
        RayCluster(cluster.address, log).__enter__()
    python, there = platform.python_version(), importlib.metadata.version("ray")
    assert str(refused.value) == (
        f"The Ray cluster at {cluster.address} has Ray {there} on Python {python}, and this machine Ray 2.50.1 on Python "
        f"{python}: both must be the same, Python but for its last number."
    )
    assert refused.value.field == ("engine", "address")


def test_ray_is_an_extra(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray the extra is named."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"Ray is not installed: pip install 'batchinfer-cache\[ray\]'"):
        RayCluster("auto", log).__enter__()


def test_the_way_to_the_cluster_is_lost(cluster: TestCluster, log: Path) -> None:
    """A run whose connection breaks ends in a sentence, and can be resumed."""
    with engines(cluster.address, log, script={"answer": "echo", "slow": 0.01}) as pool:
        answers = pool.generate(TASK, prompts(*range(1000)))
        next(answers)
        connected = pool._launch.__self__  # type: ignore[attr-defined]
        os.kill(connected._gateway.process.pid, signal.SIGKILL)
        with pytest.raises(Stopped, match=f"The Ray cluster at {cluster.address} is lost"):
            list(answers)


def test_a_model_must_lie_on_the_nodes(tmp_path: Path) -> None:
    """A folder that a node lacks, or has with other files, is named."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    check_folders({str(folder): folder_digest(folder)})
    with pytest.raises(ModelError, match="model holds other files there than where the job runs"):
        check_folders({str(folder): "0" * 64})
    with pytest.raises(ModelError, match="elsewhere is not there: put the model on a disk that all nodes share"):
        check_folders({str(tmp_path / "elsewhere"): "0" * 64})


@pytest.fixture
def batchinfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line, whose engines follow a script."""
    monkeypatch.chdir(tmp_path)
    return Cli(monkeypatch, capsys, tmp_path / "home")


def test_a_job_runs_on_a_cluster(cluster: TestCluster, tmp_path: Path, tiny: Path, batchinfer: Cli) -> None:
    """`plan` says what room there is, and `run` publishes what the cluster's engines answered."""
    engine = {"kind": "ray", "address": cluster.address, "cpus": 1, "replicas": 3}
    write_job(tmp_path / "jobs" / "shop", numbered(50), tiny, script={"answer": "echo"}, engine=engine)
    planned = batchinfer("plan", "shop")
    assert "Ray: 1 node, with room for 2 of 3 engines." in planned.err
    done = batchinfer("run", "shop", "--json")
    assert (done.json["generated"], done.json["version"]) == (50, 1)


def test_doctor_says_that_nothing_fits(cluster: TestCluster, tmp_path: Path, tiny: Path, batchinfer: Cli) -> None:
    """`plan` says it, too, and goes on, since a node may join."""
    engine = {"kind": "ray", "address": cluster.address}
    write_job(tmp_path / "jobs" / "shop", numbered(5), tiny, engine=engine)
    said = "The Ray cluster has no node with the 1 GPU of an engine; the largest of 1 node has 0"
    planned = batchinfer("plan", "shop")
    assert planned.code == 0
    assert said in planned.err
    done = batchinfer("doctor", "shop", "--json")
    [finding] = [each for each in done.json if each["what"] == "replicas"]
    assert not finding["ok"]
    assert said in finding["fix"]


def test_a_cluster_of_this_machine_alone(
    tmp_path: Path, tiny: Path, batchinfer: Cli, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """`address: local` starts one for the run, of which nothing is left."""
    short = Path(tempfile.mkdtemp(prefix="x", dir="/tmp"))
    request.addfinalizer(short.rmdir)
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    engine = {"kind": "ray", "address": "local", "cpus": 1, "replicas": 1}
    write_job(tmp_path / "jobs" / "shop", numbered(5), tiny, script={"answer": "echo"}, engine=engine)
    assert batchinfer("run", "shop", "--json").json["generated"] == 5
    assert not list(short.iterdir())
    assert not [each for each in Path("/proc").glob("[0-9]*/cmdline") if str(short).encode() in _content(each)]


def _content(path: Path) -> bytes:
    """Of a file that may be gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("command", ["plan", "run"])
def test_no_cluster_fails_in_a_plan_as_in_a_run(tmp_path: Path, tiny: Path, batchinfer: Cli, command: str) -> None:
    """With the file and the line of the address."""
    write_job(tmp_path / "jobs" / "shop", numbered(5), tiny, engine={"kind": "ray", "address": "127.0.0.1:9"})
    done = batchinfer(command, "shop")
    assert done.code == 2
    assert "job.yaml: line 13: engine.address: there is no Ray cluster at 127.0.0.1:9: correct the address" in done.err


@pytest.mark.closes_engine
def test_the_real_engine_answers_there_as_here(
    engine_slot: EngineSlot, model_folder: Path, adapter: Path, log: Path
) -> None:
    """In an actor, vLLM says what it says in a process of the run's, and an adapter works there, too."""
    tokenizer = Tokenizer(str(model_folder), None, {})
    asked = chat_prompts(tokenizer, [f"Write a word that rhymes with number {count}." for count in range(20)])
    tokens = tuple(ids[0] for ids in tokenizer.in_place(["Positive", "Negative"], chat=True))
    task = Task({"temperature": 0.0, "max_tokens": 4})
    here = texts(list(engine_slot.get(adapter=str(adapter)).generate(task, asked)))
    engine_slot.close()
    options = {"max_model_len": WINDOW, "kv_cache_memory_bytes": 1 << 28}
    config = EngineConfig(str(model_folder), adapter=str(adapter), adapter_rank=8, options=options)
    with RayCluster("local", log) as connected:
        spec = RaySpec(kind="ray", address="local", cpus=len(os.sched_getaffinity(0)), replicas=1)
        room = ClusterRoom(spec, connected, print)
        with EnginePool(config, room.places, log, launch=connected.launch, meanwhile=room.wait) as pool:
            there = texts(list(pool.generate(task, asked)))
            [plain] = pool.generate(Task({}, score_tokens=tokens), asked[:1])
            [adapted] = pool.generate(Task({}, score_tokens=tokens, adapter=str(adapter)), asked[:1])
    assert sum(here[count] == there[count] for count in here) >= 19  # other batches may tip a token now and then
    assert isinstance(plain, Generation)
    assert isinstance(adapted, Generation)
    assert plain.logprobs != adapted.logprobs
