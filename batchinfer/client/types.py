"""What a `Lookup` takes and gives, wherever its answers come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Query = Mapping[str, Any]


Hit = dict[str, Any]


Matches = dict[str, Any]


class Backend(Protocol):
    """How predictions are come by."""

    @property
    def version(self) -> int: ...
    def get(self, query: Query) -> Hit | None: ...
    def get_many(self, queries: list[Query]) -> list[Hit | None]: ...
    def match_many(self, texts: list[str], languages: tuple[str, ...], *, utf16: bool) -> list[Matches]: ...
    def close(self) -> None: ...
    def after_fork(self) -> None: ...
