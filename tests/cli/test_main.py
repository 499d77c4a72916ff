"""batchinfer itself: its help, its version, and calls that it does not understand."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.cli.main import COMMANDS, cli
from batchinfer.cli.tables import table
from batchinfer.cli.values import Day, Integer, OneOf, PathText, PathValue, Positive
from batchinfer.core.version import __version__
from tests.tiny import Cli


def loaded(*arguments: str) -> set[str]:
    """The modules that Python has loaded when the command, or without arguments `import click`, is done."""
    program = (
        "import sys; sys.argv[0] = 'batchinfer'; from batchinfer.cli.main import main\n"
        "try: main()\nexcept SystemExit as exc: print(exc.code, *sys.modules, file=sys.stderr)"
    )
    click_alone = "import sys, click; print(0, *sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", program if arguments else click_alone, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, *modules = done.stderr.split()
    assert code == "0"
    return set(modules)


def test_help_is_quick() -> None:
    """--help loads little more than click, and so answers in a moment."""
    assert len(loaded("--help") - loaded()) < 40


@pytest.mark.parametrize(
    ("command", "forbidden"),
    [
        (
            ["--help"],
            ["duckdb", "pyarrow", "vllm", "torch", "pydantic", "transformers", "lmdb", "rich", "jinja2", "yaml"],
        ),
        (["run", "--help"], ["duckdb", "pyarrow", "vllm", "torch", "transformers", "rich"]),
        (["publish", "shop"], ["vllm", "torch", "transformers", "pandas", "jsonschema"]),
        (["lookup", "shop", "text=one"], ["duckdb", "pyarrow", "vllm", "torch", "transformers", "pydantic", "jinja2"]),
        (["versions", "shop"], ["duckdb", "pyarrow", "vllm", "torch", "transformers", "pydantic", "jinja2"]),
        (["match", "shop", "one, two"], ["duckdb", "pyarrow", "vllm", "torch", "transformers", "pydantic", "jinja2"]),
    ],
)
@pytest.mark.long
def test_nothing_heavy_is_imported_unasked(
    batchinfer: Cli, shop: Callable[..., Path], command: list[str], forbidden: list[str]
) -> None:
    """Help imports none of the big libraries, and what serves imports none of those that generate."""
    if "--help" not in command:
        shop(match={"terms": ["text"], "concept": "text"})
        assert batchinfer("run", "shop").code == 0
    assert not set(forbidden) & loaded(*command)


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
        assert isinstance(command, click.Group) or "--json" in [text for option in options for text in option.opts]
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
        (["versions", "shop", "z"], "versions does not take z. Try: batchinfer versions --help"),
        (["run"], "JOB is missing. Try: batchinfer run --help"),
        (["run", "shop", "--limit", "x"], "--limit: expected an integer of at least 1, got 'x'. Try: "),
        (["run", "shop", "--limt", "3"], "run has no option --limt; did you mean --limit? Try: "),
        (["run", "shop", "--limit", "0"], "--limit: expected an integer of at least 1, got '0'."),
        (["run", "shop", "--max-hours", "0"], "--max-hours: expected a number above 0, got '0'."),
        (["run", "shop", "--max-hours", "nan"], "--max-hours: expected a number above 0, got 'nan'."),
        (["run", "shop", "--limit"], "--limit needs a value."),
        (["run", "shop", "--yes=1"], "--yes takes no value."),
        (["run", "shop", "--xyzzy"], "run has no option --xyzzy. Try: "),
        (["serve", "--port", "99999"], "--port: expected an integer from 1 to 65,535, got '99999'."),
        (
            ["export", "shop", "-", "--format", "cvs"],
            "expected parquet, csv or jsonl, got 'cvs'; did you mean csv? Try: ",
        ),
        (["review", "shop", "out.csv"], "--out FILE is missing."),
        (["init", "fruits", "fruits.parquet"], "does not take fruits.parquet; did you mean --input fruits.parquet?"),
        (["pin", "shop", "1", "2", "3"], "pin does not take 2 3."),
        (["keys", "revok", "ci"], "There is no command keys revok; did you mean revoke?"),
        (["jobs", "xyzzy"], "There is no command jobs xyzzy. Try: batchinfer jobs --help"),
        (["run", "shop", "--refresh", "text"], "--refresh: expected COLUMN=VALUE, such as language=de, got 'text'."),
        (["run", "shop", "--refresh", ""], "--refresh: expected COLUMN=VALUE, such as language=de, got ''."),
        (
            ["review", "shop", "--out", "x.csv", "--where", "text=a", "--where", "text=b"],
            "--where: text is given twice, as a and as b: give one value for each column.",
        ),
        *(
            (
                [command, "shop", "text=a", "text=b"],
                "text is given twice, as a and as b: give one value for each column.",
            )
            for command in ("try", "lookup", "forget")
        ),
        (["plan", "shop", "--input", ""], "--input: expected a path, got ''."),
        (["export", "shop", ""], "FILE: expected a path, got ''."),
        (["copy", "shop", ""], "DEST: expected a path, got ''."),
        (["import", "shop", ""], "FILE: expected a path, got ''."),
        (["review", "shop", "--out", ""], "--out: expected a path, got ''."),
        (["init", "towns", "--link", ""], "--link: expected a path, got ''."),
        (["schedule", "export", "systemd", "--to", ""], "--to: expected a path, got ''."),
        (["plan", "shop", "--home", ""], "--home: expected a path, got ''."),
        (["plan", "shop", "--home", "jobs/shop/job.yaml"], "is a file: name a folder with --home."),
        (["plan", ""], "expected a job's name or path, got ''."),
        (["init", "towns", "--key", "word"], "--key names a column of a list: pass the list with --input or --link."),
        (
            ["plan", "jobs/shop/queries.parquet"],
            "is not a job file: it is not UTF-8 text: name the job, its folder or its job.yaml",
        ),
        (["lookup", "shop"], "COLUMN=VALUE is missing."),
        (["lookup", "shop", "one"], "expected COLUMN=VALUE, such as language=de, got 'one'."),
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
        answers = {"text": ["one", "two", "three"], "prediction": ["1", "2", "3"]}
        pq.write_table(pa.table(answers), "answers.parquet")
        batchinfer("import", "shop", "answers.parquet")
        batchinfer("publish", "shop")
    done = batchinfer(*command)
    assert done.code == 2, done
    assert sentence in done.sentence
    assert done.out == ""


def test_values_are_refused_in_our_words() -> None:
    """No option or argument takes a kind of value that click would refuse in words of its own."""
    ours = {
        Integer,
        Positive,
        Day,
        OneOf,
        PathText,
        PathValue,
        type(click.STRING),
        type(click.BOOL),
        type(click.UNPROCESSED),
    }
    waiting: list[click.Command] = [cli]
    while waiting:
        command = waiting.pop()
        assert {type(param.type) for param in command.params} <= ours, command.name
        if isinstance(command, click.Group):
            context = click.Context(command)
            waiting += [
                found for name in command.list_commands(context) if (found := command.get_command(context, name))
            ]
        for param in command.params:  # one that could be refused by what is there on the disk
            assert not isinstance(param.type, click.Path) or not param.type.exists


def test_a_call_that_is_not_understood_is_json(batchinfer: Cli) -> None:
    """With --json such a call is one value on standard output, too, wherever the mistake is."""
    for command in (
        ["run", "--json"],
        ["run", "shop", "--limt", "3", "--json"],
        ["--json", "rnu"],
        ["pin", "a", "b", "--json"],
    ):
        done = batchinfer(*command)
        assert (done.code, done.json["error"]["code"], done.json["error"]["exit_code"]) == (2, "usage_error", 2)
        assert done.json["error"]["message"] + " " + done.json["error"]["fix"] == done.sentence


@pytest.mark.parametrize(
    "command", [["versions", "sho"], ["jobs", "remove", "sho", "--yes"], ["lookup", "sho", "text=a"]]
)
def test_a_job_that_only_the_data_folder_might_have(
    batchinfer: Cli, shop: Callable[..., Path], command: list[str]
) -> None:
    """Who only reads is asked whether a job of the data folder was meant, and not told to make one."""
    shop(None, model=None, prompt=None)
    pq.write_table(pa.table({"text": ["one", "two", "three"], "prediction": ["1", "2", "3"]}), "answers.parquet")
    batchinfer("import", "shop", "answers.parquet")
    shutil.rmtree("jobs")
    done = batchinfer(*command)
    assert done.code == 6
    assert done.sentence.startswith("There is no job sho, neither in the data folder ")
    assert done.sentence.endswith(" nor as jobs/sho/job.yaml: did you mean shop?")
    assert batchinfer("versions", "xyzzy").sentence.endswith(": the data folder has shop.")


def test_a_title_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A title that is wider than its table, or than the terminal, is not broken."""
    monkeypatch.setenv("COLUMNS", "20")
    table("Refused by the gate, for example", ["check"], [["rows"]])
    assert "Refused by the gate, for example" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [20, 60, 80])
def test_only_free_text_is_broken(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However narrow the terminal is, words and figures of other columns stay whole, and so do words of free text."""
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [["rejected", 1_000_000, "2026-11-02 10:11", "too much to be told in one line of that width " * 2]] * 2
    table("", ["status", "rows", "started (UTC)", "what happened"], rows, right=["rows"], free=["what happened"])
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert sum(line.startswith(" rejected  1000000  2026-11-02 10:11  ") for line in lines) == 2
    whole = " ".join(["status rows started (UTC) what happened", *map(str, rows[0])]).split()
    assert {word for word in out.split() if "─" not in word} == set(whole)
    assert max(map(len, lines)) <= max(width, 51)


def test_a_command_without_jobs(batchinfer: Cli) -> None:
    """Where there are no jobs at all, the sentence says how to make one."""
    assert "make one with batchinfer init" in batchinfer("run", "shop").sentence
