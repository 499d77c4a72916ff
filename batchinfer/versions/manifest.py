"""What a version says of itself: manifest.json, read and checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from batchinfer.core.columns import Column
from batchinfer.core.keys import ENCODERS
from batchinfer.errors import StoreError
from batchinfer.versions.layout import FORMAT, MANIFEST

SECONDS = re.compile("[0-9]+s")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version says of itself. serve: the job's section of that name; `content` is all of it: an open map.

    max_age: how long clients may keep an answer, in seconds.
    """

    version: int | None
    job: str
    created_at: datetime
    rows: int
    key: tuple[Column, ...]
    normalize: tuple[str, ...]
    files: dict[str, dict[str, Any]]
    serve: dict[str, Any]
    max_age: int
    content: dict[str, Any]

    @classmethod
    def read(cls, folder: Path, *, digest: str | None = None) -> Manifest:
        """The manifest in a version's folder. Raises StoreError if it is missing, damaged, or of an unknown format."""
        path = folder / MANIFEST
        try:
            data = path.read_bytes()
            content = json.loads(data)
            number = content["format"]
            if number != FORMAT:
                raise StoreError(f"{folder} has format {number}, and this batchinfer knows {FORMAT}: upgrade it.")
            serve = dict(content["spec"].get("serve", {}))
            manifest = cls(
                version=content["version"],
                job=content["job"],
                created_at=datetime.fromisoformat(content["created_at"]),
                rows=content["rows"],
                key=tuple(_column(column) for column in content["key"]),
                normalize=tuple(content["normalize"]),
                files={_file_name(name): dict(facts) for name, facts in content["files"].items()},
                serve=serve,
                max_age=_seconds(serve.get("max_age", "60s")),
                content=content,
            )
        except FileNotFoundError as exc:
            raise StoreError(f"{path} is missing.") from exc
        except OSError as exc:
            raise StoreError(f"{path} cannot be read: {exc.strerror}.") from exc
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            raise StoreError(f"{path} is damaged: {exc!r}.") from exc
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            raise StoreError(f"{path} is not the manifest that was published: its checksum differs.")
        return manifest


def _column(content: Mapping[str, Any]) -> Column:
    if content["kind"] not in ENCODERS:
        raise ValueError(f"a key column holds values of the unknown kind {content['kind']}")
    return Column(content["name"], content["kind"])


def _file_name(name: str) -> str:
    """A file's name, which must not lead out of the version's folder."""
    if name in ("", ".", "..") or set(name) & {"/", "\0"}:
        raise ValueError(f"{name!r} is no name of a file in it")
    return name


def _seconds(text: str) -> int:
    if not SECONDS.fullmatch(text):
        raise ValueError(f"serve.max_age is {text!r}")
    return int(text[:-1])
