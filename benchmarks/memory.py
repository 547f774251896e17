"""Memory that one training step needs, by the number of segments and by what is kept of them.

    python -m benchmarks.memory --json                       # the paper's retrieval size, 4 x 128
    python -m benchmarks.memory --model=gpt2_small --json    # 512-token segments

Every cell is measured in a process of its own: the largest resident size while steps run (on an
accelerator its peak of allocated bytes) less what was there before the first step, parameters and
optimizer state among it. Beside it stands what the compiler sets aside (``memory_analysis``), and
seconds of a step. A step reads contexts of random tokens, asks one query each, and updates with
Adam. The last line is one JSON object; ``--steps=0`` prints the compiler's figures alone.
"""

from __future__ import annotations

import concurrent.futures
import json
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from absl import app, flags

from armt_jax.config import ModelConfig
from armt_jax.evaluation.scoring import AnswerAtEnd, Reading
from armt_jax.host_memory import release_freed_memory
from armt_jax.models import create_model
from armt_jax.sharding import data_mesh
from armt_jax.tasks.associative_retrieval import Batch
from armt_jax.training.state import create_state
from armt_jax.training.step import jit_train_step
from benchmarks import machine
from benchmarks.peak import peak_since_start, start_of_peak
from benchmarks.sizes import GPT2_SMALL, RETRIEVAL

RATE = np.float32(3e-4)


class Size(NamedTuple):
    """A model, the texts it reads, and the window of truncated backpropagation."""

    config: dict[str, Any]
    length: int
    batch: int
    segments: tuple[int, ...]
    window: int


SIZES = {
    "retrieval": Size({**RETRIEVAL, "vocab_size": 128}, 5, 8, (16, 64, 256), 8),
    "gpt2_small": Size({**GPT2_SMALL, "vocab_size": 50257}, 512, 1, (2, 4, 8), 2),
}
# Schedule, remat, whether in windows, and pieces of the batch.
METHODS = {
    "sequential": ("sequential", "none", False, 1),
    "sequential, segment": ("sequential", "segment", False, 1),
    "sequential, sqrt": ("sequential", "sqrt", False, 1),
    "sequential, bptt": ("sequential", "none", True, 1),
    "sequential, 4 pieces": ("sequential", "none", False, 4),
    "chunked": ("chunked", "none", False, 1),
    "chunked, sqrt": ("chunked", "sqrt", False, 1),
    "diagonal, segment": ("diagonal", "segment", False, 1),
}

_MODEL = flags.DEFINE_enum("model", "retrieval", list(SIZES), "size of model and segments")
_METHODS = flags.DEFINE_multi_enum("method", None, list(METHODS), "only this (may be repeated)")
_SEGMENTS = flags.DEFINE_multi_integer("segments", None, "this many (may be repeated)", 1)
_BATCH = flags.DEFINE_integer("batch", None, "contexts of a step (default: the model's)", 1)
_STEPS = flags.DEFINE_integer("steps", 3, "timed steps; 0: nothing is run", lower_bound=0)
_LIMIT = flags.DEFINE_float("limit", 8.0, "GiB by the compiler's figure; more is not run", 0.0)
_JOBS = flags.DEFINE_integer("jobs", 1, "cells at once; seconds then mean little", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "print only the JSON line")
_CELL = flags.DEFINE_bool("cell", False, "measure one cell in this process (internal)")


