"""How much of what golden rows say that a right answer contains is served."""

from __future__ import annotations

import json

from batchinfer.cache.workspace import Workspace
from batchinfer.publish.golden import Golden, is_right
from batchinfer.publish.inference import Estimated, JudgedRow, Whole, estimate_precision

OUT_OF_MANY = 1e-6  # golden rows count as drawn from many more
UNKNOWN = 0.5  # the score of a golden row: none that says anything


def measure_recall(workspace: Workspace, known: Golden | None, rows_sql: str) -> Estimated | None:
    """Of a version or a candidate; None without golden rows that say what an answer contains.

    Of a list each item counts. rows_sql: its entries, with lookup_hash and prediction.
    """
    if known is None or known.compare != "contains":
        return None
    db, as_json = workspace.db, workspace.spec.output.is_json
    db.register("known", known.rows)
    rows = db.execute(
        f"SELECT k.answer, e.prediction FROM known k LEFT JOIN {rows_sql} e USING (lookup_hash) WHERE e.prediction IS NOT NULL "
        f"OR {workspace.query_list.expected_sql} ORDER BY k.query"
    ).fetchall()
    db.unregister("known")
    judged = []
    for answer, prediction in workspace.texts.whole_rows(rows):
        value, said = json.loads(answer), json.loads(prediction) if as_json and prediction is not None else prediction
        items = value if isinstance(value, list) else [value]
        held = sum(said is not None and is_right(said, item, known.compare) for item in items)
        if items:
            judged.append(JudgedRow(OUT_OF_MANY, held / len(items), len(items), UNKNOWN, ""))
    return estimate_precision(judged, Whole(len(judged), sum(row.size for row in judged), UNKNOWN))
