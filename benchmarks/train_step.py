"""Time and memory of one training step at the paper's retrieval size, or of GPT-2 small.

    python -m benchmarks.train_step --pairs=50 --batch=32 --json
    python -m benchmarks.train_step --family=rmt --backbone=gpt_neox --pairs=50 --batch=32 --json
    python -m benchmarks.train_step --model=gpt2_small --pairs=8 --batch=1 --json

The model is that of Appendix E (4 layers, width 128, 4 heads, d_mem 32, 4 memory tokens); a step
reads ``pairs`` segments, asks ``queries`` of them, and updates the parameters with AdamW. GPT-2
small (12 x 768, 10 memory tokens, d_mem 64) reads ``pairs`` segments of ``segment`` random tokens
and predicts every token but the first of one segment more. The last line is one JSON
object: ``seconds`` (median of the timed steps), ``tokens_per_second``, ``peak_memory_bytes`` and
``sgemm_share``, the share of the machine's own sgemm peak (measured in the same process) by the
operations the step must do (forward once, backward twice).
"""

from __future__ import annotations

from experiments import huge_pages

if __name__ == "__main__":
    huge_pages.restart_with_them()  # as a training does, before anything large is imported

import statistics
import time
from typing import Any

import jax
from absl import app, flags

from armt_jax.config import BACKBONES, FAMILIES
from armt_jax.sharding import use_cpu_cores
from benchmarks import machine
from benchmarks.train_program import TrainProgram
from benchmarks.train_sizes import TrainSize, gpt2_small_size, retrieval_size

_MODEL = flags.DEFINE_enum("model", "retrieval", ["retrieval", "gpt2_small"], "size")
_SEGMENT = flags.DEFINE_integer("segment", 512, "tokens of GPT-2 small's segments", lower_bound=3)
_PAIRS = flags.DEFINE_integer("pairs", 50, "context segments", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 32, "contexts per step", lower_bound=1)
_QUERIES = flags.DEFINE_integer("queries", 1, "queries per context (0: every key)", lower_bound=0)
_KEY_SIZE = flags.DEFINE_integer("key_size", 2, "digits of a key", lower_bound=1)
_BACKBONE = flags.DEFINE_enum("backbone", "gpt2", BACKBONES, "block")
_FAMILY = flags.DEFINE_enum("family", "armt", FAMILIES, "model family")
_RULE = flags.DEFINE_string("rule", "armt", "memory rule")
_STEPS = flags.DEFINE_integer("steps", 10, "timed steps, after two that are not", lower_bound=1)
_DEVICES = flags.DEFINE_integer("cpu_devices", -1, "devices of a CPU (-1: one a core)")
_JSON = flags.DEFINE_bool("json", False, "print only the JSON line")


def measure(size: TrainSize, steps: int) -> dict[str, float]:
    """Median seconds of a step and what follows from them."""
    (batch, pairs, length), queries = size.batch.context.shape, size.batch.queries.shape[1]
    program = TrainProgram(size)
    program.warm_up()
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        jax.block_until_ready(program.run())
        times.append(time.perf_counter() - started)
    peak_memory = machine.peak_memory_bytes()
    seconds = statistics.median(times)
    peak = machine.sgemm_flops_per_second()
    return {
        "seconds": seconds,
        "seconds_min": min(times),
        "seconds_max": max(times),
        "compile_seconds": program.compile_seconds,
        "tokens_per_second": batch * (pairs + queries) * length / seconds,
        "peak_memory_bytes": peak_memory,
        "flops": size.flops,
        "sgemm_flops_per_second": peak,
        "sgemm_share": size.flops / seconds / peak,
    }


def _size() -> TrainSize:
    kind: dict[str, Any] = {
        "family": _FAMILY.value,
        "backbone": _BACKBONE.value,
        "rule": _RULE.value,
    }
    if _MODEL.value == "gpt2_small":
        return gpt2_small_size(_PAIRS.value, _BATCH.value, length=_SEGMENT.value, **kind)
    kind |= {"queries": _QUERIES.value, "key_size": _KEY_SIZE.value}
    return retrieval_size(_PAIRS.value, _BATCH.value, **kind)


def main(argv: list[str]) -> None:
    """Measure one size and print it."""
    del argv
    if _DEVICES.value != 1:
        use_cpu_cores(_DEVICES.value)
    size = _size()
    result = measure(size, _STEPS.value)
    result = {
        "benchmark": "train_step",
        "model": _MODEL.value,
        "pairs": _PAIRS.value,
        "batch": _BATCH.value,
        "queries": size.batch.queries.shape[1],
        "family": _FAMILY.value,
        "rule": size.config.memory_rule,
        "backbone": _BACKBONE.value,
        **machine.description(),
        **result,
    }
    rate = f"{result['seconds']:.3f} s a step, {result['tokens_per_second']:,.0f} tokens/s"
    machine.print_result(result, rate, _JSON.value)


if __name__ == "__main__":
    app.run(main)
