"""What a version says of itself: manifest.json, read, checked, and made from another one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict, Unpack

from batchinfer.core.clock import iso, now
from batchinfer.core.columns import Column
from batchinfer.core.files import read_small, user_name, why_damaged
from batchinfer.core.keys import ENCODERS, canonical_json
from batchinfer.core.records import SMALL_GROUPS, Check
from batchinfer.errors import StoreError
from batchinfer.match.version import MATCHER, MatcherVersion
from batchinfer.versions.checked import checked_count, checked_text
from batchinfer.versions.keep import Keep
from batchinfer.versions.layout import FORMAT, MANIFEST
from batchinfer.versions.published_run import PublishedRun
from batchinfer.versions.student import StudentRecord

SECONDS = re.compile("[0-9]{1,12}s")
# Fields of sections that older manifests lack.
BEFORE: Mapping[str, dict[str, Any]] = {"serve": {"on_miss": "miss"}, "student": {"score": None, "embeddings": None}}
ABSENT: Mapping[str, str] = {"alerts": "[]"}  # what a section says where older manifests do not have it; else null
KEEP_VERSIONS = Keep(5)  # where an old manifest does not say it


@dataclass(frozen=True, slots=True)
class GateRecord:
    """What the gate said of a version.

    status: passed or failed.
    checks: all of them.
    """

    status: str
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)


@dataclass(frozen=True, slots=True)
class Forced:
    """Who published what the gate refused, and why.

    why: in that person's words.
    by: their user name.
    at: when, as text.
    """

    why: str
    by: str = field(default_factory=user_name)
    at: str | None = field(default_factory=lambda: iso(now()))


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file of a version.

    size: in bytes.
    sha256: its checksum.
    """

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class HeldTerms:
    """What a version says of its matcher.

    terms: how many it finds.
    made_by: what its terms were folded and written by; None in a manifest that does not say all of it.
    """

    terms: int
    made_by: MatcherVersion | None


@dataclass(frozen=True, slots=True)
class PublishedSpec:
    """What a version needs to know of the job file as it was.

    upstream: the job that its list was taken from, if the job was chained.
    keep_versions: how many versions stayed, and how long.
    max_age: how long clients may keep an answer, in seconds.
    records_misses: whether what is asked for and not found is recorded.
    asks_student: whether it is asked of the version's student.
    sections: each section as canonical JSON, to be compared or read as a whole.
    """

    upstream: str | None
    keep_versions: Keep
    max_age: int
    records_misses: bool
    asks_student: bool
    sections: Mapping[str, str]

    def has_section(self, name: str, said: str) -> bool:
        """Whether a section says the same, canonical JSON with all defaults, or null. Older ones lack newer fields."""
        theirs = json.loads(self.sections.get(name, ABSENT.get(name, "null")))
        return canonical_json(BEFORE.get(name, {}) | theirs if isinstance(theirs, dict) else theirs) == said


