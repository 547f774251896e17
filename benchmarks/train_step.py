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

import statistics
import time
from typing import Any

import jax
import numpy as np
from absl import app, flags

from armt_jax.config import BACKBONES, FAMILIES, MeshConfig, ModelConfig, OptimizerConfig
from armt_jax.evaluation.scoring import AnswerAtEnd
from armt_jax.models import create_model
from armt_jax.sharding import batched, create_mesh, use_cpu_cores
from armt_jax.tasks.associative_retrieval import AssociativeRetrieval, Batch
from armt_jax.training.host_memory import release_freed_memory
from armt_jax.training.optimizer import create_optimizer
from armt_jax.training.state import create_state
from armt_jax.training.step import jit_train_step
from benchmarks import flops, machine

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

OPTIMIZER = OptimizerConfig(
    name="adamw",
    learning_rate=3e-4,
    muon_learning_rate=3e-4,
    weight_decay=1e-3,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    warmup_steps=0,
    schedule="constant",
    scope="run",
    final_fraction=1.0,
    reset_per_stage=False,
    clip="value",
    clip_threshold=1.0,
)


def measure(config: ModelConfig, batch: Batch, value_size: int, steps: int) -> dict[str, float]:
    """Median seconds of a step on ``batch`` and what follows from them."""
    (batch_size, pairs, length), queries = batch.context.shape, batch.queries.shape[1]
    model, optimizer = create_model(config), create_optimizer(OPTIMIZER)
    mesh = create_mesh(MeshConfig(data=-1, fsdp=1, tensor=1, stage=1), batch_size)
    state = create_state(model, optimizer, 0, mesh)
    batch = jax.device_put(batch, batched(mesh))
    step = jit_train_step(model, optimizer, AnswerAtEnd(value_size), 1, mesh)
    rate = np.float32(OPTIMIZER.learning_rate)
    started = time.perf_counter()
    step = step.lower(state, batch, rate).compile()
    compile_seconds = time.perf_counter() - started
    release_freed_memory()
    # Two: the second still takes memory from the system, since the first one's buffers are its
    # input. For GPT-2 small that was 23 seconds, and 9 for every later step.
    for _ in range(2):
        state, _ = step(state, batch, rate)
    jax.block_until_ready(state)
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        state, _ = step(state, batch, rate)
        jax.block_until_ready(state)
        times.append(time.perf_counter() - started)
    peak_memory = machine.peak_memory_bytes()
    middle, end = flops.seen_before(config, pairs, length)
    work = pairs * flops.context_flops(config, length, middle)
    work += queries * flops.query_flops(config, length, value_size + 1, end)
    work *= 3 * batch_size
    seconds = statistics.median(times)
    peak = machine.sgemm_flops_per_second()
    return {
        "seconds": seconds,
        "seconds_min": min(times),
        "seconds_max": max(times),
        "compile_seconds": compile_seconds,
        "tokens_per_second": batch_size * (pairs + queries) * length / seconds,
        "peak_memory_bytes": peak_memory,
        "flops": work,
        "sgemm_flops_per_second": peak,
        "sgemm_share": work / seconds / peak,
    }


def _retrieval() -> tuple[ModelConfig, Batch, int]:
    config = ModelConfig(
        family=_FAMILY.value,
        backbone=_BACKBONE.value,
        **_states(_PAIRS.value, (_PAIRS.value + 1) * (_KEY_SIZE.value + 3)),
        n_layer=4,
        n_head=4,
        d_model=128,
        vocab_size=128,
        n_positions=_positions(32, (_PAIRS.value + 1) * (_KEY_SIZE.value + 3)),
        num_mem_tokens=4,
        d_mem=32,
        rule=_RULE.value,
    )
    task = AssociativeRetrieval("remember", _PAIRS.value, _KEY_SIZE.value, 1, _QUERIES.value, False)
    rng = np.random.default_rng(0)
    samples = [task.sample(rng) for _ in range(_BATCH.value)]
    batch = Batch(*(np.stack(leaves) for leaves in zip(*samples, strict=True)))
    return config, batch, task.value_size


def _positions(usual: int, text: int) -> int:
    """Learned positions: a transformer's go on through the whole text."""
    return max(usual, text) if _FAMILY.value == "transformer" else usual


def _states(pairs: int, text: int) -> dict[str, Any]:
    """State that keeps the whole text, of the families whose state grows with it."""
    return {"retrieval_states": pairs, "context_tokens": text}


def _gpt2_small() -> tuple[ModelConfig, Batch, int]:
    length, shape = _SEGMENT.value, (_BATCH.value, _PAIRS.value)
    config = ModelConfig(
        family=_FAMILY.value,
        backbone=_BACKBONE.value,
        **_states(_PAIRS.value, (_PAIRS.value + 1) * length),
        n_layer=12,
        n_head=12,
        d_model=768,
        vocab_size=50257,
        n_positions=_positions(max(1024, length + 30), (_PAIRS.value + 1) * length),
        num_mem_tokens=10,
        d_mem=64,
        rule=_RULE.value,
    )
    rng = np.random.default_rng(0)
    context = rng.integers(0, config.vocab_size, (*shape, length), np.int32)
    asked = rng.integers(0, config.vocab_size, (_BATCH.value, 1, length), np.int32)
    batch = Batch(context, np.ones(shape, bool), asked, np.ones((_BATCH.value, 1), bool))
    # The answer, with the token that ends it, is the segment but its first token.
    return config, batch, length - 2


def main(argv: list[str]) -> None:
    """Measure one size and print it."""
    del argv
    if _DEVICES.value != 1:
        use_cpu_cores(_DEVICES.value)
    config, batch, value_size = _retrieval() if _MODEL.value == "retrieval" else _gpt2_small()
    result = measure(config, batch, value_size, _STEPS.value)
    result = {
        "benchmark": "train_step",
        "model": _MODEL.value,
        "pairs": _PAIRS.value,
        "batch": _BATCH.value,
        "queries": batch.queries.shape[1],
        "family": _FAMILY.value,
        "rule": config.memory_rule,
        "backbone": _BACKBONE.value,
        **machine.description(),
        **result,
    }
    rate = f"{result['seconds']:.3f} s a step, {result['tokens_per_second']:,.0f} tokens/s"
    machine.print_result(result, rate, _JSON.value)


if __name__ == "__main__":
    app.run(main)
