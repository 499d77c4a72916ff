"""Make queries.parquet, 2,000 tweets that people have rated clearly, golden.parquet, and the list of tweets_cascade.

The tweets and ratings are those that jobs/sentiment/make_queries.py reads and cites, under the MIT licence::

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    python jobs/tweets/make_queries.py vaderSentiment-3.3.2.tar.gz

Clear are those with a mean rating of at least 0.5 on either side of 0, on a scale from -4 to 4. Sentences of jobs/sentiment are
left out, since an adapter learns from half of these. Of the rest, the 2,000 with the smallest hash of seed and id are the list;
the first 1,000 of them, in that order, are golden, with the sign of the mean rating as the answer, and the list of
jobs/tweets_cascade.
"""

from __future__ import annotations

import argparse
import hashlib
import runpy
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
SENTIMENT: dict[str, Any] = runpy.run_path(str(HERE.parent / "sentiment" / "make_queries.py"))
CLEAR = 0.5  # the least mean rating, on either side
ROWS, GOLDEN = 2_000, 1_000
SEED = "batchinfer-tweets-1"


def clear_tweets(sdist: Path) -> list[Any]:
    """All tweets of the source distribution that people rated clearly, each once, as rows of jobs/sentiment."""
    with tarfile.open(sdist) as outer, tarfile.open(fileobj=outer.extractfile(SENTIMENT["INNER_TAR"])) as inner:
        rows = SENTIMENT["read_domain"](inner, "tweets")
    first = {row.sentence: row for row in reversed(rows)}
    return [
        row for row in first.values()
        if abs(row.rating) >= CLEAR and SENTIMENT["SHORTEST"] <= len(row.sentence) <= SENTIMENT["LONGEST"]
        and not SENTIMENT["LOST_CHARACTER"].search(row.sentence)
    ]  # fmt: skip


def chosen(rows: list[Any]) -> list[Any]:
    """The list, in the order of the hashes."""
    listed = set(pq.read_table(HERE.parent / "sentiment" / "queries.parquet")["sentence"].to_pylist())
    others = [row for row in rows if row.sentence not in listed]
    return sorted(others, key=lambda row: SENTIMENT["rank"](row, SEED))[:ROWS]


def listed(rows: list[Any]) -> pa.Table:
    """Sentences, and what people said of them."""
    return pa.table({name: [getattr(row, name) for row in rows] for name in ("id", "sentence", "rating")})


def golden(rows: list[Any]) -> pa.Table:
    """Sentences with the answer that the sign of their mean rating stands for."""
    answers = ["Positive" if row.rating > 0 else "Negative" for row in rows]
    return pa.table({"sentence": [row.sentence for row in rows], "answer": answers})


def main() -> None:
    """Read the source distribution, write the three files."""
    parser = argparse.ArgumentParser(description="Make the lists of tweets and tweets_cascade.")
    parser.add_argument("sdist", type=Path, help="vaderSentiment-3.3.2.tar.gz")
    sdist: Path = parser.parse_args().sdist
    if not sdist.is_file() or hashlib.sha256(sdist.read_bytes()).hexdigest() != SENTIMENT["SDIST_SHA256"]:
        parser.error(f"{sdist} is not the source distribution of vaderSentiment 3.3.2.")
    rows = chosen(clear_tweets(sdist))
    for path, table in (
        (HERE / "queries.parquet", listed(rows)),
        (HERE / "golden.parquet", golden(rows[:GOLDEN])),
        (HERE.parent / "tweets_cascade" / "queries.parquet", listed(rows[:GOLDEN])),
    ):
        pq.write_table(table, path, compression="zstd")
        print(f"{path.relative_to(HERE.parent)}: {len(table)} rows")


if __name__ == "__main__":
    main()
