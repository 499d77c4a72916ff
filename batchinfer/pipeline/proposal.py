"""From a list to the first draft of a job: which columns are its key, what its question shows, and how it is put. Pure."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from batchinfer.errors import InputError
from batchinfer.prompting.template import column_reference

LONG_TEXT = 200  # characters; a key is shorter, and a question stands below it
LOOKED_AT = 1000  # values of a column that is looked at closely
WORDS = re.compile(r"[^\W_]+?(?=[A-Z][a-z]|[\W_]|$)")
LABELS = {
    "label", "labels", "class", "category", "target", "gold", "golden", "truth", "answer", "answers", "expected", "prediction",
    "predicted", "output", "annotation", "sentiment", "verdict",
}  # fmt: skip
IDS = {"id", "ids", "uuid", "guid", "index", "idx", "sku", "ean", "isbn", "asin", "hash"}
RATINGS = {"rating", "ratings", "score", "scores", "star", "stars", "rank", "grade", "votes", "likes"}
CODE = re.compile(r"[\d\W_]+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|[0-9a-f]{16,64}")


@dataclass(frozen=True, slots=True)
class KeyProposal:
    """The columns that tell rows apart.

    columns: none where only a person can tell.
    sure: no other columns would do as well.
    """

    columns: list[str]
    sure: bool


@dataclass(frozen=True, slots=True)
class QuestionProposal:
    """What a job asks.

    columns: those that the template shows.
    left_out: all others: they are no texts, have nulls, or look like labels, ids or ratings, or no template can name them.
    template: the question.
    """

    columns: list[str]
    left_out: list[str]
    template: str


def usable_columns(table: pa.Table) -> list[str]:
    """The columns of texts or whole numbers without nulls: a key is made of such. Raises InputError if there is none."""
    found = [
        field.name
        for field in table.schema
        if (is_text(field.type) or pa.types.is_integer(field.type))
        and table.num_rows
        and not table[field.name].null_count
    ]
    if not found:
        raise InputError(
            "The list has no column of texts or whole numbers without nulls: such a column must be the key."
        )
    return found


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def propose_key(table: pa.Table) -> KeyProposal:
    """A column of short texts or whole numbers without repeats, or two of them, or all together. Raises InputError."""
    usable = usable_columns(table)
    if len(usable) == 1:
        return KeyProposal(usable, sure=True)
    alone = [name for name in usable if _tells_apart(table, [name])]
    short = [name for name in alone if not is_text(table.schema.field(name).type) or _longest(table, name) <= LONG_TEXT]
    if candidates := short or alone:
        named = [name for name in candidates if _words(name) & IDS]
        return KeyProposal((named or candidates)[:1], sure=len(candidates) == 1)
    together = next((list(pair) for pair in itertools.combinations(usable, 2) if _tells_apart(table, list(pair))), None)
    if together is None and _tells_apart(table, usable):
        together = usable
    return KeyProposal(together or [], sure=False)


def propose_question(table: pa.Table, key: list[str]) -> QuestionProposal:
    """A question about the list's texts, without what gives the answer away or says nothing. Raises InputError.

    Of a key of several columns it shows each: rows that differ in one of them only would else be asked alike.
    """
    texts = [field.name for field in table.schema if is_text(field.type) and not table[field.name].null_count]
    told = [name for name in texts if not _gives_away(name) and not _is_code(table, name)]
    if len(key) > 1:
        told = [name for name in table.column_names if name in told or name in key]
    references = {name: column_reference(name) for name in told or [name for name in texts if name in key] or key}
    columns = {name: reference for name, reference in references.items() if reference is not None}
    if not columns:
        raise InputError(f"No template can name the column {next(iter(references))!r}: rename it.")
    left_out = [name for name in table.column_names if name not in columns]
    return QuestionProposal(list(columns), left_out, _template(table, columns))


def tells_questions_apart(table: pa.Table, key: list[str], shown: list[str]) -> bool:
    """Whether rows that share a key also share what the question shows; a run takes others for bad rows."""
    both = list(dict.fromkeys([*key, *shown]))
    return _distinct(table, key) == _distinct(table, both)


def _template(table: pa.Table, columns: dict[str, str]) -> str:
    [(first, reference), *more] = columns.items()
    short = not is_text(table.schema.field(first).type) or _longest(table, first) <= LONG_TEXT
    if not more and short:
        return f"What is meant by: {{{{ {reference} }}}}?"
    shown = [
        f"{name}: {{{{ {reference} }}}}"
        if more and name.isprintable() and "{" not in name
        else f"{{{{ {reference} }}}}"
        for name, reference in columns.items()
    ]
    return "\n".join([*shown, "", "What is this about? Answer in one sentence."])


def _tells_apart(table: pa.Table, names: list[str]) -> bool:
    return bool(_distinct(table, names) == table.num_rows)


def _distinct(table: pa.Table, names: list[str]) -> int:
    return int(table.select(names).group_by(names).aggregate([]).num_rows)


def _longest(table: pa.Table, name: str) -> int:
    return int(pc.max(pc.utf8_length(table[name])).as_py() or 0)


def _words(name: str) -> set[str]:
    return {word.lower() for word in WORDS.findall(name)}


def _gives_away(name: str) -> bool:
    """Whether a column is called as labels, ids and ratings are."""
    return name.lower() == "y" or bool(_words(name) & (LABELS | IDS | RATINGS))


def _is_code(table: pa.Table, name: str) -> bool:
    """Whether all texts of a column are numbers or codes, which say nothing to a model."""
    return all(CODE.fullmatch(text or "0") for text in table[name].slice(0, LOOKED_AT).to_pylist())
