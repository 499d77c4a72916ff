"""A library that others would load, and nobody here needs."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

SPARED = "pandas"


def spare_pandas() -> None:
    """Lets pyarrow do without pandas, which it loads with its first table wherever it is there: half a second of processor time.

    For processes of our own alone: nothing in this one can import it from now on.
    """
    sys.meta_path.insert(0, _Spared())


class _Spared:
    """Finds it, as those who ask whether it is there expect, and does not load it."""

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == SPARED else None  # type: ignore[arg-type]

    def create_module(self, _: ModuleSpec) -> ModuleType | None:
        raise ImportError(f"{SPARED} is not loaded here", name=SPARED)

    def exec_module(self, _: ModuleType) -> None:
        """There is no module."""
