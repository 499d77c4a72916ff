"""Real terms in some 170 locales: what people call each emoji, from the npm package cldr-annotations-full (Unicode)."""

from __future__ import annotations

import functools
import itertools
import json
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from batchinfer.core.home import JobData
from batchinfer.job import reader
from batchinfer.job.reader import Job
from batchinfer.review import predictions
from benchmarks import carriers
from benchmarks.carriers import CARRIERS, INDIC, main_script

PACKAGE = "cldr-annotations-full"
JOB = "bench_match"
MATCH = {"terms": ["prediction.names"], "concept": "symbol", "language": "locale"}
SCHEMA = {"type": "object", "properties": {"names": {"type": "array", "items": {"type": "string"}}}}
LENGTH = 60  # of a text, in code points
LONGEST = 40  # of the term in it


@dataclass(frozen=True)
class Locale:
    """A locale's names: of each symbol, its keywords and what it is read out as. script: most of their letters'."""

    tag: str
    names: dict[str, list[str]]
    script: str

    @functools.cached_property
    def concepts(self) -> dict[str, set[str]]:
        """All symbols that a term names, by term."""
        found: dict[str, set[str]] = {}
        for symbol, names in self.names.items():
            for name in names:
                found.setdefault(name, set()).add(symbol)
        return found

    def sample(self, most: int) -> list[str]:
        """So many of its terms, the same ones each time. Punctuation alone is none."""
        terms = sorted(filter(carriers.names, self.concepts))
        return random.Random(self.tag).sample(terms, min(most, len(terms)))


def read(given: Path | None, folder: Path) -> list[Locale]:
    """All locales that name anything. given: the package as .tgz or unpacked; None: npm brings it into `folder`."""
    root = _unpacked(given or _packed(folder), folder)
    paths = sorted(root.rglob("annotations.json"))
    if not paths:
        sys.exit(f"{root} has no annotations.json below it: give the package {PACKAGE}, as a .tgz or unpacked.")
    return [locale for path in paths if (locale := _locale(path)).names]


def _packed(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        sys.exit(
            f"npm is not installed. Install it (Debian and Ubuntu: apt install npm), or give {PACKAGE} with --cldr."
        )
    done = subprocess.run(
        [npm, "pack", "--silent", PACKAGE], cwd=folder, check=False, capture_output=True, text=True
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"npm cannot get {PACKAGE}: {' '.join(done.stderr.split())}. Give it with --cldr.")
    return folder / done.stdout.strip().splitlines()[-1]


def _unpacked(path: Path, folder: Path) -> Path:
    if path.is_dir():
        return path
    if not path.exists():
        sys.exit(f"There is no {path}: give the package {PACKAGE} with --cldr, as a .tgz or unpacked.")
    with tarfile.open(path) as archive:
        archive.extractall(folder / PACKAGE, filter="data")
    return folder / PACKAGE


def _locale(path: Path) -> Locale:
    content = json.loads(path.read_text(encoding="utf-8"))["annotations"].get("annotations", {})
    names = {
        symbol: list(dict.fromkeys(itertools.chain.from_iterable(said.values()))) for symbol, said in content.items()
    }
    return Locale(path.parent.name, names, main_script(name for all_names in names.values() for name in all_names))


def make(folder: Path, locales: Sequence[Locale], **match: Any) -> tuple[Job, JobData]:
    """A job that lives by imports, with the names of each symbol in each locale imported. match: more of its section."""
    place = folder / JOB
    place.mkdir(parents=True)
    content = {
        "name": JOB, "input": {"path": "names.parquet", "key": ["symbol", "locale"]}, "output": {"type": "json", "schema": SCHEMA},
        "match": MATCH | match,
    }  # fmt: skip
    (place / "job.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    rows = [(symbol, locale.tag, names) for locale in locales for symbol, names in locale.names.items()]
    columns = {
        "symbol": [row[0] for row in rows],
        "locale": [row[1] for row in rows],
        "prediction": [json.dumps({"names": row[2]}, ensure_ascii=False) for row in rows],
    }
    pq.write_table(pa.table(columns), place / "names.parquet")
    job = reader.load(str(place), {})
    data = JobData(folder / "home", JOB)
    predictions.import_predictions(job, data, place / "names.parquet", None)
    return job, data


@dataclass(frozen=True, slots=True)
class Text:
    """About 60 characters of a carrier with a term in it. kind: ASCII, or that of its locale's script."""

    text: str
    kind: str
    locale: str


def texts(locales: Sequence[Locale], each: int) -> list[Text]:
    """So many texts of each locale, mixed."""
    found = [text for locale in locales for text in _texts(locale, each)]
    random.Random(0).shuffle(found)
    return found


def _texts(locale: Locale, each: int) -> Iterator[Text]:
    carrier = CARRIERS[locale.script]
    for term in [term for term in locale.sample(10 * each) if 1 < len(term) <= LONGEST][:each]:
        whole = carrier.around(term) + " " + carrier.before + carrier.after
        at = max(0, len(carrier.before) + len(term) + 5 - LENGTH)
        text = whole[at : at + LENGTH]
        yield Text(text, "ASCII" if text.isascii() else kind_of(locale.script), locale.tag)


def kind_of(script: str) -> str:
    """What the tables call scripts of one kind."""
    if script in INDIC:
        return "Indic"
    return {"spaced": "other spaced", "particles": "Hangul", "unspaced": "unspaced"}[CARRIERS[script].kind]
