"""Schedules beside each other: first that they agree, then what each of them costs.

All schedules of a case are compiled in one process and run in turns (A B C A B C ...), so that
whatever else the machine does meets all of them; what counts are ratios within one run.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax import run_segments
from armt_jax.models import ARMT, Params, Segment
from armt_jax.models.layers import unstack_layers
from armt_jax.sharding import stage_mesh
from benchmarks import flops
from benchmarks.cases import Case, case_inputs

READ, TRAIN = "read", "train"
REFERENCE = "sequential"
# Not a schedule: the sequential one from layers apart, as ``StreamReader`` has them.
APART = "sequential, layers apart"
# Of the largest entry of a leaf, float32: what is wrong differs by much more.
TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Program:
    """One schedule compiled for a case.

    Attributes:
      run: without arguments; gives a tree of arrays.
      compile_seconds: of lowering and compiling.
      temporary_bytes: what the compiler sets aside beside arguments and outputs; None where it
        does not say.
    """

    run: Callable[[], Any]
    compile_seconds: float
    temporary_bytes: int | None


def contestants(mode: str, devices: int, n_layer: int) -> list[str]:
    """What can be compared on ``devices`` devices, the reference first."""
    names = [REFERENCE, "chunked", "diagonal"]
    if mode == READ:
        names.append(APART)
    stages = [n for n in (2, 4, 8) if n <= devices and n_layer % n == 0]
    return names + [f"pipeline, {n} stages" for n in stages]


def build(name: str, case: Case, mode: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Reading (``read``) or reading and its gradient (``train``) with one schedule, and arguments.

    Both end at the final memory: nobody reads the hidden states of a context, and what is
    differentiated is a random projection of the memory, by the parameters.
    """
    model, params, segments = case_inputs(case)
    schedule, _, stages = name.partition(", ")
    mesh = stage_mesh(int(stages.split()[0])) if schedule == "pipeline" else None
    if name == APART:
        params = unstack_layers(params)

    def read(params: Params, segments: Segment) -> Any:
        state = model.init_state(case.batch)
        return run_segments(
            model, params, state, segments, schedule=schedule, need_hidden=False, mesh=mesh
        )[0]

    weights = _weights(model, case.batch)

    def loss(params: Params, segments: Segment) -> jax.Array:
        A, z, *_ = read(params, segments)
        return jnp.sum(weights[0] * A) + jnp.sum(weights[1] * z)

    return (read if mode == READ else jax.value_and_grad(loss)), (params, segments)


def _delay(name: str, n_layer: int) -> int:
    """Steps after the last segment has gone in until it is through."""
    schedule, _, stages = name.partition(", ")
    if schedule == "diagonal":
        return n_layer - 1
    return int(stages.split()[0]) - 1 if schedule == "pipeline" else 0


def compile_schedule(name: str, case: Case, mode: str) -> Program:
    """``build`` compiled."""
    function, arguments = build(name, case, mode)
    started = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - started
    temporary = getattr(compiled.memory_analysis(), "temp_size_in_bytes", None)
    return Program(lambda: compiled(*arguments), seconds, temporary)


def _weights(model: ARMT, batch: int) -> list[jax.Array]:
    state = model.init_state(batch)
    keys = jax.random.split(jax.random.key(2))
    return [
        jax.random.normal(key, leaf.shape, leaf.dtype)
        for key, leaf in zip(keys, state[:2], strict=True)
    ]


def largest_difference(found: Any, expected: Any) -> float:
    """The largest difference of two trees, as a share of the largest entry of its leaf.

    Infinite where an entry is not finite, or where only the expected leaf is zero throughout.

    Raises:
      ValueError: trees of different leaves, or an expected one that is zero throughout.
    """
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    largest, meaning = 0.0, False
    for ours, right in ((np.asarray(a), np.asarray(b)) for a, b in pairs):
        if ours.shape != right.shape:
            raise ValueError(f"a leaf of {ours.shape}: must be {right.shape}, the reference's")
        scale, apart = np.max(np.abs(right), initial=0), np.max(np.abs(ours - right), initial=0)
        meaning |= bool(scale > 0)
        if not np.isfinite(apart) or (apart > 0 and scale == 0):
            return float("inf")
        largest = max(largest, float(apart / scale) if scale > 0 else 0.0)
    if not meaning:
        raise ValueError("the reference is zero throughout: comparing with it means nothing")
    return largest


def take_turns(
    runs: Sequence[Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    warm: int = 0,
) -> list[list[float]]:
    """Seconds of every run in every round, ``[runs][rounds]``; all runs once, then again.

    ``warm``: how often a run is done without being timed at the start of its turn.
    """
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for own, run in zip(times, runs, strict=True):
            for _ in range(warm):
                jax.block_until_ready(run())
            started = clock()
            jax.block_until_ready(run())
            own.append(clock() - started)
    return times


def compare(case: Case, mode: str, rounds: int, most_bytes: int) -> list[dict[str, Any]]:
    """A row for every schedule that this machine's devices allow, the reference first.

    A schedule whose program needs more than ``most_bytes`` of temporary memory is not run: its row
    says so. One that differs from the reference is not timed.
    """
    names = contestants(mode, jax.device_count(), case.config.n_layer)
    rows: list[dict[str, Any]] = []
    programs: dict[str, Program] = {}
    expected = None
    for name in names:
        program = compile_schedule(name, case, mode)
        row = {
            "schedule": name,
            "compile_seconds": program.compile_seconds,
            "temporary_bytes": program.temporary_bytes,
        }
        rows.append(row)
        if (program.temporary_bytes or 0) > most_bytes:
            row["left_out"] = f"needs {program.temporary_bytes / 2**30:.1f} GiB"
            continue
        out = jax.device_get(program.run())
        expected = out if expected is None else expected
        row["difference"] = largest_difference(out, expected)
        if row["difference"] <= TOLERANCE:
            programs[name] = program
        else:
            row["left_out"] = f"differs from {names[0]} by {row['difference']:.1e}"
    times = take_turns([program.run for program in programs.values()], rounds)
    work = case.segments * case.batch * flops.context_flops(case.config, case.length)
    for name, seconds in zip(programs, times, strict=True):
        row = next(row for row in rows if row["schedule"] == name)
        row["seconds"], row["seconds_all"] = statistics.median(seconds), seconds
        # Of the same round: what disturbs one round disturbs both.
        ratios = [own / first for own, first in zip(seconds, times[0], strict=True)]
        row["against_first"] = statistics.median(ratios)
        # Of a text so long that the steps in which not all layers work do not count.
        steps = case.segments + _delay(name, case.config.n_layer)
        row["against_first_long"] = row["against_first"] * case.segments / steps
        row["flops"] = work * (1 if mode == READ else 3)
    return rows
