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
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from armt_jax.config import ConfigError
from experiments import errors
from experiments.command_line import parse_flags
from experiments.sweep_grid import Cell, Sweep, cell, read_sweep, select, tuning_cells
from experiments.sweep_plan import write_plan
from experiments.sweep_runner import (
    NoRateError,
    State,
    Status,
    Stopped,
    best_rate,
    run_cell,
    state_of,
)
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


def check(sweep: Sweep) -> None:
    """Make every run once: a setting that is wrong in any of them is said before one is started.

    Raises:
      ConfigError: see ``sweep_grid.cell``.
    """
    tuning_cells(sweep)
    for model in sweep.models:
        for rate in sweep.rates:
            cell(sweep, model, sweep.seeds[0], rate)


def rate_of(sweep: Sweep, model: str) -> str | None:
    """The rate that a model is trained with; None while it is not known.

    Raises:
      NoRateError: none trains.
    """
    tuning = [one for one in tuning_cells(sweep) if one.model == model]
    return best_rate(tuning) if tuning else next(iter(sweep.rates))


def survey(sweep: Sweep) -> list[tuple[str, State]]:
    """Where every run of the sweep stands, the rates' first."""
    states = [(one.name, state_of(one)) for one in tuning_cells(sweep)]
    for model in sweep.models:
        for seed in sweep.seeds:
            states.append((f"{model}_seed{seed}", _main_state(sweep, model, seed)))
    return states


def _main_state(sweep: Sweep, model: str, seed: int) -> State:
    try:
        rate = rate_of(sweep, model)
    except NoRateError as error:
        return State(Status.FAILED, str(error))
    if rate is None:
        return State(Status.WAITING)
    return state_of(cell(sweep, model, seed, rate))


class Runs:
    """The runs of one host.

    Attributes:
      unfinished: names of those that should be finished and are not.
    """

    def __init__(self, sweep: Sweep, part: int, parts: int, retry: bool) -> None:
        self._sweep, self._retry = sweep, retry
        self._part, self._parts = part, parts
        self.unfinished: list[str] = []

    def go(self) -> None:
        """Rates first, then the figure's runs, seed by seed: a figure of one seed comes early.

        Raises:
          Stopped: by a signal.
        """
        tuning = self._own(tuning_cells(self._sweep))
        for number, one in enumerate(tuning, start=1):
            self._run(one, f"[rate {number}/{len(tuning)}]")
        grid = [(model, seed) for seed in self._sweep.seeds for model in self._sweep.models]
        grid = self._own(grid)
        for number, (model, seed) in enumerate(grid, start=1):
            self._run_main(model, seed, f"[{number}/{len(grid)}]")

    def _own(self, runs: Sequence) -> list:
        return list(runs[self._part - 1 :: self._parts])

    def _run_main(self, model: str, seed: int, place: str) -> None:
        name = f"{model}_seed{seed}"
        state = _main_state(self._sweep, model, seed)
        rate = None if state.status is Status.WAITING else _known_rate(self._sweep, model)
        if rate is None:
            self._report(name, state, place)
            return
        self._run(cell(self._sweep, model, seed, rate), place)

    def _run(self, one: Cell, place: str) -> None:
        state = state_of(one)
        again = state.status is Status.FAILED and self._retry
        if again or state.status in (Status.MISSING, Status.STARTED):
            print(f"{place} {one.name}: running, log in {one.folder}", flush=True)
            state = run_cell(one)
        self._report(one.name, state, place)

    def _report(self, name: str, state: State, place: str) -> None:
        note = f": {state.note}" if state.note else ""
        print(f"{place} {name}: {state.status.value}{note}", flush=True)
        if state.status is not Status.FINISHED:
            self.unfinished.append(name)


def _known_rate(sweep: Sweep, model: str) -> str | None:
    try:
        return rate_of(sweep, model)
    except NoRateError:
        return None


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
