"""--json in every command: one value on stdout, also where the command fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer import errors
from batchinfer.cli.main import COMMANDS, cli
from batchinfer.errors import BatchinferError, ExitCode
from batchinfer.versions import pointers
from tests.factories import LENIENT
from tests.tiny import Cli


def all_commands() -> Iterator[tuple[str, ...]]:
    """Every command, with those below a group."""
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        yield (name,)
        if isinstance(command, click.Group):
            yield from ((name, inner) for inner in command.commands)


FAILS: dict[tuple[str, ...], tuple[list[str], int]] = {
    ("init",): (["Shop"], 2),
    ("try",): (["gone", "text=one"], 2),
    ("doctor",): (["gone"], 2),
    ("plan",): (["gone"], 2),
    ("run",): (["gone"], 2),
    ("tune",): (["gone"], 2),
    ("publish",): (["shop", "--candidate", "r9"], 6),
    ("review",): (["shop", "--out", "nowhere/x.csv"], 2),
    ("precision",): (["shop"], 6),
    ("import",): (["shop", "--undo", "7"], 6),
    ("export",): (["shop", "nowhere/x.parquet"], 2),
    ("failures",): (["other"], 6),
    ("runs",): (["other"], 6),
    ("audit",): (["gone"], 2),
    ("status",): (["gone"], 6),
    ("schedule",): (["nothing"], 2),
    ("schedule", "run"): (["gone"], 2),
    ("schedule", "list"): (["gone"], 2),
    ("schedule", "export"): (["cron", "gone"], 2),
    ("calibrate",): (["shop"], 1),
    ("distill",): (["gone"], 2),
    ("finetune",): (["gone"], 2),
    ("eval",): (["gone"], 2),
    ("versions",): (["other"], 6),
    ("pin",): (["shop", "9"], 6),
    ("unpin",): (["other"], 6),
    ("rollback",): (["shop"], 6),
    ("jobs",): (["nothing"], 2),
    ("jobs", "remove"): (["other", "--yes"], 6),
    ("lookup",): (["shop", "text=seven"], 6),
    ("match",): (["shop", "one"], 2),
    ("serve",): (["--host", "no host"], 2),
    ("keys",): (["nothing"], 2),
    ("keys", "add"): ([" "], 2),
    ("keys", "list"): (["more"], 2),
    ("keys", "revoke"): (["00000000"], 6),
    ("diff",): (["shop", "1", "9"], 6),
    ("copy",): (["shop", "home"], 2),
    ("repair",): (["other", "--yes"], 6),
    ("prune",): (["gone"], 2),
    ("forget",): (["shop", "text=seven", "--yes"], 6),
}
"""A call of each command that fails, and its exit code."""


def test_every_command_has_a_failing_call() -> None:
    """The table above leaves no command out."""
    assert set(FAILS) == set(all_commands())


@pytest.mark.parametrize("path", FAILS, ids=" ".join)
def test_an_error_is_one_value(batchinfer: Cli, ran: Path, path: tuple[str, ...]) -> None:
    """With --json a failing command prints one object with the error, and the sentence on stderr as ever."""
    arguments, code = FAILS[path]
    done = batchinfer(*path, *arguments, "--json")
    assert done.code == code, done
    error = done.json["error"]
    assert error["exit_code"] == code
    assert set(error) == {"code", "message", "fix", "exit_code"}
    assert all(isinstance(error[name], str) and error[name] for name in ("code", "message", "fix"))
    assert error["message"].splitlines()[0].removesuffix(".") in done.err
    assert batchinfer(*path, *arguments).out == ""


@pytest.mark.parametrize("path", FAILS, ids=" ".join)
def test_bad_usage_is_one_value(batchinfer: Cli, path: tuple[str, ...]) -> None:
    """So it is where the command line itself cannot be understood."""
    done = batchinfer(*path, "--json", "--no-such-option")
    assert done.code == 2
    assert done.json["error"]["code"] == "usage_error"
    assert done.json["error"]["fix"].endswith("--help")


@pytest.mark.parametrize("arguments", [["rnu", "--json"], ["--no-such-option", "--json"]])
def test_no_command_at_all_is_one_value(batchinfer: Cli, arguments: list[str]) -> None:
    """Also before any command is known."""
    done = batchinfer(*arguments)
    assert (done.code, done.json["error"]["code"]) == (2, "usage_error")


def test_what_stands_after_two_dashes_is_no_option(batchinfer: Cli, ran: Path) -> None:
    """A value that looks like the option asks for nothing."""
    done = batchinfer("lookup", "shop", "--", "--json")
    assert (done.code, done.out) == (2, "")


def test_a_refused_run_has_its_report_and_the_error(batchinfer: Cli, ran: Path, shop: Callable[..., Path]) -> None:
    """What a command has to say beside its error stands in the same value."""
    shop({"text": ["one"]}, gate={"shrink": 0.0})
    done = batchinfer("run", "shop", "--json")
    assert (done.code, done.json["status"], done.json["error"]["code"]) == (3, "rejected", "gate_failed")
    shop({"text": ["four"]}, gate=LENIENT)
    done = batchinfer("run", "shop", "--max-hours", "0.0000001", "--json")
    assert (done.code, done.json["error"]["code"]) == (4, "stopped")


def test_what_is_wrong_and_what_to_do_are_two_fields(batchinfer: Cli) -> None:
    """People get both in one sentence; where it does not say what to do, the advice of the kind is there."""
    done = batchinfer("jobs", "--json")
    assert done.json["error"] == {
        "code": "not_found",
        "message": f"There is no data folder {batchinfer.data}.",
        "fix": "batchinfer run makes it, or choose another with --home.",
        "exit_code": 6,
    }
    assert done.sentence == f"There is no data folder {batchinfer.data}: {done.json['error']['fix']}"
    error = batchinfer("plan", "gone", "--json").json["error"]
    assert (error["code"], error["fix"]) == (
        "usage_error",
        "Correct the arguments; the command's --help explains them.",
    )


def test_a_job_file_with_problems_lists_them(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Each problem is an item of its own, with file and line, beside one sentence; a single one is in the sentence."""
    file = str(shop(gate={"coverage": 7}, colour="red") / "job.yaml")
    error = batchinfer("plan", "shop", "--json").json["error"]
    assert (error["code"], error["message"]) == ("spec_error", f"{file} has 2 problems.")
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    assert {(problem["file"], lines[problem["line"] - 1]) for problem in error["problems"]} == {
        (file, "  coverage: 7"),
        (file, "colour: red"),
    }
    shop(colour="red")
    error = batchinfer("plan", "shop", "--json").json["error"]
    [problem] = error["problems"]
    assert error["message"] == f"{file}: line {problem['line']}: {problem['message']}"


