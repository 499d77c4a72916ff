"""What commands print for machines and for people."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.cli import notices, tables
from batchinfer.core.home import JobData
from batchinfer.job import reader
from batchinfer.versions.folders import folder_of
from tests.cli.conftest import ECHO
from tests.factories import LENIENT
from tests.tiny import Cli, token, write_job

RUN_FIELDS = {
    "job", "run_id", "status", "rows", "bad", "duplicates", "unique", "cached", "generated", "failed", "remaining", "hits",
    "failures", "left", "carried", "version", "changes", "versions_removed",
    "seconds", "engine_load_seconds", "rows_per_second", "output_tokens_per_second", "prefix_saving",
}  # fmt: skip
PLAN_FIELDS = {
    "job", "rows", "bad", "duplicates", "unique", "cached", "failed", "hits", "failures", "to_generate", "prompt_tokens",
    "prompt_tokens_exact", "prefix_saving", "estimate_seconds",
}  # fmt: skip
HIT_FIELDS = {"job", "query", "prediction", "scores", "score", "source", "model", "generated_at"}


@pytest.mark.long
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
    said = done.json
    assert said.pop("ledger")["lookups"] == history[0].pop("served")["lookups"] == 0
    assert history[0].items() >= said.items()

    plan = batchinfer("plan", "shop", "--json").json
    assert (plan["hits"], plan["to_generate"], plan["prompt_tokens"], plan["estimate_seconds"]) == (2, 0, 0, 0.0)
    again = batchinfer("run", "shop", "--json").json
    assert (again["run_id"], again["hits"], again["generated"], again["version"]) == (2, 2, 0, None)
    assert [entry["run_id"] for entry in batchinfer("runs", "shop", "--json").json] == [2, 1]


def test_a_run_ends_with_a_small_table(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """For people a run says what was cached, generated, failed and remains, and names no saving where nothing was saved."""
    shop({"text": ["one", "two", "two", None]}, gate=LENIENT)
    said = [" ".join(line.split()) for line in batchinfer("run", "shop").out.splitlines()]
    assert said[0] == "Run 1 of shop"
    wanted = [
        "rows in the list 4",
        "bad rows 1",
        "unique prompts 2",
        "cached 0",
        "generated 2",
        "failed 0",
        "remaining 0",
    ]
    assert set(wanted) <= set(said)
    assert not any("caching saved" in line for line in said)
    assert "Published version 1 with 2 entries." in said
    again = " ".join(batchinfer("run", "shop").out.split())
    assert "cached 2 generated 0 failed 0 remaining 0 time" in again
    assert "tokens per second" not in again
    runs = batchinfer("runs", "shop").out
    assert runs.split()[:8] == ["run", "started", "status", "rows", "cached", "generated", "version", "rows/s"]


def test_a_run_that_stopped_shows_what_it_did(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """The same table stands before the sentence that says why a run stopped early, or what the gate refused."""
    script = ECHO | {"refuse": [token("R")]}
    shop({"text": [f"R{number}" for number in range(40)]}, script=script, on_errors={"after": 5})
    done = batchinfer("run", "shop")
    assert done.code == 4
    assert "Stopped early: " in done.err
    said = [" ".join(line.split()) for line in done.out.splitlines()]
    assert said[0] == "Run 1 of shop"
    assert "generated 0" in said
    assert not {"failed 0", "remaining 0"} & set(said)


def test_lookup_and_versions_for_machines(batchinfer: Cli, ran: Path, shop: Callable[..., Path]) -> None:
    """Lookup prints the body of a hit; versions lists what was published, newest first."""
    body = batchinfer("lookup", "shop", "text=two", "--json").json
    assert body.keys() == HIT_FIELDS
    assert (body["job"], body["query"], body["prediction"], body["source"]) == ("shop", {"text": "two"}, "two", "model")
    shop({"text": ["one", "two", "three", "four"]})
    batchinfer("run", "shop")
    rows = batchinfer("versions", "shop", "--json").json
    assert [(row["version"], row["rows"], row["served"], row["current"], row["pinned"]) for row in rows] == [
        (2, 4, True, True, False),
        (1, 3, False, False, False),
    ]
    assert all(row.keys() == {"version", "created_at", "rows", "served", "current", "pinned", "gate"} for row in rows)


@pytest.mark.long
def test_pinning_for_people_and_machines(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """pin, unpin and rollback say what is served then, and which command ends that; a run says that a pin hides its version."""
    shop({"text": ["one"]}, gate=LENIENT)
    batchinfer("run", "shop")
    shop({"text": ["one", "two"]}, gate=LENIENT)
    batchinfer("run", "shop")
    done = batchinfer("pin", "shop", 1)
    assert (done.code, done.out) == (0, "Version 1 is pinned: it is served until batchinfer unpin shop.\n")
    assert [
        (row["served"], row["current"], row["pinned"]) for row in batchinfer("versions", "shop", "--json").json
    ] == [
        (False, True, False),
        (True, False, True),
    ]
    assert batchinfer("lookup", "shop", "text=two").code == 6
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
    assert batchinfer("unpin", "shop").out == "Unpinned: version 3 is served.\n"


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        (["pin", "shop", "7"], 6, "The job shop has no version 7 in "),
        (["pin", "shop", "0"], 2, "N: expected an integer of at least 1, got '0'."),
        (["pin", "shop", "one"], 2, "N: expected an integer of at least 1, got 'one'."),
        (["pin", "shop"], 2, "N is missing."),
        (["rollback", "shop"], 6, "has no whole version below 1, which is served, in "),
        (["pin", "nothing", "1"], 6, "There is no job nothing"),
    ],
)
def test_pins_that_cannot_be(batchinfer: Cli, ran: Path, command: list[str], code: int, sentence: str) -> None:
    """A version that is not there is a miss, a number that is none is bad usage; both are told in a sentence."""
    done = batchinfer(*command)
    assert (done.code, done.out) == (code, "")
    assert sentence in done.err


def test_a_damaged_version_is_listed(batchinfer: Cli, ran: Path) -> None:
    """The list of versions can be had although one of them is damaged, and says which."""
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
    assert all(row.keys() == {"stage", "reason", "detail", "query", "row", "run_id", "at", "text"} for row in rows)
    said = " ".join(batchinfer("failures", "shop").out.split())
    assert "1 null_key fill the columns of input.key in the list" in said
    assert "1 refused correct the row, or change prompt.template or model.options as the engine says" in said
    assert "--retry-failed" not in said  # neither would end otherwise


@pytest.mark.long
def test_failures_are_cut_and_advised_on(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Long texts do not fill the screen, and trying again is named for what it may help, with the reason."""
    long = "D" + "word " * 1800
    shop({"text": ["one", long, "D2"]}, script=ECHO | {"die_on": [token("D")], "max_len": 10**6}, gate=LENIENT)
    batchinfer("run", "shop")
    said = batchinfer("failures", "shop").out
    assert len(said) < 3000
    assert "…" in said
    assert " ".join(said.split()).endswith("Trying again may help for engine_died: batchinfer run shop --retry-failed")
    assert long in str(batchinfer("failures", "shop", "--json").json)


