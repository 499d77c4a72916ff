"""What is asked before a version is made that may be a mistake: another list, no entries, most of them gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from batchinfer.cli.main import cli
from batchinfer.core.output import OutputFile
from batchinfer.errors import GateFailed, NotConfirmed, UsageError
from batchinfer.inputs.place import is_one_place
from batchinfer.pipeline.export import export
from batchinfer.pipeline.plan import plan
from batchinfer.pipeline.publish import publish, publish_candidate
from batchinfer.pipeline.run import run
from batchinfer.planning.prepare import Options
from batchinfer.review.export import export_review
from batchinfer.review.ingest import import_review
from batchinfer.versions import folders
from batchinfer.versions.layout import MANIFEST
from batchinfer.versions.manifest import Manifest
from tests.factories import Templates, World, imports_job, write
from tests.publish.conftest import OPEN
from tests.tiny import RecordingConsole

Command = Callable[[World, Options, RecordingConsole], object]
COMMANDS: dict[str, Command] = {
    "run": lambda world, options, person: run(world.job, world.data, options, person),
    "publish": lambda world, options, person: publish(world.job, world.data, options, person),
    "export": lambda world, options, person: export(
        world.job, world.data, options, OutputFile.of(world.job.folder / "out.parquet"), person
    ),
    "review": lambda world, options, person: export_review(
        world.job, world.data, options, OutputFile.of(world.job.folder / "out.csv"), {}, person
    ),
}


def ten_keys(folder: Path) -> World:
    """A job that serves ten keys of its own list."""
    made = imports_job(folder, {"id": list(range(10))}, gate=OPEN)
    made.take_in({"id": list(range(10)), "prediction": list("abcdefghij")})
    made.publish()
    return made


@pytest.fixture
def world(templates: Templates, tmp_path: Path) -> World:
    """`ten_keys`."""
    return templates.world(ten_keys, tmp_path)


@pytest.fixture
def week2(world: World) -> Path:
    """A second list, with the first four of the keys."""
    return write(world.job.folder / "week2.parquet", {"id": list(range(4))})


def input_of(world: World) -> object:
    with world.served() as served:
        return served.manifest.run.input


@pytest.mark.parametrize("command", COMMANDS)
def test_another_list_is_asked_about(world: World, week2: Path, command: str) -> None:
    """Each command says where the served version's list came from, asks, and does nothing on no."""
    person = RecordingConsole()
    with pytest.raises(NotConfirmed, match=r"Version 1, which is served, was made from the list queries\.parquet"):
        COMMANDS[command](world, Options(input=week2), person)
    assert [said.endswith(f"but this list is {week2}. Continue?") for said in person.questions] == [True]
    assert folders.numbers(world.data) == [1]
    assert not list(world.job.folder.glob("out.*"))
    person.answer = True
    COMMANDS[command](world, Options(input=week2), person)


@pytest.mark.long
def test_the_way_back_is_asked_about_too(world: World, week2: Path) -> None:
    """After a version of another list the job's own list is the unexpected one; the same list again is not."""
    world.take_in({"id": [1], "prediction": ["new"]})
    world.publish(input=week2)
    assert input_of(world) == str(week2)
    with pytest.raises(NotConfirmed, match=r"but this list is queries\.parquet\. Pass --yes"):
        publish(world.job, world.data, Options(), RecordingConsole())
    world.take_in({"id": [1], "prediction": ["newer"]})
    person = RecordingConsole()
    assert publish(world.job, world.data, Options(input=week2), person).version == 3
    assert person.questions == []


@pytest.mark.long
def test_a_list_that_changed_nothing_is_agreed_to(world: World) -> None:
    """After a yes that changed nothing that list is not asked about again; the one before is, until it was agreed to."""
    same, person = write(world.job.folder / "same.parquet", {"id": list(range(10))}), RecordingConsole(answer=True)
    assert publish(world.job, world.data, Options(input=same), person).same_as == 1
    assert len(person.questions) == 1
    for command in COMMANDS.values():
        command(world, Options(input=same), person)
    assert len(person.questions) == 1
    report = publish(world.job, world.data, Options(yes=True), person)
    assert person.said[-1] == f"{report.list_differs} Continue? Yes (--yes)."
    assert report.list_differs == (
        f"The last list, {same}, changed nothing of version 1, which is served, but this list is queries.parquet."
    )
    assert publish(world.job, world.data, Options(), RecordingConsole()).list_differs is None


