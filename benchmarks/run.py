"""All benchmarks from one command, each in a process of its own.

    python -m benchmarks.run --quick                  # under 3 minutes on 2 cores
    python -m benchmarks.run                          # half an hour to an hour on 2 cores
    python -m benchmarks.run --only=stream,memory --out=runs/mine

Prints a table and writes ``benchmarks.json`` into ``--out``: the commit, the settings, the machine
and a row for each benchmark with its command and all that it measured. Every benchmark measures
the machine's own float32 matrix rate beside itself (``sgemm_flops_per_second``): the machine may
be busy with other things, and figures of two runs compare only as shares of it. The last line is
one JSON object; ``--json`` leaves out the rest.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from absl import app, flags

from armt_jax.config import ConfigError
from benchmarks.plan import GROUPS, Settings, jobs, left_out, parse_groups
from benchmarks.process import end_jobs_when_terminated
from benchmarks.runner import run_all

_QUICK = flags.DEFINE_bool("quick", False, "small sizes only, under 3 minutes on 2 cores")
_ONLY = flags.DEFINE_list("only", [], f"of {', '.join(GROUPS)}; empty: all")
_MATCH = flags.DEFINE_string("match", "", "only benchmarks whose label has this in it")
_OUT = flags.DEFINE_string("out", "runs/benchmarks", "folder of benchmarks.json")
_TRAIN = flags.DEFINE_list("train_segments", ["2", "8", "32"], "of GPT-2 small's training steps")
_MEMORY = flags.DEFINE_list("memory_segments", ["2", "4", "16", "64", "256"], "of texts read")
_MOST = flags.DEFINE_float("memory_gib", 8.0, "run no schedule that needs more temporary memory")
_TIMEOUT = flags.DEFINE_float("timeout", 1800.0, "seconds that a benchmark may take")
_JSON = flags.DEFINE_bool("json", False, "print only the JSON line")


def _numbers(name: str, texts: list[str]) -> tuple[int, ...]:
    try:
        return tuple(int(text) for text in texts)
    except ValueError:
        raise ConfigError(f"{name} = {','.join(texts)}: must be numbers") from None


def main(argv: list[str]) -> None:
    """Run what the flags name."""
    del argv
    end_jobs_when_terminated()
    try:
        settings = Settings(
            quick=_QUICK.value,
            train_segments=_numbers("train_segments", _TRAIN.value),
            memory_segments=_numbers("memory_segments", _MEMORY.value),
            memory_gib=_MOST.value,
            timeout=_TIMEOUT.value,
        )
        groups = parse_groups(_ONLY.value)
        named = {**dataclasses.asdict(settings), "only": groups, "match": _MATCH.value}
        todo = [job for job in jobs(settings, groups) if _MATCH.value in job.label]
        if not todo:
            raise ConfigError(f"match = {_MATCH.value!r}: must be in the label of a benchmark")
        code = run_all(todo, Path(_OUT.value), named, left_out(settings, groups), _JSON.value)
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("error: interrupted; what was measured is in the file", file=sys.stderr)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    app.run(main)
