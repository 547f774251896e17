"""Which runs of a sweep are whose turn, and where all of them stand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from experiments.sweep_grid import Cell, Sweep, cell, tuning_cells
from experiments.sweep_runner import NoRateError, State, Status, best_rate, run_cell, state_of

_POLL_SECONDS = 30.0


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
      unfinished: after ``go``, names of this host's runs that are not finished.
    """

    def __init__(
        self,
        sweep: Sweep,
        part: int = 1,
        parts: int = 1,
        *,
        retry: bool = False,
        run: Callable[[Cell], State] = run_cell,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """Part ``part`` of ``parts``; ``retry``: failed ones too.

        ``run`` runs a cell, ``pause`` waits for some seconds for another host.
        """
        self._sweep, self._retry, self._run_cell, self._pause = sweep, retry, run, pause
        self._part, self._parts = part, parts
        self.unfinished: list[str] = []

    def go(self) -> None:
        """Rates first, then the figure's runs, seed by seed: a figure of one seed comes early.

        Raises:
          Stopped: by a signal.
        """
        tuning = self._own(tuning_cells(self._sweep))
        grid = [(model, seed) for seed in self._sweep.seeds for model in self._sweep.models]
        grid = self._own(grid)
        for number, one in enumerate(tuning, start=1):
            self._run(one, f"[rate {number}/{len(tuning)}]")
        for number, (model, seed) in enumerate(grid, start=1):
            self._run_main(model, seed, f"[{number}/{len(grid)}]")
        # Asked again now: what another host had may be finished.
        states = [(one.name, state_of(one)) for one in tuning]
        for model, seed in grid:
            states.append((f"{model}_seed{seed}", _main_state(self._sweep, model, seed)))
        self.unfinished = [name for name, s in states if s.status is not Status.FINISHED]

    def _own(self, runs: Sequence) -> list:
        return list(runs[self._part - 1 :: self._parts])

    def _run_main(self, model: str, seed: int, place: str) -> None:
        name = f"{model}_seed{seed}"
        try:
            rate = self._find_rate(model)
        except NoRateError as error:
            self._report(name, State(Status.FAILED, str(error)), place)
            return
        if rate is None:
            self._report(name, State(Status.WAITING), place)
            return
        self._run(cell(self._sweep, model, seed, rate), place)

    def _find_rate(self, model: str) -> str | None:
        """The model's rate, whoever runs what decides it; None where that was stopped."""
        cells = [one for one in tuning_cells(self._sweep) if one.model == model]
        while (rate := rate_of(self._sweep, model)) is None:
            # Other hosts' share of the rates: ours to do, unless one of them is at it.
            states = {self._attempt(one, "[rate]").status for one in cells}
            open_ = states - {Status.FINISHED, Status.FAILED}
            if open_ - {Status.BUSY}:
                return None
            if open_:
                self._pause(_POLL_SECONDS)
        return rate

    def _run(self, one: Cell, place: str) -> None:
        self._report(one.name, self._attempt(one, place), place)

    def _attempt(self, one: Cell, place: str) -> State:
        state = state_of(one)
        again = state.status is Status.FAILED and self._retry
        if again or state.status in (Status.MISSING, Status.STARTED):
            print(f"{place} {one.name}: running, log in {one.folder}", flush=True)
            state = self._run_cell(one)
        return state

    @staticmethod
    def _report(name: str, state: State, place: str) -> None:
        note = f": {state.note}" if state.note else ""
        print(f"{place} {name}: {state.status.value}{note}", flush=True)
