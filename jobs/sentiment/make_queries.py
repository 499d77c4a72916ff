"""Make queries.parquet, 480 rated English sentences, 120 from each of four domains, and the two halves of it.

The sentences and ratings are those of

    Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for
    Sentiment Analysis of Social Media Text. Eighth International Conference on
    Weblogs and Social Media (ICWSM-14). Ann Arbor, MI, June 2014.

as published, under the MIT licence (copyright 2016 C.J. Hutto), in the source
distribution of the PyPI package vaderSentiment 3.3.2. The wheel does not have them::

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    python jobs/sentiment/make_queries.py vaderSentiment-3.3.2.tar.gz

How the rows are chosen: rows with a mean rating of exactly 0 are left out (they have no
sign to compare an answer with), and so are sentences shorter than 15 or longer than 280
characters, repeated sentences, and those in which the source lost a character. Of the
rest, each domain gives the 120 rows with the smallest hash of seed and id: a uniform
sample over the whole file that does not depend on the version of Python.

golden.parquet and labels.parquet are the two halves of the list, 60 rows of each domain, drawn in
the same way by another seed, with the sign of the mean rating as the answer.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import math
import re
import tarfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
HELP = "Make queries.parquet, golden.parquet and labels.parquet from the source distribution of vaderSentiment 3.3.2."
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER_TAR = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
# Domain, and how its two files in the inner tar begin.
DOMAINS = {
    "tweets": "hutto_ICWSM_2014/tweets",
    "film": "hutto_ICWSM_2014/movieReviewSnippets",
    "product": "hutto_ICWSM_2014/amazonReviewSnippets",
    "news": "hutto_ICWSM_2014/nytEditorialSnippets",
}
PER_DOMAIN = 120
SHORTEST, LONGEST = 15, 280
LOWEST, HIGHEST = -4, 4
SEED = "batchinfer-sentiment-1"
HALVES_SEED = "batchinfer-sentiment-halves-1"

# "Cube?s": an apostrophe that the source's own conversion turned into a question mark.
LOST_CHARACTER = re.compile(r"[^\W\d_]\?[a-z]")
# UTF-8 that was once read as cp1252 ("Ã©" for "é"), and the replacement character.
MOJIBAKE = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\u00ef\u00bb|\ufffd")

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("domain", pa.string()),
        ("sentence", pa.string()),
        ("rating", pa.float64()),
        ("ratings", pa.list_(pa.int8())),
    ],
)

HALF_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "domain", "sentence", "answer")])


@dataclass(frozen=True, slots=True)
class Row:
    """One sentence with the scores that people gave it, from -4 to 4."""

    id: str
    domain: str
    sentence: str
    ratings: list[int]

    @property
    def rating(self) -> float:
        """The mean of the raters' scores."""
        return sum(self.ratings) / len(self.ratings)


def clean(text: str) -> str:
    """Undo HTML entities (some are escaped twice) and make runs of blanks one."""
    while (plain := html.unescape(text)) != text:
        text = plain
    return " ".join(text.split())


def read_ratings(lines: list[str]) -> dict[str, list[int]]:
    """Read each row's list of scores, and check it against the mean beside it."""
    ratings: dict[str, list[int]] = {}
    for line in lines:
        key, mean, _deviation, scores = line.split("\t")
        given: list[int] = json.loads(scores)
        if not math.isclose(sum(given) / len(given), float(mean), abs_tol=1e-6):
            msg = f"The scores of row {key} do not have the mean {mean}."
            raise ValueError(msg)
        ratings[key] = given
    return ratings


def read_domain(inner: tarfile.TarFile, domain: str) -> list[Row]:
    """Read all rows of one domain, in the order of the source.

    Text and scores are matched by id, since their order differs in one domain. The
    means beside the texts are not used: for 199 tweets they are not the scores' means.
    """

    def lines(suffix: str) -> list[str]:
        member = inner.extractfile(DOMAINS[domain] + suffix)
        if member is None:
            msg = f"{DOMAINS[domain]}{suffix} is not a file."
            raise ValueError(msg)
        # The files are UTF-8, one of them with a byte order mark.
        return member.read().decode("utf-8-sig").splitlines()

    ratings = read_ratings(lines("_anonDataRatings.txt"))
    rows = []
    for line in lines("_GroundTruth.txt"):
        key, _mean, text = line.split("\t")
        rows.append(Row(f"{domain}-{key}", domain, clean(text), ratings[key]))
    return rows


