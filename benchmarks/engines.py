"""Whether other engines say what vLLM on this machine says: the same prompts, failures among them, at temperature 0.

    python -m benchmarks.engines [--rows 200]

vLLM's own server, a process with the bundled model, is asked what an engine here was asked before: texts, JSON, the scores of
choices by their first tokens and as wholes. Each kind has one prompt that no engine can take. So are fewer prompts with a
small random adapter, which the server has beside the model, once the model has been asked. Then a job of as many rows
is run, and the server is killed and started again in the middle of it.
It does not show how fast a server is: both have the same cores, one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from batchinfer.core.home import JobData
from batchinfer.core.records import Continuation, Failure, Generation, Prompt
from batchinfer.engines import bundled
from batchinfer.engines.adapter import adapter_modules
from batchinfer.engines.devices import place_here
from batchinfer.engines.environment import WITHOUT_VISION
from batchinfer.engines.openai import openai_engine
from batchinfer.engines.pool import EnginePool
from batchinfer.engines.protocol import Engine, EngineConfig, Task
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.job import reader
from batchinfer.job.engine_spec import OpenAISpec
from batchinfer.job.reader import Job
from batchinfer.pipeline.progress import Progress, Unattended
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options

WINDOW = 512
START_SECONDS = 400.0
NEAR = 0.05  # of a log-probability
NAMES = ("Positive", "Negative")
SCHEMA = {
    "type": "object", "properties": {"fruit": {"type": "string", "maxLength": 12}}, "required": ["fruit"],
    "additionalProperties": False,
}  # fmt: skip
SAMPLING = {
    "temperature": 0.0, "max_tokens": 12, "seed": 0, "stop": [], "top_p": 1.0, "top_k": 0, "min_p": 0.0,
    "presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0,
}  # fmt: skip

Results = dict[bytes, Generation | Failure]


@dataclass
class VllmServer:
    """vLLM's server, that can be killed and started again at its port.

    model: the model's folder. log: where it prints to. adapter: the folder of one that it serves beside the model.
    """

    model: Path
    log: Path
    adapter: Path | None = None
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Begins to load, and returns at once."""
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
        options = {
            "model": self.model, "host": "127.0.0.1", "port": self.port, "max-model-len": WINDOW, "block-size": 32,
            "max-num-seqs": 128, "kv-cache-memory-bytes": 1 << 28, "generation-config": "vllm",
            "structured-outputs-config": '{"backend": "xgrammar", "disable_any_whitespace": true}',
        }  # fmt: skip
        flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        if self.adapter is not None:
            flags += ["--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"adapter={self.adapter}"]
            flags += ["--lora-target-modules", *adapter_modules(str(self.adapter))]
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags, "--enforce-eager"]
        path = os.pathsep.join([str(WITHOUT_VISION), os.environ.get("PYTHONPATH", "")])
        settings = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "HF_HUB_OFFLINE": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--enable-prompt-tokens-details"], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True, env=os.environ | settings | {"PYTHONPATH": path},
            )  # fmt: skip

    def wait(self) -> None:
        """Until it answers."""
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/models", timeout=5):  # noqa: S310 - its own
                return
            time.sleep(0.5)
        raise TimeoutError("the server did not start")

    def kill(self) -> None:
        """Ends it as a machine does that goes down."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextlib.contextmanager
def vllm_server(model: Path, log: Path, adapter: Path | None = None) -> Iterator[VllmServer]:
    """One that answers, until the end."""
    server = VllmServer(model, log, adapter)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@dataclass(frozen=True)
class Case:
    """Something to ask each engine. task: what is done with each prompt."""

    task: Task
    prompts: list[Prompt]

    def ask(self, engine: Engine, adapter: Path | None = None) -> Results:
        """What an engine says. adapter: the folder of one that changes the model."""
        task = self.task if adapter is None else replace(self.task, adapter=str(adapter))
        return {result.prompt_key or b"": result for result in engine.generate(task, iter(self.prompts))}


def make_cases(model: Path, rows: int) -> dict[str, Case]:
    """Texts, JSON, and scores of both kinds, each with one prompt that is too long for the window."""
    tokenizer = Tokenizer(str(model), None, {})
    tokens = tokenizer.in_place(NAMES, chat=True)
    whole = tuple(Continuation(ids) for ids in tokens)
    return {
        "text": Case(Task(SAMPLING), _prompts(tokenizer, rows)),
        "JSON": Case(Task(SAMPLING | {"max_tokens": 40}, ("json", SCHEMA)), _prompts(tokenizer, rows // 4)),
        "choices": Case(
            Task({"temperature": 0.0}, score_tokens=tuple(ids[0] for ids in tokens)), _prompts(tokenizer, rows)
        ),
        "whole choices": Case(
            Task({"temperature": 0.0}, score_continuations=True), _prompts(tokenizer, rows // 4, whole)
        ),
    }


def _prompts(tokenizer: Tokenizer, count: int, scored: tuple[Continuation, ...] = ()) -> list[Prompt]:
    texts = [f"Name a fruit that begins with the letter {chr(65 + n % 26)}, please, number {n}." for n in range(count)]
    turns = [(("user", text),) for text in texts]
    ids = tokenizer.encode([tokenizer.text(turn) for turn in turns], chat=True)
    ids[3] = list(range(1, WINDOW + 50))
    return [
        Prompt(number.to_bytes(16), turn, tuple(row), scored)
        for number, (turn, row) in enumerate(zip(turns, ids, strict=True))
    ]


def others(here: Results, there: Results) -> list[bytes]:
    """The keys of what another engine says otherwise; it must have answered, and failed, for the same ones."""
    assert there.keys() == here.keys()
    failed = [{key: each.reason for key, each in said.items() if isinstance(each, Failure)} for said in (here, there)]
    assert failed[0] == failed[1]
    return [key for key in here if not _is_same(here[key], there[key])]


def _is_same(one: Any, other: Any) -> bool:
    """Whether two results say the same: texts to the letter, log-probabilities to 0.05."""
    if isinstance(one, Failure):
        return True
    pairs = zip(one.logprobs or (), other.logprobs or (), strict=True)
    return (one.text, one.prompt_tokens, one.output_tokens) == (
        other.text, other.prompt_tokens, other.output_tokens,
    ) and all(abs(mine - theirs) <= NEAR for mine, theirs in pairs)  # fmt: skip


def server_engine(url: str, folder: Path, model: Path, adapter: Path | None = None, **more: Any) -> Engine:
    """The engine of a job that asks a server. adapter: the folder of the model's. more: of its section engine."""
    job = make_server_job(folder, 1, model, base_url=url, **more)
    assert isinstance(job.spec.engine, OpenAISpec)
    config = EngineConfig(str(model), adapter=None if adapter is None else str(adapter))
    return openai_engine(job, job.spec.engine, config, print, lambda: None)


