"""Keys: what changes them, what does not, and that SQL and Python make the same ones."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer.core import keys
from batchinfer.core.columns import Column, Kind, typed
from batchinfer.errors import UsageError
from batchinfer.inputs.parquet import ROW, Source
from batchinfer.inputs.query_list import scratch_plan
from batchinfer.job.spec import InputSpec, JobSpec
from batchinfer.planning import question
from batchinfer.planning.fingerprint import answer_parts, changes, fingerprint, parser_fingerprint
from batchinfer.prompting.spec import PromptSpec
from batchinfer.prompting.template import PromptTemplate
from tests.factories import World, model_job

Path_ = tuple[str, ...]

# A job in which every section is there, so that every field of the job file is walked.
FULL: dict[str, Any] = {
    "name": "full",
    "description": "All sections.",
    "input": {
        "path": "queries.parquet", "key": ["vaccine"], "types": {"vaccine": "string"}, "normalize": ["nfkc"],
        "where": {"market": "EU"}, "optional": ["note"],
    },
    "prompt": {
        "format": "chat", "system": "Be brief.", "template": "Names for {{ vaccine }}:", "shots": "all",
        "examples": [{"input": {"vaccine": "Sputnik V"}, "output": "Sputnik"}, {"input": {"vaccine": "Moderna"}, "output": "Spikevax"}],
        "chat_template_kwargs": {"enable_thinking": False, "nested": {"depth": 1}},
    },
    "model": {
        "id": "org/name", "revision": "main", "dtype": "bfloat16", "quantization": "awq", "adapter": "adapter",
        "options": {"max_model_len": 1024, "hf_overrides": {"rope_theta": 10000.0}, "seed": 0},
    },
    "engine": {"kind": "vllm", "replicas": 2, "tensor_parallel": 2, "stall": "5m"},
    "sampling": {"temperature": 0.5, "max_tokens": 64, "seed": 1, "stop": ["\n"]},
    "output": {"type": "json", "schema": {"type": "object"}, "steps": ["strip"]},
    "on_failure": "drop",
    "cache": {"max_age": "7d"},
    "gate": {"coverage": 0.9},
    "match": {"terms": ["prediction.names"], "concept": "vaccine", "language": "language", "where": {"a": 1}, "min_score": 0.5},
    "serve": {"max_age": "60s"},
    "schedule": {"cron": "0 3 * * 1", "timezone": "UTC"},
    "keep_versions": 3,
}  # fmt: skip

# Written out, not taken from keys.py: whoever adds a setting to the deny-list has to say so here as well.
IN_NO_KEY: set[Path_] = {
    ("name",), ("description",), ("input",), ("engine",), ("on_failure",), ("cache",), ("gate",), ("match",), ("serve",),
    ("schedule",), ("keep_versions",),
    ("output", "steps"), ("output", "min_mass"),  # how an answer is read
    ("prompt", "shots"),  # the examples that are shown are in the key themselves
    ("model", "id"), ("model", "revision"), ("model", "adapter"),  # what they resolve to is in the key instead
}  # fmt: skip
OPTIONS_IN_NO_KEY = [
    "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization", "kv_cache_memory_bytes", "block_size", "swap_space",
    "cpu_offload_gb", "enforce_eager", "enable_prefix_caching", "enable_chunked_prefill", "disable_log_stats",
    "download_dir", "pipeline_parallel_size", "distributed_executor_backend", "max_parallel_loading_workers",
]  # fmt: skip


def plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """A job file's content as the plain values that keys are made from, all defaults filled in."""
    return JobSpec.model_validate(content).model_dump(mode="json", by_alias=True)


def fingerprint_of(spec: Mapping[str, Any], model: str = "weights", adapter: str | None = "adapter") -> bytes:
    """The fingerprint of a job, with all of its examples shown."""
    shown = [(example["input"], example["output"]) for example in spec["prompt"]["examples"]]
    return fingerprint(answer_parts(spec, shown, model, adapter))


