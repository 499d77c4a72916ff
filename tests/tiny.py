"""Small things for tests that need no weights: a tokenizer folder, jobs for it, and processes to be killed.

`python -m tests.tiny …` is `batchinfer …` with the scripted engine in place of vLLM; the script is the job's
model.options.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from batchinfer.cache.store import Store
from batchinfer.cli.main import dispatch, main
from batchinfer.core.home import JobData
from batchinfer.engines.devices import Placement
from batchinfer.engines.pool import EnginePool
from batchinfer.engines.protocol import EngineConfig
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.pipeline.progress import Progress
from tests.scripted import DRIVER

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
THINKING_TEMPLATE = CHAT_TEMPLATE.replace(
    "<assistant>", "<assistant>{% if enable_thinking | default(true) %}<think>{% endif %}"
)


def token(character: str) -> int:
    """The id of a one-byte character in the tiny tokenizer."""
    [byte] = character.encode()
    return byte


def model_folder(folder: Path, *, chat_template: str | None = CHAT_TEMPLATE, folds_case: bool = False) -> Path:
    """A model folder without weights. Its tokenizer has a token for each byte, and the byte is the token's id.

    folds_case: whether the tokenizer makes all letters small, as those of some models do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {character: byte for byte, character in enumerate(_byte_characters())}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"} if folds_case else None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocabulary,
            "merges": [],
        },
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": chat_template}
    for name, content in [
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", settings),
        ("config.json", {"model_type": "llama", "vocab_size": len(vocabulary)}),
    ]:
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def _byte_characters() -> list[str]:
    """The printable character that byte-level tokenizers write for each byte."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (byte for byte in range(256) if byte not in plain)
    moved = {byte: chr(256 + number) for number, byte in enumerate(others)}
    return [moved.get(byte, chr(byte)) for byte in range(256)]


Rows = Mapping[str, Sequence[Any]]


def write_job(
    folder: Path, rows: Rows, tiny: Path | None = None, *, script: Mapping[str, Any] | None = None, **sections: Any
) -> Path:
    """A job's folder with these rows; `sections` replace those of a plain job, and None leaves one out.

    tiny: the model's folder; without one, the job lives by imports. script: for the scripted engine, if it is the
    job's own engine rather than one that the test started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(rows)), folder / "queries.parquet")
    content: dict[str, Any] = {"name": folder.name, "input": {"path": "queries.parquet", "key": ["text"]}}
    if tiny is not None:
        model = {"id": str(tiny), "options": dict(script or {})}
        content |= {"prompt": {"template": "{{ text }}"}, "model": model}
    content |= sections
    content = {name: value for name, value in content.items() if value is not None}
    (folder / "job.yaml").write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return folder


def make_job(
    folder: Path, rows: Rows, tiny: Path | None = None, *, script: Mapping[str, Any] | None = None, **sections: Any
) -> tuple[Job, JobData]:
    """`write_job`, and the job as it is read; its data folder lies beside it."""
    job = reader.load(str(write_job(folder, rows, tiny, script=script, **sections)), {})
    return job, JobData(folder.parent / "home", job.name)


def numbered(count: int, mark: Mapping[int, str] | None = None) -> dict[str, list[str]]:
    """Rows that all differ. mark: what is put at the end of some of them."""
    return {"text": [f"query {number:04d}{(mark or {}).get(number, '')}" for number in range(count)]}


@contextlib.contextmanager
def scripted(log: Path, placements: int = 1, *, stall_seconds: float = 120.0, **script: Any) -> Iterator[EnginePool]:
    """A started pool whose processes follow a script."""
    with EnginePool(
        EngineConfig("a script", options=script),
        [Placement(cores=(number,)) for number in range(placements)],
        log,
        driver=DRIVER,
        stall_seconds=stall_seconds,
    ) as pool:
        yield pool