def test_what_was_agreed_to_holds_for_one_version(world: World, week2: Path) -> None:
    """A new version has a list of its own, whatever was agreed to before."""
    same = write(world.job.folder / "same.parquet", {"id": list(range(10))})
    world.publish(input=same)
    world.take_in({"id": [1], "prediction": ["new"]})
    world.publish(input=week2)
    with pytest.raises(NotConfirmed, match=rf"Version 2, which is served, was made from the list {week2}"):
        publish(world.job, world.data, Options(input=same), RecordingConsole())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.long
def test_a_dated_list_and_the_way_back_from_it_are_asked_about(world: World, command: str) -> None:
    """A name that differs only in digits is another place, by --input and in the job file, there and back."""
    ids = {"id": list(range(10))}
    week1, week2 = (write(world.job.folder / name, ids) for name in ("week1.parquet", "week2.parquet"))
    dated = world.changed(input={"path": week1.name, "key": ["id"]})
    dated.take_in({"id": [1], "prediction": ["new"]})
    dated.publish()
    with pytest.raises(NotConfirmed, match=rf"made from the list week1\.parquet, but this list is {week2}"):
        COMMANDS[command](dated, Options(input=week2), RecordingConsole())
    dated.take_in({"id": [1], "prediction": ["newer"]})
    dated.publish(input=week2)
    with pytest.raises(NotConfirmed, match=rf"made from the list {week2}, but this list is week1\.parquet"):
        COMMANDS[command](dated, Options(), RecordingConsole())
    next_week, person = dated.changed(input={"path": week2.name, "key": ["id"]}), RecordingConsole()
    COMMANDS[command](next_week, Options(), person)  # the same file by its name in the job file
    assert person.questions == []


def test_another_job_s_version_is_another_list(world: World) -> None:
    """A job is told from another, and from a file that bears such a name."""
    assert not is_one_place(world.job, "the job shop1", "the job shop2")
    assert not is_one_place(world.job, "the job shop1", str(world.job.folder / "the job shop1"))
    assert is_one_place(world.job, "the job shop1", "the job shop1")


def test_yes_shows_the_question_with_its_answer(world: World, week2: Path) -> None:
    """With --yes nobody is asked, but each question and its answer are said."""
    world.store.path.unlink()
    world.take_in({"id": list(range(4)), "prediction": list("abcd")})
    person = RecordingConsole()
    publish(world.job, world.data, Options(input=week2, yes=True), person)
    assert person.questions == []
    answered = [said.removesuffix(" Continue? Yes (--yes).") for said in person.said if said.endswith("Yes (--yes).")]
    assert answered == [
        f"Version 1, which is served, was made from the list queries.parquet, but this list is {week2}.",
        "The new version would remove 6 of the 10 entries that are served now.",
    ]


@pytest.mark.parametrize("path", ["queries.parquet", "../job/queries.parquet", "link.parquet"])
def test_the_job_s_own_list_by_another_name_is_no_other(world: World, path: str) -> None:
    """--input with the job's own file, however it is spelled, is the same place."""
    (world.job.folder / "link.parquet").symlink_to("queries.parquet")
    person = RecordingConsole()
    publish(world.job, world.data, Options(input=world.job.folder / path), person)
    assert person.questions == []


def test_another_path_in_the_job_file_is_another_list(world: World, week2: Path) -> None:
    """An edit of input.path changes the list, too."""
    edited = world.changed(input={"path": week2.name, "key": ["id"]})
    with pytest.raises(NotConfirmed, match=r"but this list is week2\.parquet\. "):
        publish(edited.job, edited.data, Options(), RecordingConsole())


def test_what_only_looks_only_says_it(world: World, week2: Path) -> None:
    """plan, a run that publishes nothing and the import of a review say it, and do not ask."""
    review = world.job.folder / "review.csv"
    export_review(world.job, world.data, Options(), OutputFile.of(review), {})
    said: list[str] = []
    person = RecordingConsole()
    plan(world.job, world.data, Options(input=week2), said.append)
    import_review(world.job, world.data, review, None, Options(input=week2), said.append)
    run(world.job, world.data, Options(input=week2, publish=False), person)
    told = [text for text in [*said, *person.said] if text.startswith("Version 1, which is served")]
    assert (len(told), person.questions) == (3, [])


def test_a_version_of_an_older_program_does_not_say_its_list(world: World, week2: Path) -> None:
    """A manifest without the place asks nothing."""
    folder = folders.folder_of(world.data, 1)
    manifest = Manifest.read(folder)
    old = dict(manifest.document, run={"run_id": 0, "model": None, "upstream": None})
    (folder / MANIFEST).write_bytes(Manifest.of(old).to_bytes())
    (world.data.folder / "CURRENT").unlink()
    person = RecordingConsole()
    export(world.job, world.data, Options(input=week2), OutputFile.of(week2.with_name("out.parquet")), person)
    assert person.questions == []


