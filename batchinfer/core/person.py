"""The person at a command: told how it goes, and asked before what may be a mistake."""

from __future__ import annotations

from typing import Protocol

from batchinfer.errors import NotConfirmed


class Person(Protocol):
    """Whom a command tells and asks."""

    def info(self, text: str) -> None:
        """Tells a sentence."""

    def confirm(self, text: str, *, typed: str | None = None) -> bool | None:
        """Asks a question; whether the answer is yes, and None where nobody can answer. typed: what must be typed to say yes."""


class SaidNo(NotConfirmed):
    """A person was asked, and did not agree."""


class Nobody:
    """A `Person` who is not there: hears nothing, and answers nothing."""

    def info(self, text: str) -> None:
        """Nothing."""

    def confirm(self, text: str, *, typed: str | None = None) -> None:
        """Nothing."""


def ask(person: Person, said: str, fix: str, *, yes: bool, typed: str | None = None) -> None:
    """Says what is at stake, and goes on if the person agrees. Raises NotConfirmed, with what to do if nobody was asked.

    yes: whether they agreed beforehand: the question is then told with its answer. typed: what must be typed to agree.
    """
    question = f"{said} Continue?"
    if yes:
        person.info(f"{question} Yes (--yes).")
        return
    answer = person.confirm(question if typed is None else said, typed=typed)
    if answer is None:
        raise NotConfirmed(said, fix=fix)
    if not answer:
        raise SaidNo(f"{said} Stopped, since the answer was no.")
