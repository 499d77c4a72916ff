"""What a `Lookup` takes and gives, wherever its answers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from batchinfer.errors import UsageError

POOL_SIZE = 32  # connections to a service that are kept open; more threads make their own for each request

Result = TypeVar("Result")

Query = Mapping[str, Any]
"""A value for each column of the lookup key."""

Hit = dict[str, Any]
"""A prediction, as the service's hit has it."""

LookupOutcome = Hit | None | UsageError
"""Of one query among many: a hit, None for a miss, or why the query does not fit the lookup key."""

Matches = dict[str, Any]
"""What a text mentions: {"matches": [...], "version": N}."""


class Backend(Protocol):
    """Where answers come from. Any number of threads may ask one; all arguments were checked but for the lookup key."""

    @property
    def version(self) -> int: ...
    def get(self, query: Query) -> Hit | None: ...
    def get_many(self, queries: list[Query]) -> list[LookupOutcome]: ...
    def match_many(self, texts: list[str], languages: tuple[str, ...], *, utf16: bool) -> list[Matches]: ...
    def gets_at_once(self, count: int) -> bool:
        """Whether so many look-ups are over in a moment, so that an event loop can make them itself."""
        ...

    def matches_at_once(self, texts: Sequence[str]) -> bool:
        """The same of these texts."""
        ...

    def close(self) -> None: ...
    def after_fork(self) -> None: ...