def leaves(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """The places of all values that are no mapping with something in it."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from leaves(item, (*at, name))
    else:
        yield at


def other(value: Any) -> Any:
    """A value unlike this one, of the same type where it has one."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case list():
            return [*value, *(value[-1:] or ["x"])]
        case dict():
            return {**value, "added": 1}
    return "x"


def with_other(spec: dict[str, Any], path: Path_) -> dict[str, Any]:
    """The same plain values but for the one at `path`."""
    name, rest = path[0], path[1:]
    return {**spec, name: with_other(spec[name], rest) if rest else other(spec[name])}


PLAIN = plain(FULL)
LEAVES = list(leaves(PLAIN))


def is_in_no_key(path: Path_) -> bool:
    return path[:1] in IN_NO_KEY or path[:2] in IN_NO_KEY


@pytest.mark.parametrize("path", [path for path in LEAVES if not is_in_no_key(path)], ids=".".join)
def test_any_field_that_may_change_an_answer_changes_the_fingerprint(path: Path_) -> None:
    """Each field that nobody put on the deny-list is part of the fingerprint, new ones included."""
    assert fingerprint_of(with_other(PLAIN, path)) != fingerprint_of(PLAIN)


@pytest.mark.parametrize("path", [path for path in LEAVES if is_in_no_key(path)], ids=".".join)
def test_a_field_that_cannot_change_an_answer_leaves_the_fingerprint(path: Path_) -> None:
    """Each field on the deny-list can be changed without asking the model again."""
    assert fingerprint_of(with_other(PLAIN, path)) == fingerprint_of(PLAIN)


def test_the_walk_reaches_every_field_of_the_job_file() -> None:
    """Every field of every section is among the places walked above, so that none escapes by being absent."""
    walked = {path[: end + 1] for path in LEAVES for end in range(len(path))}
    fields = {
        (section, inner.alias or name)
        for section, value in JobSpec.model_validate(FULL)
        for name, inner in getattr(type(value), "model_fields", {}).items()
    }
    assert len(fields) > 40
    assert fields | {(name,) for name in JobSpec.model_fields} <= walked


@pytest.mark.parametrize("name", OPTIONS_IN_NO_KEY)
def test_options_that_cannot_change_an_answer_leave_the_fingerprint(name: str) -> None:
    """Batch size, memory share and their like can be tuned without asking the model again."""
    assert fingerprint_of(with_option(name, 7)) == fingerprint_of(with_option(name, 8)) == fingerprint_of(PLAIN)


@given(st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda name: name not in OPTIONS_IN_NO_KEY))
def test_any_other_option_changes_the_fingerprint(name: str) -> None:
    """An option that nobody put on the deny-list changes the fingerprint, by its presence and by its value."""
    assert (
        len({fingerprint_of(PLAIN), fingerprint_of(with_option(name, "7")), fingerprint_of(with_option(name, "8"))})
        == 3
    )


def with_option(name: str, value: Any) -> dict[str, Any]:
    return {**PLAIN, "model": {**PLAIN["model"], "options": {**PLAIN["model"]["options"], name: value}}}


def test_the_weights_and_the_adapter_change_the_fingerprint() -> None:
    """What the model and the adapter resolve to is part of the fingerprint, and having no adapter is something else."""
    prints = [
        fingerprint_of(PLAIN),
        fingerprint_of(PLAIN, model="other weights"),
        fingerprint_of(PLAIN, adapter="other"),
        fingerprint_of(PLAIN, adapter=None),
    ]
    assert len(set(prints)) == len(prints)


def test_the_examples_shown_and_their_order_change_the_fingerprint() -> None:
    """Zero, one, two examples and two in the other order are four different questions."""
    examples: list[tuple[dict[str, Any], str]] = [({"fruit": "peach"}, "drupe"), ({"fruit": "pear"}, "pome")]
    shown = [[], examples[:1], examples, examples[::-1]]
    assert len({fingerprint(answer_parts(PLAIN, some, "w", None)) for some in shown}) == 4


CHOICE = plain(
    {
        "name": "choice",
        "input": {"path": "q.parquet", "key": ["text"]},
        "prompt": {"template": "{{ text }}"},
        "model": {"id": "org/name"},
        "output": {"type": "choice", "choices": ["Positive", "Negative"], "min_mass": 0.1},
    }
)


@pytest.mark.parametrize("name", CHOICE["sampling"])
def test_sampling_is_in_no_key_of_a_choice(name: str) -> None:
    """A choice is scored, nothing is drawn, so no sampling setting asks the model again."""
    assert fingerprint_of(with_other(CHOICE, ("sampling", name))) == fingerprint_of(CHOICE)


