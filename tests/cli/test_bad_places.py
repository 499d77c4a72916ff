"""Models, engines and data folders that cannot be used, told in a sentence by every command that meets them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchinfer.cache.store import Store
from batchinfer.core.home import JobData
from batchinfer.engines.grammars import Constraint
from batchinfer.engines.pool import VLLM_DRIVER
from batchinfer.versions.folders import folder_of
from tests.cli.conftest import ECHO
from tests.factories import LENIENT
from tests.tiny import Cli, Done, model_folder, token, write_job

# --- bad input: the model


BAD_MODELS = {
    "./gone": "model.id: there is no model in",
    "/nowhere/at/all": "model.id: there is no model in /nowhere/at/all: a model folder holds config.json, weights and a tokenizer.",
    "bundled/gpt-9": "model.id: there is no model bundled/gpt-9: the only bundled one is bundled/smollm2-135m-instruct.",
    "no/such-model-of-anyone": "model.id: the model no/such-model-of-anyone is not on this machine, and no model hub can be reached",
    "not a model!": "model.id: there is no model not a model!: that is neither a folder nor a hub id such as org/name.",
}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("model", BAD_MODELS)
def test_a_model_that_does_not_exist(batchinfer: Cli, shop: Callable[..., Path], model: str, command: str) -> None:
    """A model that cannot be found is named, with what to check, and exit code 2."""
    shop(model={"id": model})
    done = batchinfer(command, "shop")
    assert done.code == 2, done.err
    assert BAD_MODELS[model] in done.sentence
    assert re.match(r"/.*/jobs/shop/job\.yaml: line \d+: model\.id: ", done.sentence)


def test_a_hub_that_cannot_be_reached(
    batchinfer: Cli, shop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the network is the fault, and the hub's client raises whatever it does then, one sentence says so."""
    import huggingface_hub

    class Unreachable(Exception):
        """No child of OSError, as those of httpx are."""

    def model_info(*_: object, **__: object) -> None:
        raise Unreachable

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    shop(model={"id": "no/such-model-of-anyone"})
    assert "no model hub can be reached" in batchinfer("plan", "shop").sentence


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", "{"),
        ("tokenizer_config.json", "{"),
        ("config.json", "{"),
        ("config.json", "null"),
        ("config.json", "[" * 100_000),
        ("config.json", "{}"),
    ],
)
@pytest.mark.long
def test_a_model_folder_that_is_damaged(
    batchinfer: Cli, shop: Callable[..., Path], tmp_path: Path, file: str, content: str | None
) -> None:
    """A model folder without a tokenizer, or with a broken file, is refused in a sentence; or it does without the file."""
    folder = model_folder(tmp_path / "model")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content, encoding="utf-8")
    shop(model={"id": str(folder)})
    done = batchinfer("plan", "shop")
    if (file, content) == ("config.json", "{}"):
        assert done.code in (0, 2)
    else:
        assert done.code == 2, done.err
    if done.code:
        assert done.sentence.startswith(f"The tokenizer of {folder} cannot be loaded: ")


def test_a_model_that_is_no_text_generator(batchinfer: Cli, shop: Callable[..., Path], tmp_path: Path) -> None:
    """What the engine says of a model that it cannot use is the command's last sentence, with exit code 2."""
    sentence = "vLLM could not load it: this model does not support text generation."
    shop(script={"loads": [sentence], "diary": str(tmp_path / "diary")})
    done = batchinfer("run", "shop")
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith(f"batchinfer: {sentence} What the engine printed is in ")


@pytest.mark.parametrize("command", ["plan", "run"])
def test_choices_that_are_the_same_tokens(
    batchinfer: Cli, shop: Callable[..., Path], tmp_path: Path, command: str
) -> None:
    """Choices that the model cannot tell apart are refused with the line, by plan already."""
    folding = model_folder(tmp_path / "folding", folds_case=True)
    folder = shop(model={"id": str(folding)}, output={"type": "choice", "choices": ["yes", "Us", "US"]})
    done = batchinfer(command, "shop")
    assert done.code == 2
    last = done.err.splitlines()[-1]
    lines = (folder / "job.yaml").read_text().splitlines()
    assert last == (
        f"  line {lines.index('  choices:') + 1}: output.choices: Us and US are the same tokens for this model: take other words."
    )


