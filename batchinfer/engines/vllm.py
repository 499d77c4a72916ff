"""Drives vLLM inside an engine process, request by request, so that rows come out as they finish.

`LLM.generate` returns only when everything is done, and one bad prompt aborts it all; the engine
below it takes and returns single requests. Written against vLLM 0.32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchinfer.core.records import Failure, Generation, Prompt
from batchinfer.engines import continuations, environment, grammars
from batchinfer.engines.continuations import ContinuationScorer
from batchinfer.engines.devices import Placement
from batchinfer.engines.digests import folder_digest
from batchinfer.engines.protocol import EngineConfig, EngineInfo, Task
from batchinfer.errors import MissingExtra, ModelError

# Tokens that prefix caching shares as a whole: vLLM's own on GPUs; its 128 on CPU would miss every shorter prefix.
GPU_BLOCK_SIZE, CPU_BLOCK_SIZE = 16, 32
# Prompts that are worked on at a time: vLLM's own on most GPUs.
GPU_SEQUENCES, CPU_SEQUENCES = 256, 128
MAX_CPU_KV_BYTES = 2 << 30
TURNS = "{{ messages }}"  # prompts come as tokens: vLLM need not find the model's own template, and warm up with it


class VllmDriver:
    """One loaded vLLM engine. Not thread-safe; lives in a process of its own."""

    def __init__(self, config: EngineConfig, placement: Placement) -> None:
        """Loads the model; slow. Raises ModelError in words for the user."""
        self._on_cpu = placement.is_cpu
        os.environ.update(VLLM_NO_USAGE_STATS="1", TOKENIZERS_PARALLELISM="false")
        if self._on_cpu:
            environment.prepare_cpu(list(placement.cores))
            environment.hide_unused_packages()
        try:
            with environment.without_collecting():
                import vllm
                from vllm import LLM
                from vllm.exceptions import VLLMClientError
        except ImportError as exc:
            if exc.name == "vllm":
                raise MissingExtra("vLLM") from exc
            raise ModelError(f"vLLM is installed, but cannot be loaded: {first_sentence(exc)}") from exc

        self._vllm, self._client_error = vllm, VLLMClientError
        try:
            with environment.without_collecting():
                llm = LLM(**self._arguments(config))
        except (ValueError, OSError, RuntimeError, ImportError, LookupError, TypeError, AssertionError) as exc:
            raise ModelError(f"vLLM could not load {config.model}: {first_sentence(exc)}") from exc
        self._engine = llm.llm_engine
        self._llm = llm
        settings = self._engine.vllm_config
        self._max_len = int(settings.model_config.max_model_len)
        self.info = EngineInfo(
            max_model_len=self._max_len,
            max_in_flight=2 * int(settings.scheduler_config.max_num_seqs),
            description=f"vLLM {vllm.__version__} on {placement.description}",
            version=f"vLLM {vllm.__version__.partition('+')[0]}",
        )
        self._follows_xgrammar = grammars.follows_xgrammar(config.options)
        self._task: Task | None = None
        self._sampling: Any = None
        self._uncached_sampling: Any = None
        self._lora: Any = None
        self._adapters: dict[str, int] = {}
        self._scorer = ContinuationScorer(self._score, self._engine.abort_request)

    def _arguments(self, config: EngineConfig) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": config.model,
            "revision": config.revision,
            "dtype": config.dtype,
            "quantization": config.quantization,
            "tensor_parallel_size": config.tensor_parallel,
            "runner": "generate",
            "disable_log_stats": True,
            "chat_template": TURNS,
            grammars.SETTINGS: {"backend": "xgrammar", "disable_any_whitespace": True},
        }
        if config.adapter:
            arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": config.adapter_rank}
            # With the last layer made ready for adapters, vLLM 0.32 dies of scores of prompts, or gives them without the adapter.
            if config.adapter_modules:
                arguments["lora_target_modules"] = list(config.adapter_modules)
        if self._on_cpu:
            arguments |= {
                "enforce_eager": True,
                "block_size": CPU_BLOCK_SIZE,
                "kv_cache_memory_bytes": cpu_kv_bytes(),
                "max_num_seqs": CPU_SEQUENCES,
            }
        return arguments | config.options

    def begin(self, task: Task) -> None:
        """Sets what is done with the prompts that follow. Raises ModelError if vLLM will not do it."""
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        arguments = dict(task.sampling)
        if task.score_tokens is not None:
            arguments |= {"max_tokens": 1, "logprob_token_ids": list(task.score_tokens), "detokenize": False}
        if task.score_continuations:
            arguments |= continuations.SAMPLING
            self._uncached_sampling = SamplingParams(**arguments, output_kind=RequestOutputKind.FINAL_ONLY)
            arguments["skip_reading_prefix_cache"] = False
        try:
            if task.constraint is not None:
                kind, value = task.constraint
                if self._follows_xgrammar:
                    value = grammars.followed(kind, value).value
                arguments["structured_outputs"] = StructuredOutputsParams(**{kind: value})
            self._sampling = SamplingParams(**arguments, output_kind=RequestOutputKind.FINAL_ONLY)
        except (ValueError, TypeError, self._client_error) as exc:
            raise ModelError(f"vLLM refuses the job's sampling or output: {first_sentence(exc)}") from exc
        self._lora = self._lora_request(task.adapter) if task.adapter else None
        self._task = task

    def _lora_request(self, folder: str) -> Any:
        """Named by its weights: vLLM would take what it computed for other weights of the same name."""
        from vllm.lora.request import LoRARequest

        digest = folder_digest(Path(folder))
        number = self._adapters.setdefault(digest, len(self._adapters) + 1)
        return LoRARequest(digest, number, folder)

    def add(self, prompt: Prompt) -> Failure | None:
        """Takes one prompt; a Failure if vLLM refuses it, and then only this one is lost."""
        if self._scores_continuations:
            return self._scorer.add(prompt)
        refusal = self._submit(prompt.prompt_key.hex(), list(prompt.token_ids), self._sampling)
        if refusal is None:
            return None
        return Failure(prompt.prompt_key, "engine", "refused", f"vLLM refused the prompt: {refusal}")

    @property
    def _scores_continuations(self) -> bool:
        return self._task is not None and self._task.score_continuations

    def _submit(self, request_id: str, token_ids: list[int], sampling: Any) -> str | None:
        """Hands vLLM a request; returns why it was refused, or None."""
        tokens = self._vllm.TokensPrompt(prompt_token_ids=token_ids)
        try:
            self._engine.add_request(request_id, tokens, sampling, lora_request=self._lora)
        except (ValueError, self._client_error) as exc:
            return first_sentence(exc)
        return None

    def _score(self, request_id: str, token_ids: list[int], *, read_cache: bool) -> str | None:
        return self._submit(request_id, token_ids, self._sampling if read_cache else self._uncached_sampling)

    def busy(self) -> bool:
        """Whether requests are under way."""
        return bool(self._engine.has_unfinished_requests())

    def step(self) -> list[Generation | Failure]:
        """One iteration of the engine; returns what finished in it."""
        read = self._scorer.take if self._scores_continuations else self._generation
        results = [read(output) for output in self._engine.step() if output.finished]
        return [result for result in results if result is not None]

    def _generation(self, output: Any) -> Generation | Failure:
        prompt_key = bytes.fromhex(output.request_id)
        completion = output.outputs[0]
        if completion.finish_reason in ("error", "abort"):
            return Failure(
                prompt_key, "engine", "engine_error", f"vLLM gave up on the prompt ({completion.stop_reason})."
            )
        logprobs = None
        if self._task is not None and self._task.score_tokens is not None:
            first = completion.logprobs[0]
            logprobs = tuple(float(first[token].logprob) for token in self._task.score_tokens)
        return Generation(
            prompt_key=prompt_key,
            text=completion.text,
            finish_reason=completion.finish_reason or "unknown",
            prompt_tokens=len(output.prompt_token_ids or ()),
            cached_tokens=int(output.num_cached_tokens or 0),
            output_tokens=len(completion.token_ids),
            logprobs=logprobs,
        )


def adapter_refusal(folder: Path, rank: int) -> str | None:
    """Why vLLM would not load a LoRA adapter, as it says itself of the adapter's config; None if it would.

    rank: the highest that the engine takes. The caller has prepared the process for vLLM. Raises MissingExtra.
    """
    try:
        from vllm.config.lora import LoRAConfig
        from vllm.lora.peft_helper import PEFTHelper
    except ImportError as exc:
        raise MissingExtra("vLLM") from exc
    try:
        PEFTHelper.from_local_dir(str(folder), None).validate_legal(LoRAConfig(max_lora_rank=rank))
    except (ValueError, TypeError) as exc:
        return first_sentence(exc)
    return None


def block_size(options: Mapping[str, Any], *, on_cpu: bool) -> int:
    """Tokens that prefix caching shares as a whole, for a model with these options."""
    return int(options.get("block_size") or (CPU_BLOCK_SIZE if on_cpu else GPU_BLOCK_SIZE))


def first_sentence(exc: BaseException) -> str:
    """The innermost cause's first line: vLLM wraps the real reason in several layers."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    if lines and lines[0].endswith("validation error for ModelConfig") and len(lines) > 1:
        lines = lines[1:]
    return (lines[0] if lines else type(exc).__name__)[:400]


def cpu_kv_bytes() -> int:
    """An eighth of the memory that is free now, at most 2 GiB: enough for small models, and the machine stays usable."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(MAX_CPU_KV_BYTES, free // 8)
