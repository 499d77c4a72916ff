"""The real engine: vLLM on CPU in a process of its own, with the bundled model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchinfer.core.records import Continuation, Failure, Generation, Prompt
from batchinfer.engines.devices import place_here
from batchinfer.engines.pool import EnginePool
from batchinfer.engines.protocol import EngineConfig, Task
from batchinfer.engines.tokenizer import Tokenizer
from batchinfer.errors import ModelError
from tests.conftest import WINDOW, EngineSlot

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenizer(model_folder: Path) -> Tokenizer:
    """The bundled model's tokenizer."""
    return Tokenizer(str(model_folder), None, {})


def prompts(tokenizer: Tokenizer, texts: list[str]) -> list[Prompt]:
    """Chat prompts whose keys are their numbers."""
    messages = [(("user", text),) for text in texts]
    ids = tokenizer.encode([tokenizer.text(turns) for turns in messages], chat=True)
    return [
        Prompt(number.to_bytes(16, "big"), turns, tuple(row))
        for number, (turns, row) in enumerate(zip(messages, ids, strict=True))
    ]


def number(result: Generation | Failure) -> int:
    """Which prompt a result is of."""
    return int.from_bytes(result.prompt_key or b"", "big")


def test_every_prompt_is_answered_once_as_it_finishes(engine: EnginePool, tokenizer: Tokenizer) -> None:
    """More prompts than fit in flight all come back, matched by key, the short answers not waiting for the long ones."""
    asked = prompts(tokenizer, [f"Count to {i}." for i in range(300)])
    results = list(engine.generate(Task({"temperature": 0.0, "max_tokens": 4}), iter(asked)))
    assert sorted(number(result) for result in results) == list(range(300))
    assert all(isinstance(result, Generation) and result.output_tokens <= 4 for result in results)


def test_one_bad_row_fails_alone(engine: EnginePool, tokenizer: Tokenizer) -> None:
    """A prompt that vLLM refuses is a failure in words; those beside it are answered."""
    asked = prompts(tokenizer, ["One.", "Two.", "Three."])
    asked[1] = Prompt(asked[1].prompt_key, asked[1].messages, tuple(range(1, WINDOW + 50)))
    results = {number(result): result for result in engine.generate(Task({"max_tokens": 4}), asked)}
    assert isinstance(results[1], Failure)
    assert results[1].reason == "refused"
    assert str(WINDOW) in results[1].detail
    assert isinstance(results[0], Generation)
    assert isinstance(results[2], Generation)


def test_a_shared_prefix_is_computed_once(engine: EnginePool, tokenizer: Tokenizer) -> None:
    """Prompts that begin alike get their common blocks from the prefix cache, and say how much."""
    start = "You are asked about a word in a long list of words. " * 8
    asked = prompts(tokenizer, [f"{start} The word is {word}." for word in ("one", "two", "three", "four")])
    first, *rest = engine.generate(Task({"max_tokens": 1}), asked[:1])
    assert not rest
    later = [result for result in engine.generate(Task({"max_tokens": 1}), asked[1:]) if isinstance(result, Generation)]
    assert len(later) == 3
    assert isinstance(first, Generation)
    assert all(result.cached_tokens >= 64 for result in later)


