"""Fingerprints: every field that may change an answer is in them, and no other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.core import keys
from batchinfer.job.spec import JobSpec
from batchinfer.planning import question
from batchinfer.planning.fingerprint import answer_parts, changes, fingerprint, parser_fingerprint
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
        "cascade": {"large": {"id": "org/large"}},
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
    "cost": {"per_gpu_hour": 2.5},
    "alerts": [{"on": ["failed"], "command": ["page"]}],
    "keep_versions": 3,
}  # fmt: skip

# Written out, not taken from keys.py: whoever adds a setting to the deny-list has to say so here as well.
IN_NO_KEY: set[Path_] = {
    ("name",), ("description",), ("input",), ("engine",), ("on_failure",), ("cache",), ("gate",), ("match",), ("serve",),
    ("schedule",), ("alerts",), ("keep_versions",), ("on_errors",), ("eval",), ("calibrate",), ("student",), ("finetune",), ("audit",),
    ("cost",),
    ("output", "steps"), ("output", "min_mass"), ("output", "prior"),  # how an answer is read
    ("prompt", "shots"),  # the examples that are shown are in the key themselves
    ("model", "cascade"),  # which model is asked, not what it says
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


def test_speculation_that_changes_nothing_leaves_the_fingerprint() -> None:
    """N-grams of the prompt only guess what the model is asked anyway; a draft model may have other ideas."""
    ngram = {"method": "ngram", "num_speculative_tokens": 4}
    assert fingerprint_of(with_option("speculative_config", ngram)) == fingerprint_of(PLAIN)
    for other in ({"method": "eagle", "model": "draft"}, {"model": "draft"}, "ngram"):
        assert fingerprint_of(with_option("speculative_config", other)) != fingerprint_of(PLAIN)


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


def test_how_choices_are_scored_is_in_the_key() -> None:
    """Scores by length are other scores; a job that says nothing of it has the key that such jobs always had."""
    parts = answer_parts(CHOICE, [], "w", None)
    assert parts["scoring"] == "first-token"
    bare = {**CHOICE, "output": {name: value for name, value in CHOICE["output"].items() if value is not None}}
    bare["output"].pop("normalize")
    assert fingerprint(answer_parts(bare, [], "w", None)).hex() == "6be00675aa4f18958ea8bef3c9d7493a"
    by_length = [{**CHOICE, "output": {**CHOICE["output"], "normalize": unit}} for unit in ("tokens", "characters")]
    assert len({fingerprint_of(CHOICE), *map(fingerprint_of, by_length)}) == 3
    assert answer_parts(by_length[0], [], "w", None)["scoring"] == "whole-choices"


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
    "output": {
        "type": "text", "schema": None, "choices": None, "pattern": None, "text": None, "normalize": "none", "steps": [],
        "min_mass": None,
    },
}  # fmt: skip
BARE = {
    "name": "bare",
    "input": {"path": "q.parquet", "key": ["text"]},
    "prompt": {"template": "{{ text }}"},
    "model": {"id": "org/name"},
}


def question_of(folder: Path, **sections: Any) -> question.Question:
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
    one = question_of(tmp_path / "one")
    written = {name: dict(fields) for name, fields in DEFAULTS.items()}
    written["prompt"]["template"], written["model"]["id"] = "{{ text }}", "./model"
    two = question_of(tmp_path / "two", **written)
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
    assert question_of(tmp_path / "one").fingerprint != question_of(tmp_path / "two", **sections).fingerprint


@pytest.mark.parametrize("output", [{"steps": ["strip"]}, {"type": "regex", "pattern": "x"}])
def test_an_output_section_that_leaves_its_defaults_is_read_anew(tmp_path: Path, output: dict[str, Any]) -> None:
    """Steps that were added change how answers are read."""
    assert question_of(tmp_path / "one").parser_id != question_of(tmp_path / "two", output=output).parser_id


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
    assert parser_fingerprint(bare.output.beyond_defaults()) == "213945f77af2a51e46e3cac3ea853324"
    assert parser_fingerprint(spec.output.beyond_defaults()) == "6eb0c394b7c3a93616b461358f6077b1"


# Differences.


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
