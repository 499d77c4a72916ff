"""review and import as people call them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from batchinfer.cli.main import cli
from batchinfer.errors import InputError
from batchinfer.review import predictions
from tests.factories import World, write
from tests.review.lists import CHECK, Make, echo, scores, stored


def call(world: World, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["--home", str(world.data.root), *words], catch_exceptions=True)
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.long
def test_the_commands(make: Make) -> None:
    """Review, mark, import and publish, as a person goes through them; --json says the same for machines."""
    world = make()
    world.answer(echo)
    job, file = str(world.job.folder), str(world.review_path)
    code, said = call(world, "review", job, "--out", file)
    assert (code, said.split(": ")[0]) == (0, f"Wrote 3 rows to {file}")
    assert call(world, "import", job, file) == (0, "No row has a verdict (3 not judged): nothing was imported.")
    rows = world.review()
    with world.review_path.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows([rows[0] | {"verdict": "accept"}, rows[1] | {"corrected": "by Ann"}, rows[2]])
    code, said = call(world, "import", job, file, "--author", "Ann")
    counts = "1 accepted, 0 rejected, 1 corrected, 1 not judged, 0 no longer proposed"
    assert (code, said) == (0, f"Import 1: {counts}. batchinfer publish {job} makes a version with it.")
    code, said = call(world, "import", job, "--list", "--json")
    [listed] = json.loads(said)
    assert {name: listed[name] for name in ("kind", "rows", "accepted", "corrected", "author")} == {
        "kind": "review", "rows": 2, "accepted": 1, "corrected": 1, "author": "Ann",
    }  # fmt: skip
    code, said = call(world, "review", job, "--out", file, "--where", "id=c", "--json")
    assert json.loads(said) == {
        "job": "shop", "file": file, "rows": 1, "new": 1, "changed": 0, "list_differs": None,
    }  # fmt: skip
    _, said = call(world, "review", job, "--out", file, "--where", "id=a")
    assert said == f"There is nothing to review; {file} holds the header only."
    assert "plain" not in call(world, "import", job, "--list")[1]
    call(world, "import", job, "--undo", "1")
    assert call(world, "import", job, "--list") == (
        0,
        f"No imports for {world.data.name} in the data folder {world.data.root}.",
    )


def test_another_list_goes_with_imports(make: Make, tmp_path: Path) -> None:
    """--input names the list that a review was made with, or that the keys of predictions are compared with."""
    world = make()
    other = write(tmp_path / "other.parquet", {"id": ["q"], "text": ["w"]})
    world.answer(echo, input=other)
    job, file = str(world.job.folder), str(world.review_path)
    assert call(world, "review", job, "--out", file, "--input", str(other))[1].startswith("Wrote 1 row to")
    rows = list(csv.DictReader(world.review_path.read_text(encoding="utf-8-sig").splitlines()))
    with world.review_path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows([rows[0] | {"verdict": "accept"}])
    _, said = call(world, "import", job, file, "--input", str(other), "--json")
    assert (json.loads(said)["accepted"], json.loads(said)["no_longer_proposed"]) == (1, 0)
    plain = write(tmp_path / "plain.parquet", {"id": ["q"], "prediction": ["x"]})
    words = ["--home", str(world.data.root), "import", job]
    result = CliRunner().invoke(cli, [*words, str(plain)])
    assert "1 key that the list does not have" in str(result.exception)
    assert CliRunner().invoke(cli, [*words, str(plain), "--input", str(other)]).exit_code == 0
    result = CliRunner().invoke(cli, [*words, file, "--allow", "keys"])
    assert "--allow goes with predictions" in str(result.exception)


def test_a_review_is_never_taken_for_predictions(make: Make, tmp_path: Path) -> None:
    """A marked review of a checking job has a column prediction, but is no import: not without a column, nor among others."""
    world = make({"thing": ["mRNA"], "term": ["jab"]}, **CHECK)
    world.answer(lambda row: scores(0.9))
    [row] = world.review()
    folder = tmp_path / "marked"
    folder.mkdir()
    for column in ("check", "verdict"):
        left = {name: cell for name, cell in (row | {"verdict": "reject"}).items() if name != column}
        path = folder / "marked.csv"
        path.write_text(f"{','.join(left)}\n{','.join(left.values())}\n", encoding="utf-8")
        result = CliRunner().invoke(cli, ["--home", str(world.data.root), "import", str(world.job.folder), str(path)])
        assert isinstance(result.exception, InputError)
        assert f"so it is a review, but it has no column {column}" in str(result.exception)
        with pytest.raises(InputError, match="reviews are imported one file at a time"):
            predictions.import_predictions(world.job, world.data, folder / "*.csv", None)
    assert stored(world) == []


def test_a_job_whose_concept_is_predicted_is_no_checking_job(make: Make) -> None:
    """A job that says what a term names has its predictions judged, not its terms."""
    world = make({"term": ["jab"]}, input={"path": "queries.parquet", "key": ["term"]}, prompt={"template": "{{ term }}"},
                 match={"terms": ["term"], "concept": "prediction"})  # fmt: skip
    world.answer(lambda row: "mRNA")
    [row] = world.review()
    assert row["value"] == "mRNA"
    assert "prediction" not in row


def test_terms_that_match_alike_are_counted_together(make: Make) -> None:
    """How many things a term names is counted over all spellings that matching takes for one."""
    world = make({"thing": ["mRNA", "Covaxin"], "term": ["Strasse\u2010jab", "straße-JAB"]}, **CHECK)
    world.answer(lambda row: scores(0.9))
    assert [row["concepts"] for row in world.review()] == ["2", "2"]


def test_a_review_of_terms_says_what_accept_means(make: Make) -> None:
    """In a checking job the command says that it is the term that is judged; elsewhere it does not."""
    world = make({"thing": ["mRNA"], "term": ["jab"]}, **CHECK)
    world.answer(lambda row: scores(0.3))
    job, file = str(world.job.folder), str(world.review_path)
    assert (
        "accept means that the term is right, also where the prediction is No"
        in call(world, "review", job, "--out", file)[1]
    )
    world = world.changed(match=None)
    assert "accept means" not in call(world, "review", job, "--out", file)[1]
