"""Marks a review of this job by a written rule, to try the chain where nobody is at hand who reads 57 languages.

    batchinfer precision vaccine_synonyms_check --sample 150 --all --out sample.csv
    python jobs/vaccine_synonyms_check/judge.py sample.csv
    batchinfer import vaccine_synonyms_check sample.csv --author "a rule"

A term is right if it is, as matching compares texts, the vaccine's own name, a trade or code name of it, a name that
golden.parquet has for it, or one of these beside its language's word for vaccine: Moderna-Impfstoff, vaccin de Moderna,
вакцина Moderna. All else is wrong. The rule knows no inflections and few names in other scripts than Latin: where it says
wrong, a person may know better.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from batchinfer.match.folding import Folding
from batchinfer.review.sheet import uncell

LISTS = Path(__file__).parents[1] / "vaccine_synonyms"
SHORT = {"Pfizer-BioNTech": ["Pfizer", "BioNTech"], "mRNA vaccine": ["mRNA"]}  # right beside the word only
OF = {"ca": "de", "de": "von", "es": "de", "fr": "de", "it": "di", "nl": "van", "pt": "de", "ro": "de"}
BESIDE = ("{name} {word}", "{word} {name}", "{name}-{word}", "{word}-{name}", "{name}{word}", "{word}{name}")


def right_terms() -> dict[tuple[str, str], set[str]]:
    """For each vaccine and language the folded terms that name it."""
    golden = defaultdict[tuple[str, str], list[str]](list)
    for row in pq.read_table(LISTS / "golden.parquet").to_pylist():
        golden[row["vaccine"], row["language"]] += json.loads(row["answer"])["names"]
    fold, found = Folding().term, {}
    for row in pq.read_table(LISTS / "queries.parquet").to_pylist():
        key = row["vaccine"], row["language"]
        whole = [row["vaccine"], *row["aliases"], *golden[key]]
        named = [*SHORT.get(row["vaccine"], []), *(name for name in whole if not name.endswith(" vaccine"))]
        found[key] = {fold(term) for term in (*whole, *_beside(named, row["word"], OF.get(row["language"])))}
    return found


def _beside(names: list[str], word: str, of: str | None) -> Iterator[str]:
    forms = BESIDE if of is None else (*BESIDE, f"{{word}} {of} {{name}}")
    return (form.format(name=name, word=word) for name in names for form in forms)


def mark(path: Path) -> tuple[int, int]:
    """Fills the empty verdicts of a review; returns how many, and how many of them are right."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        names, rows = list(reader.fieldnames or []), list(reader)
    if lacking := [name for name in ("vaccine", "language", "value", "verdict") if name not in names]:
        sys.exit(
            f"{path} has no column {lacking[0]}: it is no CSV that precision --sample or review wrote of this job."
        )
    right, fold = right_terms(), Folding().term
    blank = [row for row in rows if not row["verdict"]]
    for row in blank:
        is_right = fold(uncell(row["value"])) in right.get((uncell(row["vaccine"]), row["language"]), set())
        row["verdict"] = "accept" if is_right else "reject"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return len(blank), sum(row["verdict"] == "accept" for row in blank)


def main() -> None:
    """Marks a file, and says what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("review", type=Path, help="A CSV file that precision --sample or review wrote.")
    path: Path = parser.parse_args().review
    if not path.is_file():
        parser.error(f"there is no {path}")
    marked, right = mark(path)
    print(f"{path}: {marked} terms marked, {right} of them right.")


if __name__ == "__main__":
    main()