def test_choices_and_their_order_are_in_the_key() -> None:
    """Other choices, and the same in another order (which settles ties), are other questions."""
    turned = {**CHOICE, "output": {**CHOICE["output"], "choices": ["Negative", "Positive"]}}
    assert (
        len({fingerprint_of(CHOICE), fingerprint_of(turned), fingerprint_of(with_other(CHOICE, ("output", "choices")))})
        == 3
    )


def test_the_order_of_names_in_the_job_file_is_in_no_key() -> None:
    """A job file that was only sorted differently asks the same."""

    def reversed_names(value: Any) -> Any:
        return {name: reversed_names(value[name]) for name in reversed(value)} if isinstance(value, dict) else value

    assert list(reversed_names(PLAIN)) != list(PLAIN)
    assert fingerprint_of(reversed_names(PLAIN)) == fingerprint_of(PLAIN)


@pytest.mark.parametrize("path", list(leaves(PLAIN["output"])), ids=".".join)
def test_the_parser_is_known_by_the_whole_output_section(path: Path_) -> None:
    """Any change of the output section makes stored texts be read again."""
    before = PLAIN["output"]
    assert parser_fingerprint(with_other(before, path)) != parser_fingerprint(before)


# Defaults.

DEFAULTS: dict[str, dict[str, Any]] = {
    "prompt": {"format": "chat", "system": None, "examples": [], "shots": "all", "chat_template_kwargs": {}},
    "model": {"revision": None, "dtype": "auto", "quantization": None, "adapter": None, "options": {}},
    "sampling": {
        "temperature": 0.0, "max_tokens": 128, "seed": 0, "stop": [], "top_p": 1.0, "top_k": 0, "min_p": 0.0,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0,
    },
    "output": {"type": "text", "schema": None, "choices": None, "pattern": None, "steps": [], "min_mass": None},
}  # fmt: skip
BARE = {
    "name": "bare",
    "input": {"path": "q.parquet", "key": ["text"]},
    "prompt": {"template": "{{ text }}"},
    "model": {"id": "org/name"},
}


def asked(folder: Path, **sections: Any) -> question.Question:
    """What a job with these sections asks, as a run makes it."""
    world: World = model_job(folder, {"id": [1], "text": ["one"]}, **sections)
    return question.make(world.job, world.data)


def test_the_defaults_stay_what_they_are() -> None:
    """A default is left out of the key, so other answers would be served for a default that changed: add a field instead."""
    full = plain(BARE)
    found = {name: {field: full[name][field] for field in fields} for name, fields in DEFAULTS.items()}
    assert found == DEFAULTS


def test_a_default_that_is_written_out_moves_no_key(tmp_path: Path) -> None:
    """A job that says every default asks, and reads answers, as one that leaves them out."""
    one = asked(tmp_path / "one")
    written = {name: dict(fields) for name, fields in DEFAULTS.items()}
    written["prompt"]["template"], written["model"]["id"] = "{{ text }}", "./model"
    two = asked(tmp_path / "two", **written)
    assert (one.fingerprint, one.parser_id) == (two.fingerprint, two.parser_id)


@pytest.mark.parametrize(
    "sections",
    [
        {"sampling": {"max_tokens": 129}},
        {"sampling": {"seed": None}},
        {"sampling": {"stop": ["x"]}},
        {"prompt": {"template": "{{ text }}", "format": "completion"}},
        {"prompt": {"template": "{{ text }}", "system": ""}},
        {"model": {"id": "./model", "dtype": "float32"}},
        {"model": {"id": "./model", "options": {"max_model_len": 64}}},
        {"output": {"type": "json", "schema": {}}},
        {"output": {"type": "regex", "pattern": "x"}},
        {"output": {"type": "choice", "choices": ["a", "b"]}},
    ],
)
def test_a_setting_that_leaves_its_default_moves_the_key(tmp_path: Path, sections: dict[str, Any]) -> None:
    """Whatever is set to something else than its default asks another question."""
    assert asked(tmp_path / "one").fingerprint != asked(tmp_path / "two", **sections).fingerprint


