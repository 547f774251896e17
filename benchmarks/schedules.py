"""The schedules of ``run_segments`` side by side: what the rule of ``auto`` rests on.

    python -m benchmarks.schedules --case=4x128_b32_t5 --mode=train --json
    python -m benchmarks.schedules                     # every case of ``benchmarks.run``

``read`` is reading alone, ``train`` reading and the gradient. Before anything is timed the
schedules are compared: final memory, or value and gradient. The last line is one JSON object with a
row for each schedule: ``seconds`` (median of the rounds), ``against_first`` (median over the rounds
of the ratio to the sequential schedule in the same round), ``temporary_bytes`` (the compiler's),
``difference`` (from the sequential one, as a share of the largest entry), ``sgemm_share``.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from absl import app, flags

from armt_jax.config import ConfigError
from benchmarks import machine
from benchmarks.cases import CASES, Case, find_case
from benchmarks.plan import Settings, jobs, left_out
from benchmarks.process import end_jobs_when_terminated
from benchmarks.report import tables
from benchmarks.runner import run_all
from benchmarks.side_by_side import READ, TRAIN, compare

_CASE = flags.DEFINE_string("case", "", f"one of {', '.join(CASES)}; empty: all, one after another")
_MODE = flags.DEFINE_enum("mode", READ, [READ, TRAIN], "without or with the gradient")
_SEGMENTS = flags.DEFINE_integer("segments", 0, "of each text (0: the case's)", lower_bound=0)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "how often all take their turn", lower_bound=1)
_DEVICES = flags.DEFINE_integer("cpu_devices", 2, "of a CPU, for the pipeline", lower_bound=1)
_MOST = flags.DEFINE_float("memory_gib", 8.0, "run no program that needs more", lower_bound=0.0)
_OUT = flags.DEFINE_string("out", "runs/schedules", "folder of the JSON file of all cases")
_JSON = flags.DEFINE_bool("json", False, "print only the JSON line")


def measure(name: str, case: Case, mode: str, rounds: int, most_gib: float) -> dict:
    """All schedules on one case, beside the machine's own matrix rate."""
    rows = compare(case, mode, rounds, int(most_gib * 2**30))
    peak_memory = machine.peak_memory_bytes()
    peak = machine.sgemm_flops_per_second()
    for row in rows:
        if "seconds" in row:
            row["sgemm_share"] = row["flops"] / row["seconds"] / peak
    return {
        "benchmark": "schedules",
        "case": name,
        "mode": mode,
        "batch": case.batch,
        "segment": case.length,
        "segments": case.segments,
        "rounds": rounds,
        **machine.description(),
        # Of all programs together.
        "peak_memory_bytes": peak_memory,
        "sgemm_flops_per_second": peak,
        "rows": rows,
    }


def main(argv: list[str]) -> None:
    """Measure one case, or all of them in processes of their own."""
    del argv
    if not _CASE.value:
        end_jobs_when_terminated()
        settings = Settings(quick=False, memory_gib=_MOST.value)
        named = dataclasses.asdict(settings)
        todo, words = jobs(settings, ["schedules"]), left_out(settings, ["schedules"])
        sys.exit(run_all(todo, Path(_OUT.value), named, words, _JSON.value))
    try:
        case = find_case(_CASE.value, _SEGMENTS.value)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    machine.show_cpu_devices(_DEVICES.value)
    result = measure(_CASE.value, case, _MODE.value, _ROUNDS.value, _MOST.value)
    if not _JSON.value:
        label = f"{_CASE.value}, {_MODE.value}"
        row = {"label": label, "status": "ok", "error": None, "result": result}
        print(tables([row]))
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
