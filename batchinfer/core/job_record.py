"""job.json: what a data folder notes of a job, such as its file, its models, a refresh that goes on and an agreed list."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from batchinfer.core.files import DAMAGE, fault_of_path, read_small, why_damaged, why_unread, write_atomically
from batchinfer.errors import StoreError

RECORD = "job.json"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that was used, by what must not change unseen.

    revision: a hub commit; None for a folder.
    digest: of the weights.
    adapter_digest: of the adapter; None without one.
    """

    revision: str | None
    digest: str
    adapter_digest: str | None


@dataclass(frozen=True, slots=True)
class Refresh:
    """A refresh that has not come to its end.

    what: as it was asked for.
    since: when it began.
    """

    what: str
    since: datetime


@dataclass(frozen=True, slots=True)
class AgreedList:
    """A list that changed nothing when it was published.

    version: that was served then.
    place: where the list came from.
    """

    version: int | None
    place: str


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What job.json says. Each change makes another record, which keeps what only newer programs know.

    _content: as it stands in the file.
    """

    _content: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Self:
        """An empty one if there is no file. Raises StoreError for one that this program did not write."""
        try:
            record = cls(json.loads(read_small(path)))
            record._check()
        except FileNotFoundError:
            return cls({})
        except OSError as exc:
            raise StoreError(f"{path} cannot be read: {why_unread(exc)}.") from exc
        except DAMAGE as exc:
            fix = "Remove it: the next run writes it again, and takes the model's files as they are then."
            raise StoreError(f"{path} cannot be read: {why_damaged(exc)}. {fix}") from exc
        return record

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps(self._content, indent=2).encode())

    @property
    def job_file(self) -> str | None:
        """The job file that the name belongs to."""
        bound: str | None = self._content.get("job_file")
        return bound

    def bound_to(self, job_file: Path) -> Self:
        return self._with(job_file=str(job_file))

    def model(self, asked: str) -> KnownModel | None:
        """What a model was when it was used last. asked: the job file's settings of it, as one text."""
        if asked not in self._models:
            return None
        noted = self._models[asked]
        return KnownModel(noted["revision"], noted["digest"], noted["adapter_digest"])

    def with_model(self, asked: str, noted: Mapping[str, str | None]) -> Self:
        """noted: all that is known of it, a `KnownModel`'s fields among that."""
        return self._with(models={**self._models, asked: noted})

    @property
    def refresh(self) -> Refresh | None:
        begun = self._content.get("refresh")
        return None if begun is None else Refresh(begun["what"], datetime.fromisoformat(begun["since"]))

    def with_refresh(self, refresh: Refresh) -> Self:
        return self._with(refresh={"what": refresh.what, "since": refresh.since.isoformat()})

    def without_refresh(self) -> Self:
        return self._without("refresh")

    @property
    def agreed(self) -> AgreedList | None:
        noted = self._content.get("list")
        return None if noted is None else AgreedList(noted["version"], str(noted["place"]))

    def with_agreed(self, agreed: AgreedList) -> Self:
        return self._with(list={"version": agreed.version, "place": agreed.place})

    def without_agreed(self) -> Self:
        return self._without("list")

    @property
    def _models(self) -> Mapping[str, Any]:
        """By the job file's settings of each."""
        return self._content.get("models") or {}

    def _check(self) -> None:
        """Raises one of DAMAGE for what this program did not write. What only newer ones know is no fault."""
        if self.job_file is not None and (fault := fault_of_path(Path(self.job_file))) is not None:
            raise ValueError(f"its job_file {fault}")
        _ = [self.model(asked) for asked in self._models], self.refresh, self.agreed

    def _with(self, **changed: Any) -> Self:
        return type(self)({**self._content, **changed})

    def _without(self, field: str) -> Self:
        return type(self)({name: value for name, value in self._content.items() if name != field})