@pytest.mark.parametrize("output", [{"steps": ["strip"]}, {"type": "regex", "pattern": "x"}])
def test_an_output_section_that_leaves_its_defaults_is_read_anew(tmp_path: Path, output: dict[str, Any]) -> None:
    """Steps that were added change how answers are read."""
    assert asked(tmp_path / "one").parser_id != asked(tmp_path / "two", output=output).parser_id


def test_fingerprints_stay_what_they_were() -> None:
    """Whole fingerprints are pinned. They may change only on purpose: every cache in use would be made again."""
    content = BARE | {
        "sampling": {"max_tokens": 64},
        "output": {"type": "json", "schema": {"type": "array"}, "steps": ["strip"]},
    }
    bare, spec = JobSpec.model_validate(BARE), JobSpec.model_validate(content)
    parts = answer_parts(bare.beyond_defaults(), [], "weights", None)
    assert fingerprint(parts).hex() == "6f7c3ccfc34774b2ca18e9858a371d4d"
    shown: list[tuple[dict[str, Any], str]] = [({"text": "a"}, "b")]
    parts = answer_parts(spec.beyond_defaults(), shown, "weights", "adapter")
    assert fingerprint(parts).hex() == "865d190f051aacbd8d0169eaf0fa4d26"
    assert parser_fingerprint(bare.output.beyond_defaults()) == "798e1fee104b349b1678455f8eb1910c"
    assert parser_fingerprint(spec.output.beyond_defaults()) == "1cff7f64f0044e4ca4320033d0016873"


# Rows.

texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.text("\x00:;0123456789sntfbdij\"'", max_size=12)
json_texts = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
).map(keys.canonical_json)
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    "string": texts,
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False)
    | st.just(float("nan")),  # NaNs that differ in their bits are all "nan" in a text
    "boolean": st.booleans(),
    "date": st.dates(),
    "timestamp": st.datetimes().map(lambda moment: moment.replace(fold=0)),
    "json": json_texts,
}
typed_values = st.sampled_from(list(VALUES)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.none() | VALUES[kind]),
)


def decoded(data: bytes) -> list[tuple[str, Any]]:
    """What the canonical bytes say: a reader that needs nothing but the bytes, so no two rows can share theirs."""
    found: list[tuple[str, Any]] = []
    while data:
        tag, data = data[:1], data[1:]
        if tag == b"n":
            found.append(("null", None))
        elif tag == b"b":
            found.append(("boolean", data[:1] == b"1"))
            data = data[1:]
        elif tag in (b"s", b"j"):
            length, _, data = data.partition(b":")
            text, data = data[: int(length)], data[int(length) :]
            found.append(("string" if tag == b"s" else "json", text.decode()))
        else:
            text, _, data = data.partition(b";")
            read: dict[bytes, tuple[str, Callable[[str], Any]]] = {
                b"i": ("integer", int),
                b"f": ("number", lambda bits: struct.unpack("<d", struct.pack("<q", int(bits)))[0]),
                b"d": ("date", date.fromisoformat),
                b"t": ("timestamp", lambda since: datetime(1970, 1, 1) + timedelta(microseconds=int(since))),  # noqa: DTZ001
            }
            kind, of = read[tag]
            found.append((kind, of(text.decode())))
    return found


@given(st.lists(typed_values, max_size=6))
def test_two_different_rows_never_share_canonical_bytes(row: list[tuple[Kind, Any]]) -> None:
    """A row's canonical bytes can be read back to exactly its kinds and values."""
    data = b"".join(keys.encode(value, kind) for kind, value in row)
    expected = [("null", None) if value is None else (kind, value) for kind, value in row]
    assert repr(decoded(data)) == repr(
        [(kind, 0.0 if value == 0 and kind == "number" else value) for kind, value in expected]
    )


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (["ab", "c"], ["a", "bc"]),
        (["a", ""], ["", "a"]),
        (["s1:b", "c"], ["s1", "bc"]),
        (["as1:b", "c"], ["a", "bs1:c"]),
        (["a\0", "b"], ["a", "\0b"]),
        (["n", None], [None, "n"]),
        (["", None], [None, ""]),
        (["\u00e9", "x"], ["e\u0301", "x"]),
        (["1", "11"], ["11", "1"]),
    ],
)
def test_rows_made_to_collide_do_not(one: list[str | None], two: list[str | None]) -> None:
    """Texts that would run together if they were merely joined have keys of their own."""
    columns = [Column("a", "string"), Column("b", "string")]
    assert keys.row_key(b"", one, columns) != keys.row_key(b"", two, columns)