def test_nobody_at_the_terminal_is_no(world: World, week2: Path) -> None:
    """Without a terminal and without --yes a command ends with exit code 2 and one sentence."""
    arguments = ["--home", str(world.data.root), "publish", str(world.job.path), "--input", str(week2)]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, NotConfirmed)
    assert result.exception.exit_code == 2
    assert CliRunner().invoke(cli, [*arguments, "--yes"]).exit_code == 0


# Few or no entries


def emptied(world: World) -> str:
    """Takes back all answers; returns the name of the candidate that the gate refuses."""
    world.store.path.unlink()
    with pytest.raises(GateFailed) as refused:
        world.publish()
    assert refused.value.report is not None
    return str(refused.value.report.to_json()["candidate"])


def test_an_empty_version_wants_its_own_word(world: World) -> None:
    """Force and yes do not publish a version without entries, from the cache or as a candidate; allow_empty does."""
    name, person, options = emptied(world), RecordingConsole(), Options(yes=True)
    with pytest.raises(UsageError, match="would have no entries"):
        publish(world.job, world.data, options, person, "why not")
    with pytest.raises(UsageError, match="would have no entries"):
        publish_candidate(world.job, world.data, options, person, name, "why not")
    assert world.get(id=1) is not None
    published = publish_candidate(world.job, world.data, options, person, name, "it is over", allow_empty=True)
    assert published.manifest.rows == 0
    assert world.get(id=1) is None


def test_an_empty_version_of_the_cache(world: World) -> None:
    """The same from the cache alone, where a person must also type the number of entries that go."""
    emptied(world)
    person = RecordingConsole(answer=True)
    assert publish(world.job, world.data, Options(), person, "it is over", allow_empty=True).version == 2
    again = publish(world.job, world.data, Options(), person, "it is over", allow_empty=True)
    assert (again.version, again.same_as) == (None, 2)
    assert person.questions == ["The new version would remove 10 of the 10 entries that are served now. [10]"]


def test_allow_empty_goes_with_force(world: World) -> None:
    """By itself it would do nothing: the gate refuses an empty version."""
    result = CliRunner().invoke(cli, ["--home", str(world.data.root), "publish", str(world.job.path), "--allow-empty"])
    assert str(result.exception).startswith("--allow-empty goes with --force")


@pytest.mark.parametrize("command", ["run", "publish"])
@pytest.mark.long
def test_removing_most_of_what_is_served_is_asked_about(world: World, command: str) -> None:
    """A gate that lets it through is not enough: the number is said, and wants to be typed."""
    world.store.path.unlink()
    world.take_in({"id": [0, 1, 2, 3], "prediction": list("abcd")})
    person = RecordingConsole()
    with pytest.raises(NotConfirmed, match="would remove 6 of the 10 entries that are served now") as no:
        COMMANDS[command](world, Options(), person)
    assert person.questions == ["The new version would remove 6 of the 10 entries that are served now. [6]"]
    assert "run the command again with --yes" in str(no.value)
    assert folders.numbers(world.data) == [1]
    COMMANDS[command](world, Options(yes=True), person)
    assert folders.numbers(world.data) == [1, 2]


def test_a_run_that_was_not_confirmed_is_a_declined_one(world: World) -> None:
    """Its record in the history says so, and its report goes with the error."""
    world.store.path.unlink()
    world.take_in({"id": [0], "prediction": ["a"]})
    with pytest.raises(NotConfirmed) as no:
        run(world.job, world.data, Options(), RecordingConsole())
    assert no.value.report is not None
    assert (no.value.report.to_json()["status"], world.store.runs()[0].status) == ("declined", "declined")


def test_half_of_what_is_served_is_not_most(world: World) -> None:
    """Up to half only the gate judges."""
    world.store.path.unlink()
    world.take_in({"id": list(range(5)), "prediction": list("abcde")})
    person = RecordingConsole()
    assert publish(world.job, world.data, Options(), person).version == 2
    assert person.questions == []


def test_a_candidate_is_judged_by_what_is_served_when_it_is_published(world: World, week2: Path) -> None:
    """A refused candidate of another list that would remove most of what is served asks both."""
    world.store.path.unlink()
    strict = world.changed(gate={"coverage": 1.0, "shrink": 0})
    strict.take_in({"id": [0], "prediction": ["a"]})
    with pytest.raises(GateFailed):
        strict.publish(input=week2)
    person = RecordingConsole(answer=True)
    report = publish_candidate(strict.job, strict.data, Options(), person, "r0", "they are old")
    assert (report.version, len(person.questions)) == (2, 2)
    assert person.questions[0].endswith(f"but the candidate r0 is of {week2}. Continue?")
    assert person.questions[1].endswith("[9]")