def measure(
    size: Size, method: str, segments: int, batch_size: int, steps: int, limit: float
) -> dict[str, float | None]:
    """One cell, in a process that has done nothing else; ``limit`` in bytes."""
    schedule, remat, in_windows, pieces = METHODS[method]
    reading = Reading(schedule, remat, size.window if in_windows else 0)
    rows = size.length + size.config["num_mem_tokens"]
    model = create_model(ModelConfig(n_positions=max(32, rows), **size.config))
    optimizer, mesh = optax.scale_by_adam(), data_mesh(1)
    state = create_state(model, optimizer, 0, mesh)
    batch = random_batch(size, segments, batch_size)
    program = jit_train_step(model, optimizer, AnswerAtEnd(1), pieces, mesh, reading)
    started = time.perf_counter()
    step = program.lower(state, batch, RATE).compile()  # pyright: ignore[reportFunctionMemberAccess]
    compile_seconds = time.perf_counter() - started
    estimate = step.memory_analysis().temp_size_in_bytes
    result: dict[str, float | None] = {
        "estimated_bytes": estimate,
        "compile_seconds": compile_seconds,
        "peak_memory_bytes": None,
        "seconds": None,
    }
    if not steps or estimate > limit:
        return result
    # What the first step leaves behind, such as code that was read in, is no memory of a step.
    state, metrics = step(state, batch, RATE)
    jax.block_until_ready(state)
    release_freed_memory()
    before = start_of_peak()
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        state, metrics = step(state, batch, RATE)
        jax.block_until_ready(state)
        times.append(time.perf_counter() - started)
    if before is not None:
        result["peak_memory_bytes"] = peak_since_start() - before
    if not np.isfinite(metrics.loss):
        raise ValueError("the loss is not finite: this measured nothing")
    result["seconds"] = statistics.median(times)
    return result


def random_batch(size: Size, segments: int, batch_size: int) -> Batch:
    """Contexts of random tokens with one query each."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.integers(0, size.config["vocab_size"], shape).astype(np.int32)

    return Batch(
        draw(batch_size, segments, size.length),
        np.ones((batch_size, segments), bool),
        draw(batch_size, 1, size.length),
        np.ones((batch_size, 1), bool),
    )


def in_own_process(arguments: list[str]) -> dict[str, float | None]:
    """What ``main`` prints for one cell."""
    command = [sys.executable, "-m", "benchmarks.memory", "--cell", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def cell_text(cell: dict[str, Any]) -> str:
    """``measured MiB (compiler's MiB) seconds``."""
    estimate = f"({cell['estimated_bytes'] / 2**20:,.0f})"
    if cell["seconds"] is None:
        return f"- {estimate}"
    peak = cell["peak_memory_bytes"]
    measured = "?" if peak is None else f"{peak / 2**20:,.0f}"
    return f"{measured} {estimate} {cell['seconds']:.2f} s"


def print_table(cells: list[dict[str, Any]]) -> None:
    """One row per method, one column per number of segments."""
    counts = sorted({cell["segments"] for cell in cells})
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    print("MiB measured (compiler's figure), seconds a step")
    print("| method |" + "".join(f" S = {count} |" for count in counts))
    print("|---|" + "---|" * len(counts))
    for method in methods:
        row = {cell["segments"]: cell_text(cell) for cell in cells if cell["method"] == method}
        print(f"| {method} |" + "".join(f" {row[count]} |" for count in counts))


def main(argv: list[str]) -> None:
    """Measure all cells, or the one that this process is for."""
    del argv
    size = SIZES[_MODEL.value]
    batch = _BATCH.value or size.batch
    counts, methods = _SEGMENTS.value or size.segments, _METHODS.value or list(METHODS)
    limit = _LIMIT.value * 2**30
    if _CELL.value:
        print(json.dumps(measure(size, methods[0], counts[0], batch, _STEPS.value, limit)))
        return

    def cell(place: tuple[int, str]) -> dict[str, Any]:
        count, method = place
        chosen = [f"--model={_MODEL.value}", f"--method={method}", f"--segments={count}"]
        options = [f"--batch={batch}", f"--steps={_STEPS.value}", f"--limit={_LIMIT.value}"]
        found = {"method": method, "segments": count, **in_own_process(chosen + options)}
        print(f"{method}, {count} segments: {cell_text(found)}", file=sys.stderr, flush=True)
        return found

    # Pieces must divide the batch.
    places = [(s, name) for s in counts for name in methods if batch % METHODS[name][3] == 0]
    with concurrent.futures.ThreadPoolExecutor(_JOBS.value) as pool:
        cells = list(pool.map(cell, places))
    if not _JSON.value:
        print_table(cells)
    about: dict[str, float] = {
        "segment": size.length,
        "batch": batch,
        "window": size.window,
        "jobs": _JOBS.value,
    }
    about["sgemm_flops_per_second"] = machine.sgemm_flops_per_second()
    result = {"benchmark": "memory", "model": _MODEL.value, **about, **machine.description()}
    print(json.dumps({**result, "cells": cells}))


if __name__ == "__main__":
    app.run(main)