def test_the_same_digits_of_another_kind_are_another_key() -> None:
    """1, 1.0, true, and the text 1 are four values."""
    values: list[tuple[Any, Kind]] = [
        (1, "integer"),
        (1.0, "number"),
        (True, "boolean"),
        ("1", "string"),
        ("1", "json"),
    ]
    assert len({keys.row_key(b"", [value], [Column("a", kind)]) for value, kind in values}) == len(values)


def test_minus_zero_is_zero() -> None:
    """The two zeros are equal, so they have one key."""
    assert keys.encode(-0.0, "number") == keys.encode(0.0, "number") != keys.encode(5e-324, "number")


def test_a_moment_has_one_key_in_every_time_zone() -> None:
    """A timestamp with a zone has the key of the same moment in UTC, with a zone or without."""
    local = datetime(2026, 1, 31, 12, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert keys.encode(local, "timestamp") == keys.encode(local.astimezone(UTC), "timestamp")
    assert keys.encode(local, "timestamp") == keys.encode(datetime(2026, 1, 31, 7), "timestamp")  # noqa: DTZ001


def test_keys_stay_what_they_were() -> None:
    """The canonical bytes and the hash are pinned: a change here makes every cache and every version useless."""
    columns = [Column(kind, kind) for kind in get_args(Kind)] + [Column("nothing", "string")]
    moment = datetime(2026, 1, 31, 7, tzinfo=UTC)
    row = ["\u00e9", -7, 1.5, True, date(2026, 1, 31), moment, '{"a":1}', None]
    encoded = b"".join(keys.encode(value, column.kind) for value, column in zip(row, columns, strict=True))
    assert encoded == b's2:\xc3\xa9i-7;f4609434218613702656;b1d2026-01-31;t1769842800000000;j7:{"a":1}n'
    assert keys.row_key(b"\x01" * 16, row, columns).hex() == "31cd059ebab0e5126b916d743a893c61"
    assert keys.row_key(b"", ["a"], [Column("a", "string")]).hex() == "e34d1fb77f49bbb61fc021a215de81cf"


def test_the_fingerprint_is_part_of_a_row_key() -> None:
    """The same row under another question has another key."""
    column = [Column("a", "string")]
    assert len({keys.row_key(prefix, ["x"], column) for prefix in (b"", b"\0" * 16, b"\1" * 16)}) == 3


# The same keys in SQL, over Parquet files as the source reads them.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of a property's files."""
    return tmp_path_factory.mktemp("keys")


ARROW = {
    "string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_(), "date": pa.date32(),
    "timestamp": pa.timestamp("us"), "big": pa.uint64(), "nested": pa.list_(pa.struct({"a": pa.string(), "b": pa.int64()})),
    'we"ird': pa.string(), "it's": pa.float64(),
}  # fmt: skip
nested = st.lists(
    st.none() | st.fixed_dictionaries({"a": st.none() | texts, "b": st.none() | st.integers(-9, 9)}), max_size=3
)
cells: dict[str, st.SearchStrategy[Any]] = {
    "string": texts, "integer": VALUES["integer"], "number": VALUES["number"], "boolean": st.booleans(), "date": st.dates(),
    "timestamp": VALUES["timestamp"], "big": st.integers(0, 2**64 - 1), "nested": nested, 'we"ird': texts, "it's": st.floats(),
}  # fmt: skip
records = st.lists(
    st.fixed_dictionaries({name: st.none() | cell for name, cell in cells.items()}), min_size=1, max_size=20
)


@settings(deadline=None, max_examples=60)
@given(records, st.sampled_from([b"", bytes(range(16))]))
def test_sql_makes_the_same_keys_as_python(folder: Path, rows: list[dict[str, Any]], prefix: bytes) -> None:
    """For every kind of value, null among them, the key made in bulk is the key made of the single row."""
    numbered = [{"id": number, **row} for number, row in enumerate(rows)]
    path = folder / "queries.parquet"
    pq.write_table(pa.Table.from_pylist(numbered, pa.schema({"id": pa.int64(), **ARROW})), path)
    spec = InputSpec(path="queries.parquet", key=["id"], optional=list(ARROW))
    source = Source([path], spec, list(ARROW))
    columns = [Column(name, source.kinds[name]) for name in ARROW]
    assert {column.kind for column in columns} == set(get_args(Kind))
    [batch] = source.batches()
    assert not batch.bad
    in_sql = sql_keys(batch.good, keys.row_key_sql(prefix, columns))
    assert in_sql == [
        keys.row_key(prefix, [_as_source_has_it(row[column.name], column.kind) for column in columns], columns)
        for row in numbered
    ]


def _as_source_has_it(value: Any, kind: Kind) -> Any:
    return keys.canonical_json(value) if kind == "json" and value is not None else value


def sql_keys(table: pa.Table, expression: str) -> list[bytes]:
    """The value of a SQL expression for each row of a table, in order."""
    with duckdb.connect() as db:
        db.register("batch", table)
        return [key for (key,) in db.execute(f'SELECT {expression} FROM batch ORDER BY "{ROW}"').fetchall()]


key_texts = st.text(st.characters(codec="utf-8"), max_size=8).map(lambda text: f" {text}\u00c9x ")


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(st.tuples(key_texts, VALUES["integer"]), min_size=1, max_size=20),
    normalize=st.sets(st.sampled_from(["nfkc", "casefold", "trim"])).map(sorted),
)
def test_what_is_published_is_what_is_looked_up(
    folder: Path, rows: list[tuple[str, int]], normalize: list[str]
) -> None:
    """The lookup key that the plan makes in bulk is the one that a live query gets, whatever is normalized."""
    path = folder / "lookups.parquet"
    pq.write_table(pa.table({"term": [term for term, _ in rows], "number": [number for _, number in rows]}), path)
    spec = InputSpec.model_validate({"path": "lookups.parquet", "key": ["term", "number"], "normalize": normalize})
    source = Source([path], spec, [])
    with scratch_plan(fresh(folder), source, []) as plan:
        plan.load(b"\0" * 16)
        planned = [lookup for (lookup,) in plan.db.execute("SELECT lookup FROM list").fetchall()]
    assert sorted(planned) == sorted(keys.lookup_key(row, source.key, normalize) for row in rows)


