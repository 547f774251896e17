"""What compiling costs, measured twice: as a user meets it, and taken apart.

    python -m benchmarks.compile_time --case=4x128_b32_t5 --mode=train --json

``compile_seconds`` is the first call of a fresh ``jax.jit`` less a later one (tracing, lowering,
compiling, one run less one run). ``lower_seconds`` and ``backend_seconds`` are those of
``lower()`` and ``compile()`` of a second one, whose tracing finds the first one's in JAX's caches.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
from absl import app, flags

from benchmarks import machine
from benchmarks.cases import CASES, Case, find_case
from benchmarks.side_by_side import READ, TRAIN, build

_CASE = flags.DEFINE_enum("case", "4x128_b32_t5", list(CASES), "model and text")
_MODE = flags.DEFINE_enum("mode", READ, [READ, TRAIN], "without or with the gradient")
_SCHEDULE = flags.DEFINE_string("schedule", "auto", "see run_segments")
_CALLS = flags.DEFINE_integer("calls", 3, "later calls", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "print only the JSON line")


def _seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    out = run()
    return time.perf_counter() - started, out


def measure(case: Case, mode: str, schedule: str, calls: int) -> dict[str, float]:
    """Seconds of the first call, of later ones, and of the parts of compiling."""
    function, arguments = build(schedule, case, mode)
    jitted = jax.jit(function)
    first, _ = _seconds(lambda: jax.block_until_ready(jitted(*arguments)))
    later = [_seconds(lambda: jax.block_until_ready(jitted(*arguments)))[0] for _ in range(calls)]
    function, arguments = build(schedule, case, mode)
    fresh = jax.jit(function)
    lower_seconds, lowered = _seconds(lambda: fresh.lower(*arguments))
    backend_seconds, _ = _seconds(lowered.compile)
    peak_memory = machine.peak_memory_bytes()
    steady = statistics.median(later)
    return {
        "first_call_seconds": first,
        "seconds": steady,
        "compile_seconds": first - steady,
        "lower_seconds": lower_seconds,
        "backend_seconds": backend_seconds,
        "peak_memory_bytes": peak_memory,
        "sgemm_flops_per_second": machine.sgemm_flops_per_second(),
    }


def main(argv: list[str]) -> None:
    """Measure one program and print it."""
    del argv
    result = {
        "benchmark": "compile_time",
        "case": _CASE.value,
        "mode": _MODE.value,
        "schedule": _SCHEDULE.value,
        **machine.description(),
        **measure(find_case(_CASE.value), _MODE.value, _SCHEDULE.value, _CALLS.value),
    }
    if not _JSON.value:
        print(
            f"first call {result['first_call_seconds']:.2f} s, later {result['seconds']:.3f} s; "
            f"lowering {result['lower_seconds']:.2f} s, compiling {result['backend_seconds']:.2f} s"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
