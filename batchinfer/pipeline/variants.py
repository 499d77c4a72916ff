"""Engine options that are worth a trial on a device, none of which can change an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from batchinfer.engines import vllm_options, vllm_source
from batchinfer.engines.vllm import CPU_BLOCK_SIZE, CPU_SEQUENCES, GPU_BLOCK_SIZE, GPU_SEQUENCES, cpu_kv_bytes
from batchinfer.errors import UsageError, did_you_mean
from batchinfer.planning.fingerprint import is_option_in_key

# What vLLM takes where a job says nothing; on CPUs as engines/vllm.py sets it.
CPU_USUAL = {"max_num_seqs": CPU_SEQUENCES, "max_num_batched_tokens": 4096, "block_size": CPU_BLOCK_SIZE}
GPU_USUAL = {"max_num_seqs": GPU_SEQUENCES, "max_num_batched_tokens": 8192, "block_size": GPU_BLOCK_SIZE}
SPECULATION = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 2, "prompt_lookup_max": 4}
FULLER = 0.95  # of a GPU's memory; vLLM takes 0.9
Variants = list[dict[str, Any]]


def usual_variants(options: Mapping[str, Any], *, on_cpu: bool, may_speculate: bool) -> Variants:
    """Changes of a job's options that the vLLM here knows: of one option each.

    may_speculate: whether to guess tokens by n-grams of the prompt; where answers are only scored there is nothing to guess.
    """
    has: dict[str, Any] = {**(CPU_USUAL if on_cpu else GPU_USUAL), **options}
    tried: Variants = [
        {name: value}
        for name in ("max_num_seqs", "max_num_batched_tokens")
        for value in (int(has[name]) // 2, int(has[name]) * 2)
        if value > 0
    ]
    tried.append({"block_size": int(has["block_size"]) * 2})
    if on_cpu:
        tried.append({"kv_cache_memory_bytes": 2 * int(has.get("kv_cache_memory_bytes") or cpu_kv_bytes())})
    else:
        tried += [{"gpu_memory_utilization": FULLER}, {"enforce_eager": not has.get("enforce_eager", False)}]
    if may_speculate and "speculative_config" not in options:
        tried.append({"speculative_config": dict(SPECULATION)})
    known = vllm_source.engine_options()
    return [each for each in tried if known is None or known.issuperset(each)]


def wanted_variants(asked: Iterable[str]) -> Variants:
    """What a person wants tried, each as NAME=VALUE,VALUE. Raises UsageError for what could change an answer, or vLLM refuses."""
    return [{name: value} for text in asked for name, values in [_split(text)] for value in values]


def _split(text: str) -> tuple[str, list[Any]]:
    name, equals, written = text.partition("=")
    try:
        values = yaml.safe_load(f"[{written}]") if equals else []
    except yaml.YAMLError:
        values = []
    if not name or not values:
        raise UsageError(f"--try {text}: write an engine option and values, such as max_num_seqs=64,256.")
    known = vllm_source.engine_options()
    if known is not None and name not in known:
        raise UsageError(f"--try {text}: vLLM has no engine option {name}", fix=did_you_mean(name, sorted(known)))
    for value in values:
        if is_option_in_key(name, value):
            raise UsageError(
                f"--try {text}: {name} could change answers, and tune tries only what cannot: leave it out."
            )
        if fault := vllm_options.value_fault(name, value):
            raise UsageError(f"--try {text}: {fault}")
    return name, values
