"""lookup and match: what is served, asked from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchinfer.cli.opening import served_data
from batchinfer.cli.options import job_argument, json_option, pairs
from batchinfer.cli.tables import table
from batchinfer.cli.terminal import emit, tell
from batchinfer.cli.values import OneOf, PathValue
from batchinfer.core.columns import query_text
from batchinfer.core.home import JobData
from batchinfer.errors import BatchinferError, NotFound, UsageError, counted, did_you_mean, shortened
from batchinfer.versions.query import OFFSETS, language_ranges

if TYPE_CHECKING:
    from batchinfer.publish.score_curve import ScoreCurve


LONGEST_KEY = 300  # characters of a key that is told


@click.command("lookup")
@job_argument
@click.argument("pair", nargs=-1, required=True, metavar="COLUMN=VALUE...")
@json_option
def lookup_(job: str, pair: tuple[str, ...], as_json: bool) -> None:
    """One prediction, from the version that is served. Exits with 6 if there is none."""
    from batchinfer.core.columns import typed
    from batchinfer.versions.pointers import open_served

    data = served_data(job)
    with open_served(data) as snapshot:
        columns = {column.name: column for column in snapshot.manifest.key}
        texts = pairs(pair, list(columns))
        unknown = [name for name in texts if name not in columns]
        if unknown:
            fix = did_you_mean(unknown[0], columns) or f"it is {', '.join(columns)}."
            raise UsageError(f"{unknown[0]} is not part of the lookup key of {data.name}", fix=fix)
        body = snapshot.answer({name: typed(text, columns[name]) for name, text in texts.items()})
        asked, fault = snapshot.on_miss is not None, snapshot.student_fault
    if body is None:
        why = (
            ", and its student abstains."
            if asked
            else "."
            if fault is None
            else f", and its student cannot be asked. {fault}"
        )
        raise NotFound(
            f"{data.name} has no prediction for {shortened(query_text(texts), LONGEST_KEY)} in version {snapshot.number}{why}"
        )
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


@dataclass(frozen=True, slots=True)
class FoundInTexts:
    """What many texts mention.

    results: the matches of each text, in their order.
    version: that says so.
    """

    results: list[list[dict[str, Any]]]
    version: int

    def to_json(self) -> dict[str, Any]:
        """As the service replies to many texts."""
        return {"version": self.version, "results": [{"matches": matches} for matches in self.results]}


FindTerms = Callable[[str], list[dict[str, Any]]]


@click.command("match")
@job_argument
@click.argument("text", required=False)
@click.option("--language", "languages", multiple=True, metavar="TAG", help="Only terms of this language; repeatable.")
@click.option("--offsets", type=OneOf(OFFSETS), default="code_points", help="What spans count.")
@click.option(
    "--score-curve", is_flag=True, help="In place of a text: what other values of match.min_score would hold and find."
)
@click.option(
    "--golden",
    type=PathValue(),
    metavar="FILE",
    help="With --score-curve: CSV or Parquet, a row for each mention: text, concept, perhaps language.",
)
@json_option
def match_(
    job: str,
    text: str | None,
    languages: tuple[str, ...],
    offsets: str,
    score_curve: bool,
    golden: Path | None,
    as_json: bool,
) -> None:
    """Which concepts TEXT mentions, and where, by the version that is served.

    With - for TEXT, each line of standard input is a text: it gets a line, or with --json a place in the list "results".
    Exits with 6 if nothing is found.
    """
    from batchinfer.versions.pointers import open_served

    _check_asked(text, languages, golden, score_curve=score_curve)
    data = served_data(job)
    if text is None:
        _show_curve(data, golden, as_json=as_json)
        return
    with open_served(data) as snapshot:
        ranges, utf16 = language_ranges(languages), OFFSETS[offsets]
        matcher = snapshot.matcher

        def find(each: str) -> list[dict[str, Any]]:
            places = matcher.find(each, languages=ranges, utf16=utf16)
            return [flat for place in places for flat in place.flat()]

        if text == "-":
            _match_lines(data, find, snapshot.number, as_json=as_json)
        else:
            _match_text(data, find, text, snapshot.number, as_json=as_json)


def _check_asked(text: str | None, languages: tuple[str, ...], golden: Path | None, *, score_curve: bool) -> None:
    """Raises UsageError for options that do not go together."""
    if score_curve and text is not None:
        raise UsageError(
            "--score-curve looks at no TEXT: give one of the two, and texts for the curve with --golden FILE."
        )
    if score_curve and languages:
        raise UsageError("--language is for a TEXT: the file of --golden has a column language for its own.")
    if golden is not None and not score_curve:
        raise UsageError("--golden belongs to --score-curve: give both.")
    if text is None and not score_curve:
        raise UsageError("TEXT is missing: give one, - for the lines of standard input, or --score-curve.")


def _show_curve(data: JobData, golden: Path | None, *, as_json: bool) -> None:
    from batchinfer.publish.golden_texts import read_golden_texts
    from batchinfer.publish.score_curve import score_curve
    from batchinfer.versions.pointers import open_served

    with open_served(data) as version, data.scratch() as scratch:
        texts = () if golden is None else read_golden_texts(golden, scratch)
        curve = score_curve(version, texts, scratch)
    emit(curve.to_json(), as_json, lambda: _curve_table(curve))


def _curve_table(curve: ScoreCurve) -> None:
    columns, rows = ["min_score", "terms", "concepts", "hits", "missed", "wrong"], []
    for point in curve.points:
        least = "none" if point.min_score is None else f"{point.min_score:g}"
        published = " (published)" if point.min_score == curve.min_score else ""
        row = [least + published, f"{point.terms:,}", f"{point.concepts:,}"]
        if point.hits is not None and point.wrong is not None:
            row += [f"{point.hits:,}", f"{curve.mentions - point.hits:,}", f"{point.wrong:,}"]
        rows.append(row)
    judged = f", {counted(curve.texts, 'golden text')} with {counted(curve.mentions, 'mention')}" if curve.texts else ""
    shown = columns[: len(rows[0])]
    table(f"{curve.job}, version {curve.version}, by match.min_score{judged}", shown, rows, right=shown)
    if curve.unscored:
        said = "term of the model has no score" if curve.unscored == 1 else "terms of the model have no score"
        tell(f"{curve.unscored:,} {said}: any min_score leaves them out.")


def _match_text(data: JobData, find: FindTerms, text: str, version: int, *, as_json: bool) -> None:
    """Raises NotFound."""
    found = FoundInText(find(text), version)
    if not found.matches:
        raise _nothing_found(data, found, "this text")
    emit(found.to_json(), as_json, lambda: _match_table(found.matches))


def _match_lines(data: JobData, find: FindTerms, version: int, *, as_json: bool) -> None:
    """People see each line's matches at once, machines all in the end. Raises NotFound, or UsageError for a line that is no text."""
    found, any_found = FoundInTexts([], version), False
    try:
        for line in _lines():
            matches = find(line)
            any_found = any_found or bool(matches)
            if as_json:
                found.results.append(matches)
            else:
                _match_line(matches)
    except BatchinferError as exc:
        exc.report = found  # what the lines before it mention stands beside the error
        raise
    if not any_found:
        raise _nothing_found(data, found, "these texts")
    emit(found.to_json(), as_json, lambda: None)


