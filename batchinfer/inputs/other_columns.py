"""The columns of a list beside its key, for those who want the rows as they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa

from batchinfer.core.columns import Kind
from batchinfer.core.database import TEXT_ROWS
from batchinfer.errors import InputError
from batchinfer.inputs.convert import kind_of, stored_type
from batchinfer.inputs.list_file import ListFile
from batchinfer.inputs.parquet import ListSource
from batchinfer.job.spec import InputSpec


class OtherColumns:
    """Reads them in the order of the rows.

    names: those that every file has, in the order of the first.
    order: the same with the key's among them.
    left_out: those that only some files have, or whose name differs from another's in case alone.
    """

    def __init__(self, files: Sequence[ListFile], spec: InputSpec) -> None:
        schemas = [file.schema() for file in files]
        first = [name for name in schemas[0].names if not name.startswith("\x1f")]  # those are ours
        good = _good_names(spec.key, schemas)
        self.order = [name for name in first if name in spec.key or name in good]
        self.names = [name for name in self.order if name not in spec.key]
        every = dict.fromkeys(name for schema in schemas for name in schema.names)
        kept = set(self.order)
        self.left_out = [name for name in every if name not in kept and not name.startswith("\x1f")]
        kinds = {name: _kind(name, schemas) for name in self.names}
        # A value that does not fit is not there; that makes no row bad, as it would in a column that is used.
        own = {"where": {}, "normalize": [], "optional": self.names, "types": spec.types | kinds}
        self._source = ListSource(files, spec.model_copy(update=own), self.names, rows_at_once=TEXT_ROWS)

    @property
    def nested(self) -> list[str]:
        """Those whose text is JSON."""
        return [name for name in self.names if self._source.kinds[name] == "json"]

    @property
    def zoned(self) -> frozenset[str]:
        """Those whose times have a zone, the key's among them."""
        return self._source.zoned

    def batches(self) -> Iterator[pa.Table]:
        """ROW and the columns of all rows, also of those that cannot be asked. Raises InputError."""
        for batch in self._source.batches():
            yield pa.concat_tables([batch.good, batch.lost])


def _good_names(key: Sequence[str], schemas: Sequence[pa.Schema]) -> set[str]:
    """The columns that each file has once, with none that is written almost so."""
    found = set(schemas[0].names)
    for schema in schemas:
        counts = Counter(schema.names)
        lowered = Counter(name.lower() for name in {*counts, *key})
        found &= {name for name, count in counts.items() if count == 1 and lowered[name.lower()] == 1}
    return found


def _kind(name: str, schemas: Sequence[pa.Schema]) -> Kind:
    """The kind that holds the values of all files; text for those that no prompt could have."""
    try:
        fields = [schema.field(name) for schema in schemas if not pa.types.is_null(schema.field(name).type)]
        kinds = {(kind_of(field), pa.types.is_uint64(stored_type(field.type))) for field in fields}
    except InputError:
        return "string"
    if not kinds:
        return "string"
    [kind, *more] = dict.fromkeys(kind for kind, _ in kinds)
    if len(kinds) == 1:
        return kind
    return "json" if "json" in (kind, *more) else "string"