def rank(row: Row, seed: str = SEED) -> bytes:
    """Give a row its place in a random order that is the same every time."""
    return hashlib.sha256(f"{seed}:{row.id}".encode()).digest()


def choose(rows: list[Row]) -> list[Row]:
    """Take a uniform sample of the usable rows, in the order of the source."""
    seen: set[str] = set()
    usable: list[Row] = []
    for row in rows:
        if (
            sum(row.ratings) != 0
            and SHORTEST <= len(row.sentence) <= LONGEST
            and not LOST_CHARACTER.search(row.sentence)
            and row.sentence not in seen
        ):
            usable.append(row)
        seen.add(row.sentence)
    by_hash = sorted(usable, key=rank)
    chosen = {row.id for row in by_hash[:PER_DOMAIN]}
    return [row for row in usable if row.id in chosen]


def halves(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Split each domain into two equal parts by chance, in the order of the list: golden rows, and labelled ones."""
    golden: set[str] = set()
    for domain in DOMAINS:
        by_hash = sorted((row for row in rows if row.domain == domain), key=lambda row: rank(row, HALVES_SEED))
        golden |= {row.id for row in by_hash[: len(by_hash) // 2]}
    return [row for row in rows if row.id in golden], [row for row in rows if row.id not in golden]


def answers(rows: list[Row]) -> pa.Table:
    """Give each row the answer that its mean rating stands for."""
    records = [
        {
            "id": row.id,
            "domain": row.domain,
            "sentence": row.sentence,
            "answer": "Positive" if row.rating > 0 else "Negative",
        }
        for row in rows
    ]
    return pa.Table.from_pylist(records, schema=HALF_SCHEMA)


def check(rows: list[Row]) -> None:
    """Refuse a list that is not what the README promises."""
    for row in rows:
        controls = [c for c in row.sentence if unicodedata.category(c).startswith("C")]
        if controls or MOJIBAKE.search(row.sentence):
            msg = f"The text of {row.id} is not clean: {row.sentence!r}."
            raise ValueError(msg)
        if not all(LOWEST <= score <= HIGHEST for score in row.ratings):
            msg = f"{row.id} has a score outside {LOWEST} to {HIGHEST}."
            raise ValueError(msg)
    expected = PER_DOMAIN * len(DOMAINS)
    ids = {row.id for row in rows}
    sentences = {row.sentence for row in rows}
    if not len(rows) == len(ids) == len(sentences) == expected:
        msg = f"Not {expected} rows with unique ids and sentences."
        raise ValueError(msg)


def main() -> None:
    """Read the source distribution, write queries.parquet and its halves beside this script."""
    parser = argparse.ArgumentParser(description=HELP)
    parser.add_argument("sdist", type=Path, help="vaderSentiment-3.3.2.tar.gz")
    parser.add_argument("--out", type=Path, default=HERE / "queries.parquet")
    arguments = parser.parse_args()
    sdist: Path = arguments.sdist
    out: Path = arguments.out

    if not sdist.is_file():
        parser.error(f"{sdist} does not exist or is not a file.")
    if hashlib.sha256(sdist.read_bytes()).hexdigest() != SDIST_SHA256:
        parser.error(f"{sdist} is not the source distribution of vaderSentiment 3.3.2.")
    with (
        tarfile.open(sdist) as outer,
        tarfile.open(fileobj=outer.extractfile(INNER_TAR)) as inner,
    ):
        rows = [row for domain in DOMAINS for row in choose(read_domain(inner, domain))]
    check(rows)

    records = [{name: getattr(row, name) for name in SCHEMA.names} for row in rows]
    table = pa.Table.from_pylist(records, schema=SCHEMA)
    pq.write_table(table, out, compression="zstd")
    print(f"{out.name}: {len(rows)} rows")
    for name, half in zip(("golden", "labels"), halves(rows), strict=True):
        pq.write_table(answers(half), out.with_name(f"{name}.parquet"), compression="zstd")
        print(f"{name}.parquet: {len(half)} rows")


if __name__ == "__main__":
    main()