def test_failures_can_be_limited(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """--limit holds for machines too; without it they get all, and people the newest 20."""
    shop({"text": ["one", *[None] * 24]}, gate=LENIENT)
    batchinfer("run", "shop")
    assert len(batchinfer("failures", "shop", "--json").json) == 24
    assert len(batchinfer("failures", "shop", "--json", "--limit", "2").json) == 2
    assert "The newest 20 of 24 are shown" in batchinfer("failures", "shop").out
    assert "The newest 2 of 24 are shown" in batchinfer("failures", "shop", "--limit", "2").out


@pytest.mark.parametrize("job", [".", "./", "..", "../shop", "jobs"])
def test_a_folder_is_not_the_name_of_a_job(
    batchinfer: Cli, ran: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    """What is no name is a path to a job file, also where the data folder has a folder there."""
    folder = ran
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


@pytest.mark.parametrize("command", [["export", "shop"], ["diff", "shop", "--out"], ["review", "shop", "--out"]])
def test_files_are_named_by_their_endings(batchinfer: Cli, command: list[str]) -> None:
    """Each command that writes a file refuses one without a format that it can write, before anything is done."""
    for name in ("out.xlsx", "out", "out.csv.zip"):
        assert f"{name} cannot be written: " in batchinfer(*command, name).sentence
    assert "- needs --format: " in batchinfer(*command, "-").sentence
    assert "With --json the report goes to standard output" in (
        batchinfer(*command, "-", "--format", "csv", "--json").sentence
    )
    assert not Path("home").exists()


def test_an_export_on_standard_output(batchinfer: Cli, ran: Path) -> None:
    """On standard output there is the file and nothing else; what is said of it goes to stderr."""
    printed = batchinfer("export", "shop", "-", "--format", "csv")
    assert sorted(row["text"] for row in csv.DictReader(io.StringIO(printed.out))) == ["one", "three", "two"]
    assert printed.err == "Wrote 3 rows to standard output.\n"
    for line in batchinfer("review", "shop", "--out", "-", "--format", "csv").out.splitlines()[1:]:
        assert line.startswith("shop,1,")


@pytest.mark.long
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
    words = ["import", "shop", "in.parquet", "--author", "ann"]
    assert "It has 1 key that the list does not have:\n  row 2: text=beyond\n" in batchinfer(*words).err
    assert batchinfer(*words, "--allow", "keys", "--json").json == {
        "import_id": 1, "rows": 2, "unfit": 0, "unlisted": 1
    }  # fmt: skip
    [listed] = batchinfer("import", "shop", "--list", "--json").json
    assert (listed["import_id"], listed["author"], listed["rows"]) == (1, "ann", 2)
    assert batchinfer("publish", "shop", "--json").json["version"] == 2
    body = batchinfer("lookup", "shop", "text=two", "--json").json
    assert (body["prediction"], body["source"]) == ("zwei 2️⃣", "import")
    assert batchinfer("lookup", "shop", "text=beyond").code == 0

    assert batchinfer("import", "shop", "--undo", "7").code == 6
    assert batchinfer("import", "shop", "--undo", "1", "--json").json == {"import_id": 1, "rows": 2}
    assert batchinfer("publish", "shop", "--json").json["version"] == 3
    assert batchinfer("lookup", "shop", "text=two", "--json").json["prediction"] == "two"
    assert batchinfer("lookup", "shop", "text=beyond").code == 6


@pytest.mark.long
def test_a_plan_shows_a_prompt(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """The first prompt that would be generated is shown, cut if it is long; where all is cached, the list's first."""
    shop({"text": ["x" * 3000]})
    said = batchinfer("plan", "shop").out
    assert "The first prompt that a run would ask:\n<user>xxx" in said
    assert "… 1,018 more characters; batchinfer try shop shows a whole one." in said
    assert batchinfer("plan", "shop", "--json").json["prompt"] == f"<user>{'x' * 3000}\n<assistant>"
    batchinfer("run", "shop")
    assert batchinfer("plan", "shop", "--json").json["prompt"] == "x" * 3000
    assert "a run would ask none:\nxxx" in batchinfer("plan", "shop").out


def test_try_shows_the_prompt_and_stores_nothing(batchinfer: Cli, tiny: Path, shop: Callable[..., Path]) -> None:
    """Try prints the rendered prompt and the answer; the cache stays as it was."""
    shop()
    done = batchinfer("try", "shop", "text=Hello", "--json")
    assert done.code == 0, done.err
    result = done.json
    assert (result["prompt"], result["text"]) == ("<user>Hello\n<assistant>", "Hello")
    assert result["result"]["value"] == "Hello"
    assert batchinfer("runs", "shop").code == 6
    said = batchinfer("try", "shop", "text=Hello").out
    assert "<user>Hello" in said
    assert 'The prediction: "Hello"' in said
    sentence = batchinfer("try", "shop", "txet=Hello").sentence
    assert sentence == "Neither the template nor the key has a column txet; did you mean text?"


@pytest.mark.long
def test_try_takes_rows_of_the_list(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Without a row try takes the list's first, with a key the row that has it, with --rows the first of them."""
    rows = {"a=b": [None, "x", "Y", "z"], "id": [1, 2, 3, 4], "Long Name": ["n1", "n2", "n3", "n4"]}
    shop(
        rows,
        input={"path": "queries.parquet", "key": ["id", "a=b"], "normalize": ["casefold"]},
        prompt={"format": "completion", "template": '{{ row["Long Name"] }} of {{ row["a=b"] }}'},
    )
    first = batchinfer("try", "shop", "--json").json
    assert (first["query"], first["prompt"]) == ({"id": 2, "a=b": "x"}, "n2 of x")
    assert batchinfer("try", "shop", "a=b=y", "id=3", "--json").json["prompt"] == "n3 of Y"
    many = batchinfer("try", "shop", "--rows", "9", "--json").json
    assert [(trial["prompt"], trial["result"]["value"]) for trial in many] == [
        (text, text) for text in ("n2 of x", "n3 of Y", "n4 of z")
    ]
    own = batchinfer("try", "shop", "a=b==c", "Long Name=N", "--json").json
    assert (own["query"], own["prompt"]) == (None, "N of =c")
    said = batchinfer("try", "shop", "--rows", "2").out
    assert said.index("id=2, a=b=x") < said.index("n2 of x") < said.index("id=3, a=b=Y")
    for words, code, sentence in [
        (["id=9", "a=b=x"], 6, "The list has no row with id=9, a=b=x."),
        (
            ["id=2"],
            2,
            "Give a whole key (id, a=b) to try that row of the list, or a value for each column of the template",
        ),
        (["id=2", "--rows", "2"], 2, "give one of the two"),
        (["id=two", "a=b=x"], 2, "id=two is not a valid integer"),
    ]:
        done = batchinfer("try", "shop", *words)
        assert (done.code, sentence in done.sentence) == (code, True), done


def test_try_says_why_a_row_cannot_be_asked(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A row that is found by its key and is bad is told with its fault; so is a list of nothing but such rows."""
    shop(
        {"id": [1, 2], "text": ["", " "]},
        input={"path": "queries.parquet", "key": ["id"]},
    )
    assert batchinfer("try", "shop", "id=2").sentence == "That row cannot be asked: The column text is an empty text."
    assert "can be asked: batchinfer plan shop counts the bad ones" in batchinfer("try", "shop").sentence


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


def test_doctor_looks_at_the_model_that_the_job_names_now(
    batchinfer: Cli, ran: Path, shop: Callable[..., Path]
) -> None:
    """After model.id was edited doctor does not speak of the model that was recorded before."""
    shop(model={"id": "./gone"})
    findings = {finding["what"]: finding for finding in batchinfer("doctor", "shop", "--json").json}
    assert not findings["model"]["ok"]
    assert "model.id: there is no model in" in findings["model"]["fix"]


def test_doctor_finds_what_is_missing(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Doctor says of a job without list or model what is missing, and ends with exit code 1."""
    folder = shop(model={"id": "./gone"})
    (folder / "queries.parquet").unlink()
    done = batchinfer("doctor", "shop", "--json")
    assert done.code == 1
    findings = {finding["what"]: finding for finding in done.json}
    assert not findings["query list"]["ok"]
    assert "input.path: there is no file" in findings["query list"]["fix"]
    assert not findings["model"]["ok"]
    assert "model.id: there is no model in" in findings["model"]["fix"]


@pytest.mark.parametrize("command", ["plan", "run", "runs", "versions", "failures", "doctor", "publish"])
def test_people_get_text(batchinfer: Cli, ran: Path, command: str) -> None:
    """Without --json every command prints something readable and ends well."""
    done = batchinfer(command, "shop")
    assert done.code == (0 if command != "doctor" else done.code)
    assert done.out.strip()
    assert "Traceback" not in done.err
    assert not done.out.startswith(("{", "["))


def test_a_narrow_terminal_loses_no_column(batchinfer: Cli, ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At sixty characters and fewer a table still has all its columns and figures."""

    def words(width: int) -> set[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        return {word for word in batchinfer("runs", "shop").out.split() if "─" not in word}

    assert words(60) == words(20) == words(400)
    assert {"run", "rows", "generated", "done"} <= words(60)


def test_a_table_that_is_too_wide_comes_in_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal each part is as wide as that at most and begins with the first column; in a file the table is whole."""
    columns = ["run", *(f"{'figure' * 2}{number}" for number in range(9))]
    rows = [[1, *range(9)], [2, *range(10, 19)]]

    def lines(width: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        tables.table("", columns, rows)
        return [
            line.rstrip()
            for line in re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
            if line.strip()
        ]

    assert len(lines(60)) == 4
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert len(lines(160)) == 4
    parts = lines(60)
    assert len(parts) == 12
    assert max(map(len, parts)) <= 60
    assert [line.split()[0] for line in parts if "─" not in line] == ["run", "1", "2"] * 3
    assert {word for line in parts for word in line.split()} >= set(columns)
    assert len(lines(5)) == 9 * 4


@pytest.mark.parametrize("width", [62, 70, 80])
def test_columns_of_free_text_share_the_room(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where several columns can be broken, each keeps its words whole, and the table is as wide as the terminal at most."""
    monkeypatch.setenv("COLUMNS", str(width))
    columns, share = ["group", "rows", "coverage", "failures", "accuracy", "verdict"], "50.0% (41.2% to 58.8%)"
    row = ["domain=product", "120", share, share, share, "not enough data"]
    tables.table("", columns, [row], free=[name for name in columns if name != "rows"])
    out = capsys.readouterr().out
    assert sorted(word for word in out.split() if "─" not in word) == sorted(" ".join([*columns, *row]).split())
    assert max(map(len, out.splitlines())) <= width


def test_the_bundled_model_is_noted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person is told once, by whatever command and job, that the model is a small one, and never beside JSON."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model, prompt = {"id": "bundled/smollm2-135m-instruct"}, {"template": "{{ text }}"}
    for name in ("shop", "other"):
        write_job(tmp_path / name, {"text": ["a"]}, name=name, model=model, prompt=prompt)

    def said(name: str = "shop", *, as_json: bool = False) -> str:
        notices.model_note(reader.load(str(tmp_path / name), {}), as_json=as_json)
        return capsys.readouterr().err

    assert said(as_json=True) == ""
    assert "is a small English model" in said()
    assert said() == said("other") == ""
