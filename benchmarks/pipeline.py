"""The pipeline's time against its schedule: S segments take S + stages - 1 steps.

    python -m benchmarks.pipeline --case=4x128_b1_t512 --stages=2 --json

Every row has the share of the stages' steps that is work, ``S / (S + stages - 1)``, beside the
measured one: the seconds that the S segments would take with no step lost, over those they took. A
step's seconds are taken from the longest text of the same run. On a CPU the devices are simulated
and share its cores: with more of them than cores the time says nothing of a pipeline's speed,
but the ratio still follows the number of steps, since a stage without a segment computes too.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys

import jax
from absl import app, flags

from armt_jax.config import ConfigError
from benchmarks import machine
from benchmarks.cases import CASES, find_case
from benchmarks.efficiency import with_measured_efficiency
from benchmarks.report import tables
from benchmarks.side_by_side import (
    READ,
    REFERENCE,
    TOLERANCE,
    compile_schedule,
    largest_difference,
    take_turns,
)

_CASE = flags.DEFINE_enum("case", "4x128_b1_t512", list(CASES), "model and text")
_STAGES = flags.DEFINE_integer("stages", 2, "groups of layers", lower_bound=2)
_LENGTHS = flags.DEFINE_list("segments", ["4", "16", "64"], "lengths of texts")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "how often all take their turn", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "print only the JSON line")


def measure(name: str, stages: int, lengths: list[int], rounds: int) -> dict:
    """Texts of ``lengths`` segments in turns; the shortest is first compared to the sequential.

    Raises:
      ConfigError: lengths or stages that cannot be, or a pipeline that differs.
    """
    lengths = sorted(set(lengths))
    if not lengths or lengths[0] < 1:
        raise ConfigError(f"segments = {lengths}: must be numbers from 1 on")
    if jax.device_count() < stages:
        raise ConfigError(f"stages = {stages}: must be at most {jax.device_count()}, the devices")
    case = find_case(name)
    cases = [dataclasses.replace(case, segments=count) for count in lengths]
    programs = [compile_schedule(f"pipeline, {stages} stages", case, READ) for case in cases]
    expected = compile_schedule(REFERENCE, cases[0], READ).run()
    difference = largest_difference(jax.device_get(programs[0].run()), jax.device_get(expected))
    if difference > TOLERANCE:
        raise ConfigError(f"the pipeline differs by {difference:.1e}: nothing was timed")
    for program in programs:
        jax.block_until_ready(program.run())
    times = take_turns([program.run for program in programs], rounds)
    rows = [
        {"segments": count, "seconds": statistics.median(seconds), "seconds_all": seconds}
        for count, seconds in zip(lengths, times, strict=True)
    ]
    peak_memory = machine.peak_memory_bytes()
    return {
        "benchmark": "pipeline",
        "case": name,
        "stages": stages,
        **machine.description(),
        "difference": difference,
        "peak_memory_bytes": peak_memory,
        "sgemm_flops_per_second": machine.sgemm_flops_per_second(),
        "rows": with_measured_efficiency(rows, stages),
    }


def main(argv: list[str]) -> None:
    """Measure one number of stages and print it."""
    del argv
    machine.show_cpu_devices(_STAGES.value)
    try:
        lengths = [int(text) for text in _LENGTHS.value]
        result = measure(_CASE.value, _STAGES.value, lengths, _ROUNDS.value)
    except ValueError as error:  # a ConfigError is one
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if not _JSON.value:
        label = f"pipeline, {_CASE.value}, {_STAGES.value} stages"
        print(tables([{"label": label, "status": "ok", "error": None, "result": result}]))
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