def _nothing_found(data: JobData, found: FoundInText | FoundInTexts, where: str) -> NotFound:
    """The error for texts that mention nothing, with what was looked up."""
    missed = NotFound(f"Version {found.version} of {data.name} finds nothing in {where}.")
    missed.report = found
    return missed


def _lines() -> Iterator[str]:
    """The lines of standard input. Raises UsageError."""
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as exc:
            raise UsageError(f"Line {number} of standard input is not valid UTF-8: convert the text first.") from exc


def _match_table(matches: list[dict[str, Any]]) -> None:
    columns = ["text", "concept", "language", "term", "score", "source"]
    shown = [match | {"language": ", ".join(match["languages"] or ())} for match in matches]
    rows = [[_span(match), *(match[name] for name in columns)] for match in shown]
    if rows:
        table("", ["span", *columns], rows, right=["score"], free=["text", "concept", "term"])


def _match_line(matches: list[dict[str, Any]]) -> None:
    """All of a text's matches, for people who read many."""
    # once, in however many languages it is named so
    said = dict.fromkeys(f"{_span(match)} {match['text']} = {match['concept']}" for match in matches)
    click.echo(" ".join("; ".join(said).split()) or "-")


def _span(match: dict[str, Any]) -> str:
    return f"{match['start']}-{match['end']}"
