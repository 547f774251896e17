"""What ``results/`` holds for a figure: its plan, the runs that are there, and those missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from armt_jax.config import ConfigError
from armt_jax.evaluation.capacity import estimate_pairs, num_values
from armt_jax.evaluation.intervals import MeanInterval
from armt_jax.evaluation.results import ResultRow
from armt_jax.evaluation.sweep_results import RunResult, read_run
from armt_jax.evaluation.tables import mean_and_interval
from experiments.sweep_plan import Plan, read_plan

_NAMED = 3  # runs of each code version that an error names


@dataclasses.dataclass(frozen=True)
class FigureData:
    """A figure's plan and its runs.

    Attributes:
      plan: what the figure needs.
      runs: those that are there, by model and seed.
      tuning: the runs that chose each model's rate, by model and rate.
      missing: what is not there, such as ``rmt seed 1`` or ``armt seed 0 at 500``.
      mixed: the code versions of the runs where they are several and that was allowed.
    """

    plan: Plan
    runs: dict[tuple[str, int], RunResult]
    tuning: dict[tuple[str, str], RunResult]
    missing: tuple[str, ...]
    mixed: tuple[str, ...] = ()

    @property
    def models(self) -> list[str]:
        """Models of which there is a run."""
        return [name for name in self.plan.models if any(name == model for model, _ in self.runs)]

    def of(self, model: str) -> list[RunResult]:
        """The runs of a model, by seed."""
        return [run for (name, _), run in sorted(self.runs.items()) if name == model]

    def rows(self, model: str, length: int) -> list[ResultRow]:
        """Of every seed that has that length."""
        found = [run.row(length) for run in self.of(model)]
        return [row for row in found if row is not None]

    def match(self, model: str, length: int) -> MeanInterval | None:
        """Exact match, a fraction (``mean_and_interval``); None where nothing was measured."""
        rows = self.rows(model, length)
        return mean_and_interval(rows) if rows else None

    def capacity(self, model: str, length: int) -> MeanInterval | None:
        """Stored pairs (Appendix B), from ``match``; None where nothing was measured."""
        rows = self.rows(model, length)
        if not rows:
            return None
        values = num_values(rows[0].value_size)
        mean, low, high, count = mean_and_interval(rows)
        stored, least, most = (estimate_pairs(one, length, values) for one in (mean, low, high))
        return MeanInterval(stored, least, most, count)

    def drawn_rows(self) -> list[ResultRow]:
        """The rows of all runs at the figure's lengths, each model a line of its own."""
        return [
            dataclasses.replace(row, model=model, rule=model)
            for model, seed in sorted(self.runs, key=self._order)
            for row in self.runs[model, seed].rows
            if row.num_pairs in self.plan.lengths
        ]

    def _order(self, key: tuple[str, int]) -> tuple[int, int]:
        return self.plan.models.index(key[0]), key[1]


def load_figure(results: Path, figure: str, *, mixed_versions: bool = False) -> FigureData:
    """The data of a figure below ``results``.

    Raises:
      ConfigError: no plan; a file that is no result of the run it is named after; runs of several
        versions of the code, unless ``mixed_versions``.
    """
    folder = results / "figures"
    plan = read_plan(folder / f"{figure}.json")
    runs, tuning, missing = {}, {}, []
    for model in plan.models:
        for seed in plan.seeds:
            path = folder / plan.pool / f"{model}_seed{seed}.json"
            if not path.is_file():
                missing.append(f"{model} seed {seed}")
                continue
            run = read_run(path)
            if (run.about.entry, run.about.seed) != (model, seed):
                raise ConfigError(f"{path}: is the run {run.name!r}, must be {model} seed {seed}")
            runs[model, seed] = run
            missing += [f"{run.name} at {n}" for n in run.missing(plan.lengths)]
        for rate in plan.rates if plan.tuning_lengths else ():
            path = folder / plan.pool / "tuning" / f"{model}_{rate}.json"
            if path.is_file():
                tuning[model, rate] = read_run(path)
            else:
                missing.append(f"{model} with rate {rate}")
    versions = _versions(list(runs.values()))
    if len(versions) > 1 and not mixed_versions:
        said = "; ".join(f"{version} of {', '.join(names)}" for version, names in versions.items())
        raise ConfigError(
            f"{figure}: its runs are of {len(versions)} versions of the code: {said}; run the old "
            "ones anew, or --mixed_versions says it in the report"
        )
    mixed = tuple(versions) if len(versions) > 1 else ()
    return FigureData(plan, runs, tuning, tuple(missing), mixed)


def _versions(runs: Sequence[RunResult]) -> dict[str, list[str]]:
    """``0.1.0 (code 1f2e...)`` of which runs, a few of them by name."""
    found: dict[str, list[str]] = {}
    for run in runs:
        version = f"{run.about.version} (code {run.about.code})"
        found.setdefault(version, []).append(run.name)
    return {
        version: names[:_NAMED] + ([f"{len(names) - _NAMED} more"] if len(names) > _NAMED else [])
        for version, names in found.items()
    }