def test_a_plan_says_what_whole_choices_cost(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Where first tokens collide, plan names them, and counts a request for each choice of each prompt."""
    shop(output={"type": "choice", "choices": ["Positive", "Perhaps", "No"]})
    done = batchinfer("plan", "shop")
    assert done.code == 0
    assert "Positive and Perhaps begin with 'P'" in done.out
    plan = batchinfer("plan", "shop", "--json").json
    assert plan["scoring"] == {"requests": 3, "whole": True, "collisions": ["Positive and Perhaps begin with 'P'"]}
    shop(output={"type": "choice", "choices": ["Positive", "No"]})
    short = batchinfer("plan", "shop", "--json").json
    assert short["scoring"] == {"requests": 1, "whole": False, "collisions": []}
    prompts = short["prompt_tokens"]
    assert plan["prompt_tokens"] == 3 * prompts + plan["unique"] * len("PositivePerhapsNo")


def problems(done: Done, folder: Path) -> list[str]:
    """Those of the job file, with their lines."""
    found = done.json["error"]["problems"]
    assert {problem["file"] for problem in found} == {str(folder / "job.yaml")}
    return [f"line {problem['line']}: {problem['message']}" for problem in found]


@pytest.mark.parametrize("command", [["plan", "shop"], ["run", "shop"], ["try", "shop", "text=one"]])
def test_settings_that_vllm_does_not_have(
    batchinfer: Cli, shop: Callable[..., Path], tiny: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Unknown engine options and methods, and bad values, are refused before the model is loaded, each with line and hint."""
    monkeypatch.setattr("batchinfer.engines.vllm_source.engine_options", lambda: frozenset({"max_model_len", "seed"}))
    monkeypatch.setattr("batchinfer.engines.vllm_source.quantization_methods", lambda: frozenset({"awq", "fp8"}))
    model = {"id": str(tiny), "quantization": "fp9", "options": {"seed": "one", "max_modl_len": 512, "xyzzy": True}}
    folder = shop(model=model)
    done = batchinfer(*command, "--json")
    assert done.code == 2
    lines = (folder / "job.yaml").read_text().splitlines()
    where = {
        name: next(n for n, line in enumerate(lines, 1) if name in line)
        for name in ("fp9", "seed", "max_modl_len", "xyzzy")
    }
    methods, options = "vLLM has no quantisation method", "vLLM has no engine option"
    assert problems(done, folder) == [
        f"line {where['fp9']}: model.quantization: {methods} fp9; did you mean fp8?",
        f"line {where['seed']}: model.options.seed: input should be a valid integer, unable to parse string as an integer (it is 'one').",
        f"line {where['max_modl_len']}: model.options.max_modl_len: {options} max_modl_len; did you mean max_model_len?",
        f"line {where['xyzzy']}: model.options.xyzzy: {options} xyzzy: remove it, or look up its name in vLLM's documentation.",
    ]
    if batchinfer.data.exists():
        assert batchinfer("runs", "shop").code == 6


@pytest.mark.parametrize("command", [["plan", "shop"], ["run", "shop"], ["try", "shop", "text=one"]])
def test_a_pattern_that_vllm_cannot_follow(
    batchinfer: Cli, shop: Callable[..., Path], tiny: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """It is refused with line and reason before the model is loaded."""
    monkeypatch.setattr(
        "batchinfer.engines.grammars.followed_elsewhere", lambda kind, text, _: Constraint(text, refusal=f"{kind} no")
    )
    folder = shop(model={"id": str(tiny)}, output={"type": "regex", "pattern": "(?i)yes|no"})
    done = batchinfer(*command, "--json")
    assert done.code == 2
    line = (folder / "job.yaml").read_text().splitlines().index("  pattern: (?i)yes|no") + 1
    assert problems(done, folder) == [f"line {line}: output.pattern: regex no"]


@pytest.mark.long
def test_keywords_that_vllm_cannot_follow(batchinfer: Cli, shop: Callable[..., Path], tiny: Path) -> None:
    """Plan names those that answers are checked for only once they are there, and examples that the model could not write."""
    schema = {"type": "array", "items": {"type": "string", "pattern": "^[A-Z]+$", "maxLength": 9}, "uniqueItems": True}
    shop(
        model={"id": str(tiny)},
        output={
            "type": "json",
            "schema": {"type": "object", "properties": {"a": schema, "b": {"type": "string", "maxLength": 9}}},
        },
        prompt={
            "template": "{{ text }}",
            "examples": [
                {"input": {"text": "x"}, "output": text} for text in ('{"b": "x", "a": ["A", "B"]}', '{"b": "\\"x"}')
            ],
        },
    )
    done = batchinfer("plan", "shop")
    assert done.code == 0
    assert "prompt.examples, number 2: vLLM would not let a model that is held to output.schema write this" in done.err
    left_out = "properties.a.uniqueItems, properties.a.items.maxLength"
    assert f"output.schema: vLLM cannot hold the model to {left_out}: answers are checked" in done.err


@pytest.mark.parametrize("command", [["plan", "shop"], ["run", "shop"], ["try", "shop", "text=one"]])
def test_an_adapter_that_will_not_load(
    batchinfer: Cli, shop: Callable[..., Path], tiny: Path, command: list[str]
) -> None:
    """What its files say is known before the model is loaded, with the line of the job file."""
    folder = shop(model={"id": str(tiny), "options": ECHO, "adapter": "adapter"})
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text('{"r": 8, "lora_alpha": 16, "use_dora": true}')
    done = batchinfer(*command, "--json")
    assert done.code == 2
    [first, second] = problems(done, folder)
    assert first.endswith("it has use_dora, which vLLM does not support: save it as a plain LoRA adapter.")
    assert second.endswith("has no weights: there is no adapter_model.safetensors in it.")
    assert " model.adapter: " in first
    assert "Loading the model" not in done.err


@pytest.mark.long
def test_what_needs_no_model_is_not_held_up(batchinfer: Cli, ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all is cached no model is loaded, so a newer vLLM without an option is in nobody's way."""
    monkeypatch.setattr("batchinfer.engines.vllm_source.engine_options", lambda: frozenset({"seed"}))
    assert batchinfer("plan", "shop").code == 0
    assert batchinfer("run", "shop").code == 0


# --- no vLLM


@pytest.mark.parametrize("package", ["transformers", "huggingface_hub"])
def test_without_the_extra(
    batchinfer: Cli, shop: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """Without the extra, what needs a model names it; what does not need one goes on."""
    model = {} if package == "transformers" else {"model": {"id": "Qwen/Qwen3-8B"}}
    shop(**model)
    monkeypatch.setitem(sys.modules, package, None)
    for command in ("plan", "run"):
        done = batchinfer(command, "shop")
        assert done.code == 2, done.err
        last = done.err.splitlines()[-1]
        assert f"{package}, with which a " in last
        assert " is not installed: pip install 'batchinfer-cache[vllm]' on a machine with a GPU" in last
        assert "'batchinfer-cache[cpu]'" in last
    shop(None, model=None, prompt=None)
    assert batchinfer("plan", "shop").code == 0


def test_without_vllm_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shop: Callable[..., Path],
) -> None:
    """Where transformers are installed but vLLM is not, the engine's process says which extra is missing."""
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "vllm.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'vllm'\", name='vllm')", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(absent)
    monkeypatch.chdir(tmp_path)
    shop(script={})
    done = Cli(monkeypatch, capsys, tmp_path / "home", driver=VLLM_DRIVER)("run", "shop")
    assert done.code == 2
    assert "pip install 'batchinfer-cache[vllm]'" in done.err.splitlines()[-1]


# --- bad input: the data folder


def test_a_cache_of_a_newer_version(batchinfer: Cli, ran: Path) -> None:
    """A cache that a newer batchinfer wrote is refused by all that would open it, and left as it is."""
    data = JobData(batchinfer.data, "shop")
    with Store(data.cache).open(write=True) as db:
        db.execute("INSERT INTO migrations VALUES (99, 'from the future', now()::TIMESTAMP)")
    before = data.cache.read_bytes()
    for command in ("plan", "run", "publish", "runs", "failures"):
        done = batchinfer(command, "shop")
        assert done.code == 1, done.err
        assert "The cache was written by a newer batchinfer" in done.sentence
    assert data.cache.read_bytes() == before
    assert batchinfer("lookup", "shop", "text=one").code == 0


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 1000])
@pytest.mark.long
def test_a_cache_that_is_no_database(batchinfer: Cli, shop: Callable[..., Path], content: bytes) -> None:
    """A file in the cache's place that is no database is said, and left as it is."""
    shop()
    batchinfer("run", "shop", "--limit", "1")
    cache = JobData(batchinfer.data, "shop").cache
    cache.write_bytes(content)
    done = batchinfer("run", "shop")
    assert done.code == 1
    assert str(cache) in done.sentence
    assert cache.read_bytes() == content


def test_two_jobs_of_one_name(batchinfer: Cli, shop: Callable[..., Path], tmp_path: Path, tiny: Path) -> None:
    """A second job file of a name that the data folder knows is refused; it would share the cache."""
    shop()
    batchinfer("run", "shop")
    write_job(tmp_path / "other", {"text": ["a"]}, tiny, script=ECHO, name="shop")
    for command in ("plan", "run"):
        done = batchinfer(command, "other")
        assert done.code == 2
        assert f"The name shop belongs to {tmp_path / 'jobs/shop/job.yaml'}" in done.sentence


def test_a_damaged_version_is_said(batchinfer: Cli, ran: Path) -> None:
    """A version whose files were tampered with is not served as if it were whole."""
    folder = folder_of(JobData(batchinfer.data, "shop"), 1)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"shop"', '"shpo"'), encoding="utf-8")
    done: Done = batchinfer("lookup", "shop", "text=one")
    assert (done.code, "its checksum differs" in done.sentence) == (1, True)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ({"text": ["one"]}, "has no column prediction: it has text."),
        ({"txt": ["one"], "prediction": ["1"]}, "has no column text: did you mean txt?"),
        ({"text": ["one", "one"], "prediction": ["1", "2"]}, "has two predictions for text=one: keep one"),
        ({"text": ["one", None], "prediction": ["1", "2"]}, "The column text is null. Nothing was imported."),
        ({"text": ["one", "two"], "prediction": ["1", None]}, "The prediction of text=two is null"),
        ({"text": [1], "prediction": ["1"]}, "The column text holds integer values, but the job's list has string"),
    ],
)
def test_an_import_that_is_off(
    batchinfer: Cli, shop: Callable[..., Path], rows: dict[str, list[Any]], sentence: str
) -> None:
    """A file of predictions with one fault in it is refused as a whole, with a sentence and exit code 2."""
    shop()
    pq.write_table(pa.table(rows), "in.parquet")
    done = batchinfer("import", "shop", "in.parquet")
    assert done.code == 2, done.err
    assert sentence in done.sentence
    assert batchinfer("import", "shop", "--list").code == 6  # the job is not even there