def fresh(folder: Path) -> Path:
    """A new folder below this one."""
    made = folder / f"plan-{len(list(folder.iterdir()))}"
    made.mkdir()
    return made


def test_columns_that_the_template_does_not_use_change_no_key(tmp_path: Path) -> None:
    """Rows that differ only in columns outside the template, the lookup key's among them, are one prompt."""
    table = {"id": [1, 2, 3], "fruit": ["peach", "peach", "pear"], "note": ["sweet", "sour", None]}
    pq.write_table(pa.table(table), tmp_path / "queries.parquet")
    template = PromptTemplate(PromptSpec(template="{{ fruit }}:"), [], "job.yaml")
    source = Source([tmp_path / "queries.parquet"], InputSpec(path="queries.parquet", key=["id"]), template.columns)
    with scratch_plan(fresh(tmp_path), source, template.columns) as plan:
        plan.load(b"\0" * 16)
        found = [key for (key,) in plan.db.execute("SELECT key FROM list").fetchall()]
    column = [Column("fruit", "string")]
    peach, pear = (keys.row_key(b"\0" * 16, [fruit], column) for fruit in ("peach", "pear"))
    assert sorted(found) == sorted([peach, peach, pear])


# Normalization, texts, differences.


@given(st.text(st.characters(codec="utf-8")), st.sets(st.sampled_from(["nfkc", "casefold", "trim"])))
def test_normalizing_twice_is_normalizing_once(text: str, steps: set[str]) -> None:
    """A key that was normalized when it was published stays as it is when it is looked up."""
    once = keys.normalized(text, sorted(steps))
    assert keys.normalized(once, sorted(steps)) == once


@pytest.mark.parametrize(
    ("text", "steps", "normal"),
    [
        (" A\u0301\uff21 ", [], " A\u0301\uff21 "),
        (" A\u0301\uff21 ", ["nfkc"], " \u00c1A "),
        (" A\u0301\uff21 ", ["trim"], "A\u0301\uff21"),
        (" A\u0301\uff21 ", ["trim", "casefold", "nfkc"], "\u00e1a"),
        ("STRASSE", ["casefold"], "strasse"),
        ("Stra\u00dfe", ["casefold"], "strasse"),
        ("\u0390", ["nfkc", "casefold"], "\u0390"),  # case folding takes it apart, the normal form puts it together
    ],
)
def test_normalizing_does_what_its_steps_say(text: str, steps: list[str], normal: str) -> None:
    """Each step does its own thing, in a fixed order, and none that was not asked for."""
    assert keys.normalized(text, steps) == normal