class ManifestChanges(TypedDict, total=False):
    """What a derived version may say otherwise, as manifest.json has it."""

    version: int
    created_at: str | None
    rows: int
    carried: int
    parent: int | str | None
    candidate: str
    forgot: int
    match: Mapping[str, Any] | None
    student: Mapping[str, Any] | None
    forced: Mapping[str, Any] | None
    spec: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version says of itself.

    version: its number; None for a candidate that was refused.
    job: the job's name.
    created_at: when it was made.
    rows: how many entries it has.
    carried: how many of them were kept from the version before.
    key: the columns by which it is looked up.
    normalize: how their texts are made alike first.
    prediction: the kind of its predictions, string or json.
    unicode: the version of Unicode by which texts were made alike, if it is known.
    gate: what the gate said of it.
    forced: why it was published although the gate refused, if it was.
    parent: the version that it follows, if any.
    run: of what it is made.
    spec: the job file as it was.
    match: what its matcher holds, if it has one.
    student: what publishing came to with a student; None if there was to be none, or it was removed.
    candidate: the refused candidate whose bytes these are, if they are one's.
    erased: how many times entries were erased from it.
    files: the size and checksum of each of its files.
    document: all of manifest.json, in its order, with the fields that only newer programs know.
    """

    version: int | None
    job: str
    created_at: datetime
    rows: int
    carried: int
    key: tuple[Column, ...]
    normalize: tuple[str, ...]
    prediction: str
    unicode: str | None
    gate: GateRecord
    forced: Forced | None
    parent: int | str | None
    run: PublishedRun
    spec: PublishedSpec
    match: HeldTerms | None
    student: StudentRecord | None
    candidate: str | None
    erased: int
    files: Mapping[str, FileFacts]
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, folder: Path, *, digest: str | None = None) -> Manifest:
        """The manifest in a version's folder. Raises StoreError if it is missing, damaged, or of an unknown format."""
        path = folder / MANIFEST
        try:
            data = read_small(path)
            document = json.loads(data)
            number = document["format"]
            if number != FORMAT:
                raise StoreError(f"{folder} has format {number}, and this batchinfer knows {FORMAT}: upgrade it.")
            json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair can be read, but not be written
            manifest = cls.of(document)
        except FileNotFoundError as exc:
            raise StoreError(f"{path} is missing.") from exc
        except OSError as exc:
            raise StoreError(f"{path} cannot be read: {exc.strerror}.") from exc
        except KeyError as exc:
            raise StoreError(f"{path} is damaged: it has no field {exc}.") from exc
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            raise StoreError(f"{path} is damaged: {why_damaged(exc)}.") from exc
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            raise StoreError(f"{path} is not the manifest that was published: its checksum differs.")
        return manifest

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Manifest:
        """A manifest from what its file says. Raises ValueError, KeyError, TypeError or AttributeError for a damaged one."""
        return cls(
            version=None if document["version"] is None else checked_count(document["version"]),
            job=checked_text(document["job"]),
            created_at=datetime.fromisoformat(document["created_at"]),
            rows=checked_count(document["rows"]),
            carried=checked_count(document.get("carried", 0)),
            key=tuple(_column(column) for column in document["key"]),
            normalize=tuple(document["normalize"]),
            prediction=document["prediction"],
            unicode=document.get("unicode"),
            gate=_gate(document["gate"]),
            forced=_forced(document.get("forced")),
            parent=document.get("parent"),
            run=PublishedRun.of(document.get("run", {})),
            spec=_spec(document["spec"]),
            match=_match(document.get("match")),
            student=StudentRecord.of(document.get("student")),
            candidate=document.get("candidate"),
            erased=checked_count(document.get("forgot", 0)),
            files={_file_name(name): _file(facts) for name, facts in document["files"].items()},
            document=document,
        )

    @property
    def is_json(self) -> bool:
        """Whether its predictions are JSON values, and not texts."""
        return self.prediction == "json"

    @property
    def has_matcher(self) -> bool:
        """Whether it has a matcher."""
        return MATCHER in self.files

    def derive(self, **changes: Unpack[ManifestChanges]) -> Manifest:
        """The manifest of a version that is made from this one. What is not changed stays, fields of newer programs too."""
        return Manifest.of({**self.document, **changes})

    def without_examples(self) -> Manifest:
        """The same, but for the rows that the gate's checks quote."""
        gate = self.document["gate"]
        return Manifest.of({**self.document, "gate": {**gate, "checks": plain_checks(gate["checks"])}})

    def to_bytes(self) -> bytes:
        """manifest.json. The files come last, as they were known last."""
        document = {name: value for name, value in self.document.items() if name != "files"}
        document["files"] = self.document["files"]
        return json.dumps(document, indent=2, ensure_ascii=False, default=str).encode()


def plain_checks(checks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A gate's checks, as reports and manifests have them, without the rows that they quote, and without groups that may be one."""
    plain = ({name: fact for name, fact in check.items() if name != "examples"} for check in checks)
    return [
        check | {"says": check["says"].partition(SMALL_GROUPS)[0]} if check["name"] == "audit" else check
        for check in plain
    ]


def _gate(document: Mapping[str, Any]) -> GateRecord:
    return GateRecord(checked_text(document["status"]), tuple(_check(check) for check in document["checks"]))


def _check(document: Mapping[str, Any]) -> Check:
    name, value, limit, passed, message = (document[part] for part in ("name", "value", "limit", "passed", "says"))
    return Check(name, value, limit, passed, message, tuple(document.get("examples", ())), document.get("used"))


def _forced(document: Mapping[str, Any] | None) -> Forced | None:
    return None if document is None else Forced(document["why"], document["by"], document["at"])


def _column(document: Mapping[str, Any]) -> Column:
    if document["kind"] not in ENCODERS:
        raise ValueError(f"a key column has the unknown kind {document['kind']}")
    return Column(checked_text(document["name"]), document["kind"], zoned=document.get("zoned") is True)


def _spec(document: Mapping[str, Any]) -> PublishedSpec:
    serve, upstream = document.get("serve", {}), document.get("input", {}).get("job")
    return PublishedSpec(
        upstream=upstream if isinstance(upstream, str) else None,
        keep_versions=Keep.of(document["keep_versions"]) if "keep_versions" in document else KEEP_VERSIONS,
        max_age=_seconds(serve.get("max_age", "60s")),
        records_misses=serve.get("misses", True),
        asks_student=serve.get("on_miss") == "student",
        sections={name: canonical_json(section) for name, section in document.items()},
    )


def _match(document: Mapping[str, Any] | None) -> HeldTerms | None:
    if document is None:
        return None
    known = document.keys() >= set(MatcherVersion._fields)
    made_by = MatcherVersion(*(document[name] for name in MatcherVersion._fields)) if known else None
    return HeldTerms(checked_count(document["terms"]), made_by)


def _file(document: Mapping[str, Any]) -> FileFacts:
    return FileFacts(checked_count(document["size"]), checked_text(document["sha256"]))


def _file_name(name: str) -> str:
    """A file's name, which must not lead out of the version's folder."""
    if name in ("", ".", "..") or set(name) & {"/", "\0"}:
        raise ValueError(f"{name!r} is not the name of a file in it")
    return name


def _seconds(text: str) -> int:
    if not SECONDS.fullmatch(text):
        raise ValueError(f"serve.max_age is {text!r}")
    return int(text[:-1])
