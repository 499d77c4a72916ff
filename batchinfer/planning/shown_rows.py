"""Examples of the prompt that are rows of the list: the model can copy their answers, and so shows nothing of what it knows."""

from __future__ import annotations

from batchinfer.core.database import one
from batchinfer.core.records import Info
from batchinfer.core.sql import listed, literal
from batchinfer.errors import counted
from batchinfer.planning.prepare import Prepared


def tell_shown_rows(prepared: Prepared, info: Info) -> None:
    """Says how many there are, if any."""
    question = prepared.question
    if question is None or not question.examples:
        return
    names = question.template.columns
    values = ", ".join(
        f"({', '.join(literal(str(example.input[name])) for name in names)})" for example in question.examples
    )
    places = ", ".join(f"c{place}" for place, _ in enumerate(names))
    rows = ", ".join(f"{listed(name)}::VARCHAR AS c{place}" for place, name in enumerate(names))
    shown = one(
        prepared.workspace.db,
        f"SELECT count(*) FROM (VALUES {values}) AS shown({places}) "
        f"SEMI JOIN (SELECT {rows} FROM {prepared.query_list.rows_sql}) USING ({places})",
    )
    if shown:
        info(
            f"{counted(shown, 'example')} of the prompt {'is a row' if shown == 1 else 'are rows'} of the list, whose answers the "
            "model only has to copy: show others, or leave these rows out of what you judge it by."
        )
