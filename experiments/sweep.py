"""Train and evaluate every model and seed of a figure.

    python -m experiments.sweep --config=configs/figures/fig2b.py[:VARIANT] [--list]

The same command again goes on: finished runs are skipped, stopped ones go on from their last
checkpoint, failed ones are left alone (``--retry`` tries them again). Runs share nothing but
folders, so hosts take parts of the grid, ``--shard=1/3`` ``--shard=2/3`` ``--shard=3/3``, or all
of it: a run that another process has is left to it. ``--models=armt,rmt`` and ``--seeds=0`` take a
part by name. Ends with code 1 while a run that it was to do is missing.
"""

from __future__ import annotations

import re
import sys

from absl import flags
from ml_collections import config_flags

from armt_jax.config import ConfigError
from experiments import errors
from experiments.command_line import parse_flags
from experiments.sweep_grid import read_sweep, select
from experiments.sweep_plan import write_plan
from experiments.sweep_runner import Stopped
from experiments.sweep_runs import Runs, check, survey
from experiments.sweep_summary import print_summary

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Sweep: a file of configs/figures/, with :VARIANT after it.", lock_config=True
)
_LIST = flags.DEFINE_bool("list", False, "Say where every run stands, and start none.")
_SHARD = flags.DEFINE_string("shard", "1/1", "This host's part of the runs, such as 2/3.")
_RETRY = flags.DEFINE_bool("retry", False, "Try failed runs again.")
_MODELS = flags.DEFINE_string("models", None, "Some of the sweep's models, commas between.")
_SEEDS = flags.DEFINE_string("seeds", None, "Some of the sweep's seeds, commas between.")


def main(argv: list[str]) -> None:
    """Parse the flags and run what is missing."""
    parse_flags(argv)
    if _CONFIG.value is None:
        raise ConfigError("--config is missing: must name a file such as configs/figures/fig2b.py")
    whole = read_sweep(_CONFIG.value)
    part, parts = read_shard(_SHARD.value)
    sweep = select(whole, _MODELS.value, _SEEDS.value)
    check(whole)
    if _LIST.value:
        print_summary(sweep, survey(sweep))
        return
    write_plan(whole)
    runs = Runs(sweep, part, parts, retry=_RETRY.value)
    try:
        runs.go()
    except Stopped as stopped:
        print(f"stopped by {stopped}: what ran is saved, the same command goes on", file=sys.stderr)
        sys.exit(128 + stopped.number)
    print_summary(sweep, survey(sweep))
    sys.exit(1 if runs.unfinished else 0)


def read_shard(text: str) -> tuple[int, int]:
    """``2/3`` as (2, 3).

    Raises:
      ConfigError: anything but two numbers, the first from 1 to the second.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= parts:
        raise ConfigError(f"--shard = {text!r}: must be such as 2/3, the second of three parts")
    return part, parts


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