def make_server_job(folder: Path, rows: int, model: Path, **more: Any) -> Job:
    """A job of sentences, whose model a server has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True)
    pq.write_table(
        pa.table({"text": [f"A very good day, number {number}." for number in range(rows)]}), folder / "q.parquet"
    )
    content: Mapping[str, Any] = {
        "name": "restarted", "input": {"path": "q.parquet", "key": ["text"]}, "prompt": {"template": "{{ text }}"},
        "model": {"id": str(model)}, "sampling": {"max_tokens": 8}, "on_errors": "continue", "engine": {"kind": "openai", **more},
    }  # fmt: skip
    (folder / "job.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return reader.load(str(folder), {})


class Restarting(Unattended):
    """Kills a server once so many rows are done, and starts it again."""

    def __init__(self, server: VllmServer, at: int) -> None:
        self._server, self._at = server, at

    def info(self, text: str) -> None:
        print(f"  {text}")

    def progress(self, progress: Progress, cached: int) -> None:  # noqa: ARG002 - of the interface
        if progress.done >= self._at:
            self._at = sys.maxsize
            self._server.kill()
            self._server.start()


def restarted(server: VllmServer, folder: Path, model: Path, rows: int) -> None:
    """Prints what came of a run in the middle of which the server was killed."""
    job = make_server_job(folder / "restarted", rows, model, base_url=server.url, in_flight=8)
    began = time.monotonic()
    report = run(job, JobData(folder / "home", job.name), Options(publish=False), Restarting(server, rows // 4))
    answered = report.generated + report.failed
    print(f"Killed and started again: {answered} of {rows} rows answered, {time.monotonic() - began:.0f} s")
    assert (answered, report.remaining) == (rows, 0)


def random_adapter(folder: Path) -> Path:
    """A small one for the bundled model, as peft would save it, whose answers are others than the model's."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for layer in range(30):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(8, 576, generator=generator) * 0.1
        weights[f"{name}.lora_B.weight"] = torch.randn(576, 8, generator=generator) * 0.1
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "bias": "none",
        "target_modules": ["q_proj"], "base_model_name_or_path": bundled.NAME,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def said_here(model: Path, log: Path, cases: Mapping[str, Case], adapter: Path | None) -> dict[str, Results]:
    """What an engine of this machine says, by the kinds of cases."""
    config = EngineConfig(str(model), options={"max_model_len": WINDOW, "kv_cache_memory_bytes": 1 << 28})
    if adapter is not None:
        config = replace(config, adapter=str(adapter), adapter_rank=8, adapter_modules=adapter_modules(str(adapter)))
    with EnginePool(config, place_here("auto", 1), log) as pool:
        pool.wait_ready()
        return {kind: case.ask(pool, adapter) for kind, case in cases.items()}


def main() -> None:
    """Asks, and prints a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    rows = parser.parse_args().rows
    shared = bundled.shared_folder()
    bundled.ensure(shared, bundled.digest(), print)
    model = bundled.folder(shared, bundled.digest())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        adapter = random_adapter(folder / "adapter")
        asked: dict[Path | None, dict[str, Case]] = {
            None: make_cases(model, rows), adapter: make_cases(model, rows // 2),
        }  # fmt: skip
        here = {each: said_here(model, folder / "log", cases, each) for each, cases in asked.items()}
        with vllm_server(model, folder / "server.log", adapter) as server:
            for each, cases in asked.items():
                with server_engine(server.url, folder / f"asked-{each is None}", model, each) as engine:
                    print(*engine.wait_ready().checked, sep="\n")
                    for kind, case in cases.items():
                        apart = others(here[each][kind], case.ask(engine, each))
                        numbers = ", ".join(str(int.from_bytes(key)) for key in apart) or "none"
                        what, count = kind if each is None else f"{kind} with an adapter", len(case.prompts)
                        print(f"{what}: {count - len(apart)} of {count} equal; others: {numbers}")
            restarted(server, folder, model, rows)


if __name__ == "__main__":
    main()