def test_only_texts_are_normalized() -> None:
    """A key of another kind passes through the steps untouched."""
    columns = [Column("term", "string"), Column("number", "integer")]
    assert keys.lookup_key([" A ", 7], columns, ["trim", "casefold"]) == keys.lookup_key(["a", 7], columns, [])


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("12", "integer", 12),
        ("-0.5", "number", -0.5),
        ("TRUE", "boolean", True),
        ("false", "boolean", False),
        ("2026-01-31", "date", date(2026, 1, 31)),
        ("2026-01-31T07:00:00Z", "timestamp", datetime(2026, 1, 31, 7, tzinfo=UTC)),
        ('{"a": [1]}', "json", {"a": [1]}),
        (" 12 ", "string", " 12 "),
        ("", "string", ""),
    ],
)
def test_a_text_becomes_a_value_of_its_column(text: str, kind: Kind, value: Any) -> None:
    """COLUMN=VALUE is read as the column's kind, and a text is taken as it is."""
    found = typed(text, Column("a", kind))
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1.5", "integer"), ("twelve", "integer"), ("", "integer"), ("1,5", "number"), ("yes", "boolean"), ("1", "boolean"),
        ("31.1.2026", "date"), ("2026-02-30", "date"), ("noon", "timestamp"), ("{a: 1}", "json"), ("\udcff", "string"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_value_of_its_column_is_refused(text: str, kind: Kind) -> None:
    """The sentence names the column, what was said, and the kind that the column holds."""
    with pytest.raises(UsageError) as caught:
        typed(text, Column("size", kind))
    said = text.encode(errors="replace").decode()  # a sentence that can be written anywhere
    assert str(caught.value) == f"size={said} is not a valid {kind}."


@given(st.sampled_from(["string", "integer", "number", "boolean", "date", "timestamp"]).flatmap(
    lambda kind: st.tuples(st.just(kind), VALUES[kind])  # type: ignore[index]
))  # fmt: skip
def test_a_value_survives_being_written_as_a_text(value: tuple[Kind, Any]) -> None:
    """A key value written as Python writes it is looked up under the same key."""
    kind, held = value
    text = held.isoformat() if kind in ("date", "timestamp") else str(held)
    assert keys.encode(typed(text, Column("a", kind)), kind) == keys.encode(held, kind)


def test_changes_name_the_places_that_differ() -> None:
    """Each place that was changed, added or removed is named once, with its dots; equal ones are not."""
    before = {
        "prompt": {"template": "a", "system": None, "examples": [[{"x": 1}, "y"]]},
        "model": {"dtype": "auto"},
        "sampling": None,
    }
    after = {
        "prompt": {"template": "b", "system": None, "examples": []},
        "model": {"dtype": "auto", "seed": 1},
        "sampling": {"top_k": 1},
    }
    assert changes(before, after) == ["model.seed", "prompt.examples", "prompt.template", "sampling"]
    assert changes(before, before) == []


@pytest.mark.parametrize("path", [path for path in LEAVES if not is_in_no_key(path)], ids=".".join)
def test_a_changed_fingerprint_can_be_explained(path: Path_) -> None:
    """Whatever field changes the fingerprint, its place is what the person is told, also after the parts were stored."""
    shown = [(example["input"], example["output"]) for example in PLAIN["prompt"]["examples"]]
    changed = with_other(PLAIN, path)
    shown_then = [(example["input"], example["output"]) for example in changed["prompt"]["examples"]]
    stored = json.loads(keys.canonical_json(answer_parts(PLAIN, shown, "weights", None)))
    assert changes(stored, answer_parts(changed, shown_then, "weights", None)) == [".".join(path)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_canonical_json_loses_nothing(value: Any) -> None:
    """What was written can be read again as it was, so two different settings never share a text."""
    assert repr(_sorted(json.loads(keys.canonical_json(value)))) == repr(_sorted(value))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