def test_a_refused_import_lists_its_rows(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A plain import and a review have a sentence, the places of what is wrong, and what to do."""
    shop(output={"type": "choice", "choices": ["Yes", "No"]})
    Path("in.csv").write_text("text,prediction\none,Yes\ntwo,Maybe\nfour,No\n", encoding="utf-8")
    file = str(Path("in.csv").absolute())
    error = batchinfer("import", "shop", "in.csv", "--json").json["error"]
    assert error["message"] == (
        f"{file} is refused, and nothing was imported: it has 1 value that the job could never give and "
        "1 key that the list does not have."
    )
    assert error["fix"] == "If all of that is meant, pass --allow values,keys."
    value, key = error["problems"]
    assert (value["file"], value["line"], "text=two" in value["message"]) == (file, 3, True)
    assert key == {"file": file, "line": 4, "message": "text=four"}
    table = {"text": ["one"], "prediction": ["Yes"]}
    pq.write_table(pa.table({name: [*cells, None] for name, cells in table.items()}), "in.parquet")
    [problem] = batchinfer("import", "shop", "in.parquet", "--json").json["error"]["problems"]
    assert (problem["row"], problem["message"]) == (2, "The column text is null.")
    names = ("text", "value", "check", "corrected", "author", "comment")
    review = {"job": ["store", "shop"], "verdict": ["accept", "perhaps"]} | {name: ["x", "x"] for name in names}
    pq.write_table(pa.table(review), "review.parquet")
    error = batchinfer("import", "shop", "review.parquet", "--json").json["error"]
    assert error["message"].endswith("review.parquet is refused, and nothing was imported: it has 2 faults.")
    assert [problem["row"] for problem in error["problems"]] == [1, 2]


def test_what_the_system_refuses_is_one_value(batchinfer: Cli, ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also an error that nobody expected of a file, and Ctrl-C."""
    for raised, code, kind in (
        (OSError(5, "I/O error", "/x"), 1, "store_error"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ):

        def fails(*_: object, raised: BaseException = raised) -> None:
            raise raised

        monkeypatch.setattr(pointers, "list_versions", fails)
        done = batchinfer("versions", "shop", "--json")
        assert (done.code, done.json["error"]["code"]) == (code, kind)


def test_the_exit_codes_have_one_home() -> None:
    """Each error's exit code is one of the contract's, and its kind is the name of a public class."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BatchinferError)]
    assert all(isinstance(kind.exit_code, ExitCode) for kind in kinds)
    assert len({kind.code() for kind in kinds}) == len(kinds)
    assert sorted(ExitCode) == [0, 1, 2, 3, 4, 5, 6, 130]


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["keys"], ["keys", "-h"], ["run", "-h"]])
def test_help_is_no_error(batchinfer: Cli, arguments: list[str]) -> None:
    """Without a command there is help, as with -h and --help: on stdout, with exit code 0."""
    done = batchinfer(*arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Usage: batchinfer")


@pytest.mark.parametrize("place", range(3))
def test_home_stands_where_one_likes(batchinfer: Cli, ran: Path, tmp_path: Path, place: int) -> None:
    """Before the command, right after it, or at the end; the last one counts, and all win over the environment."""
    (tmp_path / "home").rename(tmp_path / "moved")
    arguments = ["lookup", "shop", "text=one"]
    arguments[place:place] = ["--home", str(tmp_path / "moved")]
    assert batchinfer(*arguments).code == 0
    assert (
        batchinfer("--home", tmp_path / "typo", *["lookup", "shop", "text=one", "--home", tmp_path / "moved"]).code == 0
    )
    done = batchinfer("keys", "list", f"--home={tmp_path / 'typo'}")
    assert (done.code, str(tmp_path / "typo") in done.sentence) == (6, True)
    assert batchinfer("keys", f"--home={tmp_path / 'moved'}", "list").code == 0
