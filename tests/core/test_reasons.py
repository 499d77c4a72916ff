"""The list of reasons why rows have no prediction."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from batchinfer.core.reasons import ALL_AGAIN, FIXES, PASSING, FailureReason, advice, ranked
from batchinfer.job.spec import JobSpec
from batchinfer.planning.fingerprint import NOT_IN_KEY, OPTIONS_NOT_IN_KEY, OUTPUT_NOT_IN_KEY

SOURCES = Path(__file__).parents[2] / "batchinfer"
MAKERS = {"Failure": 2, "ParseFailed": 0, "BrokenRule": 0, "add_where": 1, "add": 1}  # which argument is the reason


def made() -> set[str]:
    """Every reason that the code gives, as it is written there; of an f-string what may stand in its gap."""
    found = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            place = MAKERS.get(name)
            if place is None or len(node.args) <= place:
                continue
            reason = node.args[place]
            if isinstance(reason, ast.Constant) and isinstance(reason.value, str):
                found.add(reason.value)
            elif isinstance(reason, ast.JoinedStr):
                found |= {f"{reason.values[0].value}{part}" for part in ("key", "value")}  # type: ignore[attr-defined]
    sql = (SOURCES / "inputs" / "query_list.py").read_text(encoding="utf-8")
    return found | set(re.findall(r"'(\w+)' AS reason", sql))


def test_every_reason_says_what_mends_it() -> None:
    """The code gives no reason that the list lacks, and the list has none that the code never gives."""
    assert made() == set(FIXES)
    assert set(FIXES) >= PASSING


def test_the_settings_that_are_named_exist() -> None:
    """A fix names fields of the job file as they are called there."""
    sections = JobSpec.model_fields
    named = {word for fix in FIXES.values() for word in re.findall(r"\b([a-z_]+)\.[a-z_]+", fix)}
    assert named <= set(sections)
    fields = {
        pair for fix in FIXES.values() for pair in re.findall(r"\b(sampling|input|output|prompt)\.([a-z_]+)", fix)
    }
    schema = JobSpec.model_json_schema(by_alias=True)["$defs"]
    specs = {"sampling": "SamplingSpec", "input": "InputSpec", "output": "OutputSpec", "prompt": "PromptSpec"}
    assert all(name in schema[specs[section]]["properties"] for section, name in fields)


def test_advice_is_about_the_most_frequent_reason() -> None:
    """It has the share, what to change, and where the rows are."""
    reasons = ranked({"refused": 9, "cut_off": 620})
    assert advice("shop", reasons) == (
        "Most often cut_off (620 of 629): raise sampling.max_tokens or model.options.max_model_len (this regenerates "
        "every answer); "
        "batchinfer failures shop shows the rows."
    )
    assert advice("shop", ranked({"empty": 2})).startswith("Most often empty (all 2): ")
    assert advice("shop", ranked({"cut_off": 1})).startswith("The reason is cut_off: raise sampling.max_tokens")


def in_key(setting: str) -> bool:
    """Whether a change of the setting asks every row again."""
    section, name = setting.split(".", 1)
    left_out = {"output": OUTPUT_NOT_IN_KEY, "model": {f"options.{option}" for option in OPTIONS_NOT_IN_KEY}}
    return section not in NOT_IN_KEY and name not in left_out.get(section, ())


def test_what_regenerates_every_answer_says_so() -> None:
    """A fix that names a setting of the key has its price beside it, and no other has; what is free comes first."""
    for fix in FIXES.values():
        settings = re.findall(r"\b[a-z]+\.[a-z_.]+[a-z]", fix)
        assert fix.endswith(ALL_AGAIN) == any(map(in_key, settings)), fix
        free = [at for at, setting in enumerate(settings) if not in_key(setting)]
        assert free == [*range(len(free))], fix


def test_an_unknown_reason_is_no_error() -> None:
    """A cache may hold a reason of a newer program."""
    assert FailureReason("of_later", 1).fix == "see what happened to each row"
