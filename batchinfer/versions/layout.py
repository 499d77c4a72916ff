"""The files of a version, and the columns of its predictions."""

from __future__ import annotations

import re
from collections.abc import Collection, Container

from batchinfer.core.home import CALIBRATION
from batchinfer.core.sql import quoted
from batchinfer.match.version import MATCHER

FORMAT = 1
MANIFEST = "manifest.json"
LOOKUP = "lookup.lmdb"
CHECKS = "lookup.crc"  # of its pages; old versions have none
INDEX = "lookup.index"  # which part of it a look-up reads; old versions have none
PREDICTIONS = "predictions.parquet"
NAMES = "names.parquet"  # of jobs with match.everywhere: rows of the list without an entry, which has their names all the same
STUDENT = "student.npz"  # of jobs with a section student, if a promise can be kept
BESIDE_LOOKUPS = frozenset({INDEX, STUDENT, CALIBRATION, MATCHER, NAMES})  # files that look-ups can do without
VALUE_COLUMNS = "prediction, raw_text, scores, score, mass, source, model, run_id, generated_at, carried"
PROMPT_KEY = "prompt_key"  # of the cache; NULL for what people gave; no column where the key has one of that name
ALIASES = "aliases"  # further names of what a row is about, a JSON list; a column where match.everywhere names such of the list
CANDIDATE = re.compile(r"r\d+(-\d+)?")  # the name of one: of its run, and a number where several came of it
OWN_COLUMNS = frozenset([*VALUE_COLUMNS.split(", "), "lookup"])


def free_name(name: str, reserved: Container[str], prefix: str = "key") -> str:
    """A column's name in a file of ours: its own, or key_NAME where that is reserved. prefix: in place of key."""
    while name.lower() in reserved:
        name = f"{prefix}_{name}"
    return name


def version_column(name: str) -> str:
    """SQL for a key column's name in predictions.parquet."""
    return quoted(free_name(name, OWN_COLUMNS))


def aliases_column(key: Collection[str]) -> str:
    """SQL for the name of the column of aliases, which no key column has."""
    return quoted(free_name(ALIASES, {free_name(name, OWN_COLUMNS).lower() for name in key}, "list"))