@dataclass
class RecordingConsole:
    """A `Console` that remembers what it was given. at: what to do when so many rows are done."""

    at: dict[int, Callable[[], object]] = field(default_factory=dict)
    answer: bool | None = None  # as where nobody can answer
    said: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)

    def info(self, text: str) -> None:
        self.said.append(text)

    def progress(self, progress: Progress, cached: int) -> None:
        for count in sorted(self.at):
            if progress.done >= count:
                self.at.pop(count)()

    def confirm(self, text: str, *, typed: str | None = None) -> bool | None:
        self.questions.append(text if typed is None else f"{text} [{typed}]")
        return self.answer


def press(number: signal.Signals) -> Callable[[], None]:
    """Sends this process a signal, as Ctrl-C does."""
    return lambda: os.kill(os.getpid(), number)


def stored(data: JobData) -> tuple[int, int]:
    """How many generations the cache holds, and how many different ones."""
    with Store(data.cache).open() as db:
        [(count, distinct)] = db.execute("SELECT count(*), count(DISTINCT key) FROM generations").fetchall()
    return count, distinct


def adds_up(report: Mapping[str, Any]) -> bool:
    """Whether a report's counts obey the two sums that every report must."""
    parts = report["hits"] + report["generated"] + report["failures"] + report["left"]
    rows = report["bad"] + report["duplicates"] + report["unique"]
    return bool(report["rows"] == rows and report["unique"] == parts)


def until(condition: Callable[[], Any]) -> Any:
    """Waits until something is so, and returns it. Fails the test if that takes a minute."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited for a minute in vain"
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet asked for its exit code does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def answer_no(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Puts a person on a terminal who answers no; returns the questions, as they come."""
    asked: list[str] = []

    def no(text: str, **_options: object) -> bool:
        asked.append(text)
        return False

    for stream in ("stdin", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    monkeypatch.setattr("click.confirm", no)
    return asked


BECOME_NOBODY = """
import os
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""
"""Makes a program run as a user without rights. It must come after all imports: that user may not be able to read
the interpreter's own library. Where the tests do not run as root, their own user will do."""


@contextlib.contextmanager
def folder_for_all() -> Iterator[Path]:
    """A temporary folder that every user can reach; tmp_path is for one user only."""
    with tempfile.TemporaryDirectory(prefix="batchinfer-test-") as name:
        Path(name).chmod(0o1777)
        yield Path(name)


@contextlib.contextmanager
def process(*arguments: str, temporary: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
    """A Python process in a process group of its own, without GPUs; killed at the end. Its errors go to `log`.

    temporary: its folder for temporary files, where the locks of devices lie too.
    """
    with log.open("a", encoding="utf-8") as errors:
        started = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
        )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.communicate()


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, which must be one JSON value and nothing else."""
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The one line on stderr with which it failed; fails the test if there are more, or a traceback.

        Beside it stand only that a data folder was made, and what --yes answered.
        """
        beside = ("does not exist yet: it is made now.", "Continue? Yes (--yes).")
        [line] = [line for line in self.err.splitlines() if not line.endswith(beside)]
        assert line.startswith("batchinfer: ")
        return line.removeprefix("batchinfer: ")


class Cli:
    """Calls `batchinfer` in this process, as its entry point does, with the scripted engine in place of vLLM.

    home: the data folder. Temporary files, and the locks of devices with them, lie beside it.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        data: Path,
        *,
        driver: str = DRIVER,
    ) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.data = data
        monkeypatch.setenv("BATCHINFER_HOME", str(data))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a script needs no GPU
        monkeypatch.setattr(tempfile, "tempdir", str(data.parent))
        monkeypatch.setattr("batchinfer.engines.start.EnginePool", functools.partial(EnginePool, driver=driver))
        monkeypatch.setattr("batchinfer.engines.vllm_source.engine_options", lambda: None)  # a script has its own

    def __call__(self, *arguments: object) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["batchinfer", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            dispatch()
        out, err = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out, err)


if __name__ == "__main__":
    with (
        mock.patch("batchinfer.engines.start.EnginePool", functools.partial(EnginePool, driver=DRIVER)),
        mock.patch("batchinfer.engines.vllm_source.engine_options", return_value=None),
    ):
        main()
