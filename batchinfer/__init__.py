"""Ask a large model every question once, ahead of time; check the answers; serve them from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchinfer.core.version import __version__

if TYPE_CHECKING:
    from batchinfer.client.async_lookup import AsyncLookup
    from batchinfer.client.lookup import Lookup

__all__ = ["AsyncLookup", "Lookup", "__version__"]


def __getattr__(name: str) -> Any:
    """Lookup or AsyncLookup, imported when it is first asked for: the command does without them."""
    if name == "Lookup":
        from batchinfer.client.lookup import Lookup

        return Lookup
    if name == "AsyncLookup":
        from batchinfer.client.async_lookup import AsyncLookup

        return AsyncLookup
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