def test_json_obeys_its_schema_without_white_space(engine: EnginePool, tokenizer: Tokenizer) -> None:
    """The engine is made to write JSON of the schema, compactly, also where the schema has keywords xgrammar refuses."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "names": {
                "type": "array",
                "items": {"type": "string", "maxLength": 12},
                "minItems": 2,
                "maxItems": 3,
                "uniqueItems": True,
            }
        },
        "required": ["names"],
        "additionalProperties": False,
    }
    asked = prompts(tokenizer, ["Name two colours as JSON.", "Name two animals as JSON."])
    task = Task({"temperature": 0.0, "max_tokens": 100}, constraint=("json", schema))
    for result in engine.generate(task, asked):
        assert isinstance(result, Generation)
        value = json.loads(result.text)
        assert 2 <= len(value["names"]) <= 3
        assert result.text == json.dumps(value, separators=(",", ":"), ensure_ascii=False) or "\\" in result.text


def test_regex_is_obeyed(engine: EnginePool, tokenizer: Tokenizer) -> None:
    """With a pattern the whole answer matches it."""
    task = Task({"temperature": 0.0, "max_tokens": 20}, constraint=("regex", "[0-9]{4}"))
    [result] = engine.generate(task, prompts(tokenizer, ["In which year did the Second World War end?"]))
    assert isinstance(result, Generation)
    assert len(result.text) == 4
    assert result.text.isdigit()


def test_the_log_is_in_the_file(engine: EnginePool, engine_slot: EngineSlot, capfd: pytest.CaptureFixture[str]) -> None:
    """The chatter of vLLM goes to the log file and not to the terminal."""
    assert "vllm" in (engine_slot._logs / "engine.log").read_text(encoding="utf-8").lower()
    assert "vllm" not in "".join(capfd.readouterr()).lower()


def test_a_model_that_is_no_text_generator_is_refused_in_words(
    tmp_path: Path, engine_slot: EngineSlot, model_folder: Path
) -> None:
    """An encoder ends with one sentence that names the model, and nothing hangs."""
    engine_slot.close()
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (encoder / file).write_bytes((model_folder / file).read_bytes())
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 64, "vocab_size": 49152, "max_position_embeddings": 128,
    }  # fmt: skip
    (encoder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with (
        EnginePool(EngineConfig(str(encoder)), place_here("auto", 1), tmp_path / "log") as pool,
        pytest.raises(ModelError, match="encoder"),
    ):
        pool.wait_ready()


def test_two_replicas_on_cpu_share_the_work(engine_slot: EngineSlot, tokenizer: Tokenizer) -> None:
    """Two engine processes, each on its own core, are fed from one queue and answer everything once."""
    pool = engine_slot.get(replicas=2)
    asked = prompts(tokenizer, [f"Say {i}." for i in range(600)])
    seen = []
    shares = [0, 0]
    for result in pool.generate(Task({"temperature": 0.0, "max_tokens": 2}), iter(asked)):
        seen.append(number(result))
        for index, member in enumerate(pool._members):
            shares[index] = max(shares[index], len(member.prompts))
    assert sorted(seen) == list(range(600))
    assert all(share > 0 for share in shares)


def test_an_adapter_changes_the_answers(engine_slot: EngineSlot, tokenizer: Tokenizer, adapter: Path) -> None:
    """A LoRA adapter is loaded from its folder, and the scores differ from those without it."""
    pool = engine_slot.get(adapter=str(adapter))
    asked = prompts(tokenizer, ["I love it."])
    tokens = tuple(ids[0] for ids in tokenizer.in_place(["Positive", "Negative"], chat=True))
    [plain] = pool.generate(Task({}, score_tokens=tokens), asked)
    [adapted] = pool.generate(Task({}, score_tokens=tokens, adapter=str(adapter)), asked)
    assert isinstance(plain, Generation)
    assert isinstance(adapted, Generation)
    assert plain.logprobs != adapted.logprobs


def test_whole_choices_are_scored_with_an_adapter(engine_slot: EngineSlot, tokenizer: Tokenizer, adapter: Path) -> None:
    """What an adapter changes is in the scores of whole choices, which are those of their tokens one by one."""
    pool = engine_slot.get(adapter=str(adapter))
    [asked] = prompts(tokenizer, ["I love it."])
    firsts = tuple(ids[0] for ids in tokenizer.in_place(["Positive", "Negative"], chat=True))
    whole = replace(asked, continuations=tuple(Continuation((token,)) for token in firsts))
    scored = dict[str, Generation]()
    for name, folder in (("plain", None), ("adapted", str(adapter))):
        [found] = pool.generate(Task({"temperature": 0.0}, score_continuations=True, adapter=folder), [whole])
        [by_token] = pool.generate(Task({}, score_tokens=firsts, adapter=folder), [asked])
        assert isinstance(found, Generation)
        assert isinstance(by_token, Generation)
        assert found.logprobs == pytest.approx(by_token.logprobs, abs=0.1)
        scored[name] = found
    assert scored["plain"].logprobs != pytest.approx(scored["adapted"].logprobs, abs=0.1)


def test_other_weights_in_the_same_folder_are_another_adapter(
    engine_slot: EngineSlot, tokenizer: Tokenizer, adapter: Path
) -> None:
    """Nothing that vLLM loaded or computed for the weights that were there before is used again."""
    from safetensors.torch import load_file, save_file

    pool = engine_slot.get(adapter=str(adapter))
    asked = prompts(tokenizer, ["I love it so much that I would buy it again, and again, and again. What a joy it is!"])
    tokens = tuple(ids[0] for ids in tokenizer.in_place(["Positive", "Negative"], chat=True))
    task = Task({}, score_tokens=tokens, adapter=str(adapter))
    [before] = pool.generate(task, asked)
    path = adapter / "adapter_model.safetensors"
    save_file({name: -weights if "lora_B" in name else weights for name, weights in load_file(path).items()}, path)
    [after] = pool.generate(task, asked)
    assert isinstance(before, Generation)
    assert isinstance(after, Generation)
    assert before.logprobs != after.logprobs
    assert after.cached_tokens == 0
