"""lookup and match: what is served, asked from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import click

from batchinfer.cli.common import emit, job_argument, json_option, pairs, served_data, table
from batchinfer.errors import NotFound, UsageError
from batchinfer.versions.query import OFFSETS, language_ranges


@click.command("lookup")
@job_argument
@click.argument("pair", nargs=-1, required=True, metavar="COLUMN=VALUE...")
@json_option
def lookup_(job: str, pair: tuple[str, ...], as_json: bool) -> None:
    """One prediction, from the version that is served. Exits with 1 if there is none."""
    from batchinfer.core.columns import typed
    from batchinfer.versions.pointers import open_served

    data = served_data(job)
    with open_served(data) as snapshot:
        texts = pairs(pair)
        columns = {column.name: column for column in snapshot.manifest.key}
        unknown = [name for name in texts if name not in columns]
        if unknown:
            raise UsageError(f"{unknown[0]} is not part of the lookup key, which is {', '.join(columns)}.")
        body = snapshot.get({name: typed(text, columns[name]) for name, text in texts.items()})
    if body is None:
        raise NotFound(f"{data.name} has no prediction for {', '.join(pair)} in version {snapshot.number}.")
    click.echo(body.decode() if as_json else json.dumps(json.loads(body), indent=2, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class FoundInText:
    """What one text mentions.

    matches: one for each name of each place, as the service gives them.
    version: that says so.
    """

    matches: list[dict[str, Any]]
    version: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@click.command("match")
@job_argument
@click.argument("text")
@click.option("--language", "languages", multiple=True, metavar="TAG", help="Only terms of this language; repeatable.")
@click.option("--offsets", type=click.Choice(list(OFFSETS)), default="code_points", help="What spans count.")
@json_option
def match_(job: str, text: str, languages: tuple[str, ...], offsets: str, as_json: bool) -> None:
    """Which concepts TEXT mentions, and where, by the version that is served.

    With - for TEXT, each line of standard input is a text, and gets a line. Exits with 1 if nothing is found.
    """
    from batchinfer.versions.pointers import open_served

    data = served_data(job)
    found = False
    with open_served(data) as snapshot:
        ranges, utf16 = language_ranges(languages), OFFSETS[offsets]
        matcher = snapshot.matcher
        for each in _lines() if text == "-" else [text]:
            places = matcher.find(each, languages=ranges, utf16=utf16)
            matches = [flat for place in places for flat in place.flat()]
            found = found or bool(matches)
            show = _match_line if text == "-" else _match_table
            emit(FoundInText(matches, snapshot.number).to_json(), as_json, partial(show, matches))
    if not found:
        what = "this text" if text != "-" else "these texts"
        raise NotFound(f"Version {snapshot.number} of {data.name} finds nothing in {what}.")


def _lines() -> Iterator[str]:
    """The lines of standard input. Raises UsageError."""
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as exc:
            raise UsageError(f"Line {number} of standard input is not valid UTF-8: convert the text first.") from exc


def _match_table(matches: list[dict[str, Any]]) -> None:
    columns = ["text", "concept", "language", "term", "score", "source"]
    rows = [[_span(match), *(match[name] for name in columns)] for match in matches]
    if rows:
        table("", ["span", *columns], rows, right=["score"])


def _match_line(matches: list[dict[str, Any]]) -> None:
    """All of a text's matches, for people who read many."""
    said = dict.fromkeys(
        f"{_span(match)} {match['text']} = {match['concept']}" for match in matches
    )  # of all languages
    click.echo(" ".join("; ".join(said).split()) or "-")


def _span(match: dict[str, Any]) -> str:
    return f"{match['start']}-{match['end']}"
