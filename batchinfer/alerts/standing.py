"""How a job stands: what is published of it, when a run ended well last, and what is wrong. Read from small files alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from batchinfer.alerts.attempts import LastAttempt, Trouble, in_utc, read_attempt, read_success
from batchinfer.alerts.rules import AlertRule, read_rules
from batchinfer.core.files import read_small
from batchinfer.core.home import JobData
from batchinfer.errors import BatchinferError
from batchinfer.versions import folders, pointers
from batchinfer.versions.manifest import Manifest
from batchinfer.versions.pointers import CURRENT, PIN


@dataclass(frozen=True, slots=True)
class PublishedFacts:
    """What the version that was published last says.

    version: its number.
    made_at: when it was made; UTC.
    rules: by which somebody is told.
    """

    version: int
    made_at: datetime
    rules: tuple[AlertRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """How a job stands.

    job: its name.
    published: the version that was published last; None if there is none, or none that can be read.
    succeeded_at: when a run ended well last; UTC, None if none is known of.
    attempt: the last run or publishing; None if none is known of.
    """

    job: str
    published: PublishedFacts | None = None
    succeeded_at: datetime | None = None
    attempt: LastAttempt | None = None

    @property
    def fresh_times(self) -> list[datetime]:
        """The moments at which what is served was as new as could be."""
        made_at = None if self.published is None else self.published.made_at
        return [each for each in (made_at, self.succeeded_at) if each is not None]

    @property
    def troubles(self) -> tuple[Trouble, ...]:
        """What went wrong since a run ended well."""
        return () if self.attempt is None else self.attempt.troubles

    @property
    def rules(self) -> tuple[AlertRule, ...]:
        """Those of the last run here, or of what was published since, as on a copy of what runs elsewhere."""
        attempt, published = self.attempt, self.published
        if attempt is not None and (published is None or published.made_at <= attempt.began_at):
            return attempt.rules
        return () if published is None else published.rules


class StandingReader:
    """Reads how one job stands, again and again: a manifest only when another is named."""

    def __init__(self, data: JobData) -> None:
        self._data = data
        self._seen: object = None
        self._published: PublishedFacts | None = None

    def read(self) -> Standing:
        """As of now. Raises nothing: what cannot be read is not known."""
        seen = [_content(self._data.folder / name) for name in (CURRENT, PIN)]
        if seen != self._seen or self._published is None:
            self._seen, self._published = seen, _published(self._data)
        return Standing(self._data.name, self._published, read_success(self._data), read_attempt(self._data))


def published_facts(manifest: Manifest) -> PublishedFacts | None:
    """What a version says of alerts; None for a candidate."""
    if manifest.version is None:
        return None
    rules = read_rules(json.loads(manifest.spec.sections.get("alerts", "[]")))
    return PublishedFacts(manifest.version, in_utc(manifest.created_at), rules)


def pinned_facts(data: JobData) -> PublishedFacts | None:
    """Of the version that is pinned, if one is, and can be read."""
    try:
        pinned = pointers.pinned(data)
        return None if pinned is None else published_facts(Manifest.read(folders.folder_of(data, pinned)))
    except BatchinferError:
        return None


def _published(data: JobData) -> PublishedFacts | None:
    """Of CURRENT; of PIN where that is damaged, then of the newest version that can be read."""
    for version in _versions(data):
        try:
            manifest = Manifest.read(folders.folder_of(data, version))
        except BatchinferError:
            continue
        return published_facts(manifest)
    return None


def _versions(data: JobData) -> Iterable[int]:
    for name in (CURRENT, PIN):
        try:
            found = pointers.pointer(data, name)
        except BatchinferError:
            continue
        if found is not None:
            yield found.version
    try:
        yield from reversed(folders.numbers(data))
    except OSError:
        return


def _content(path: Path) -> bytes | None:
    try:
        return read_small(path)
    except OSError:
        return None
