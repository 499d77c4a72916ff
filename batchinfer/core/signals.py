"""What a signal's handler raised, where DuckDB lost it.

A handler may run while DuckDB works, and DuckDB then raises an error of its own in place of what the handler raised.
"""

from __future__ import annotations

from typing import TypeVar

INTERRUPTED = "Query interrupted"
IN_FUNCTION = "Python exception occurred while executing the UDF: "
Raised = TypeVar("Raised", bound=BaseException)

_raised: list[BaseException] = []


def raising(exc: Raised) -> Raised:
    """What a handler is about to raise, kept in place of what it raised before."""
    _raised[:] = [exc]
    return exc


def forget() -> None:
    """Ends what `raising` began, once no such handler is in place."""
    _raised.clear()


def meant(exc: BaseException) -> BaseException:
    """What a handler raised, if this is DuckDB's error in its place; else the same. Python's own handler is of Ctrl-C."""
    raised = _raised[0] if _raised else KeyboardInterrupt()
    said = str(exc)
    lost = said == INTERRUPTED or f"{IN_FUNCTION}{type(raised).__name__}" in said
    return raised if lost else exc


def heed(exc: BaseException) -> None:
    """Raises what a handler raised, if this is DuckDB's error in its place."""
    if (raised := meant(exc)) is not exc:
        raise raised from None