REVIEW = {"text": ["one"], "value": ["x"], "check": ["y"], "corrected": [None], "author": [None], "comment": [None]}


@pytest.mark.parametrize("command", ["run", "publish"])
@pytest.mark.parametrize(
    "sections", [{"model": {"id": "./gone"}}, {"gate": {"golden": {"path": "bad.parquet"}}}], ids=["model", "golden"]
)
def test_a_first_command_that_is_refused_leaves_no_job(
    batchinfer: Cli, shop: Callable[..., Path], sections: dict[str, Any], command: str
) -> None:
    """Neither a folder, nor a name among the jobs: of a missing model, of golden rows without answers."""
    place = shop(**sections)
    pq.write_table(pa.table({"text": ["one"]}), place / "bad.parquet")
    assert batchinfer(command, "shop").code == 2
    assert not (batchinfer.data / "shop").exists()
    assert batchinfer("jobs").code == 6


@pytest.mark.parametrize(("verdict", "code"), [("perhaps", 2), (None, 0)])
def test_a_review_of_which_nothing_was_imported_leaves_no_job(
    batchinfer: Cli, shop: Callable[..., Path], verdict: str | None, code: int
) -> None:
    """A refused one, and one in which nobody judged anything."""
    shop()
    table = pa.table(REVIEW | {"job": ["shop"], "verdict": pa.array([verdict], pa.string())})
    pq.write_table(table, "review.parquet")
    done = batchinfer("import", "shop", "review.parquet")
    assert done.code == code, done.err
    assert not (batchinfer.data / "shop").exists()


def test_text_of_the_world_reaches_the_terminal(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """Emoji, right-to-left and combining characters come back from lookup byte for byte."""
    texts = ["👩‍🚀", "שלום", "e\u0301", "n\u0303 ñ", 'quote " and \\', "a\nb"]
    shop({"text": texts})
    batchinfer("run", "shop")
    for text in texts:
        assert batchinfer("lookup", "shop", f"text={text}", "--json").json["prediction"] == text


@pytest.mark.long
def test_output_that_nobody_reads_to_its_end(batchinfer: Cli, shop: Callable[..., Path]) -> None:
    """A reader that goes away, as head does, gets no traceback into its terminal."""
    shop(
        {"text": [f"row {number}" for number in range(2000)]},
        script=ECHO | {"refuse": [token("r")], "in_flight": 500},
        gate=LENIENT,
    )
    batchinfer("run", "shop")
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m batchinfer failures jobs/shop --json | head -c 10"],
        capture_output=True, text=True, check=False, env={"BATCHINFER_HOME": str(batchinfer.data), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout == json.dumps(batchinfer("failures", "shop", "--json").json, ensure_ascii=False)[:10]
    assert done.stderr == ""
