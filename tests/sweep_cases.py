"""A small sweep, and results of its runs that nobody trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from armt_jax.config import to_dict
from armt_jax.evaluation.results import result_row
from armt_jax.evaluation.sweep_results import About, RunResult, write_run
from configs.figures.models import RATES
from experiments.sweep_grid import Cell, Sweep, read_sweep

SAMPLES = 100


def sweep_values(folder: Path, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "figure": "fig2b",
        "pool": "ar_rewrite",
        "base": "configs/ar_rewrite.py:tiny",
        "results": str(folder / "results"),
        "runs": str(folder / "runs"),
        "lengths": (1, 3),
        "seeds": (0, 1),
        "common": {"task": {"num_pairs": 3}},
        "models": {
            "armt": {"model": {"family": "armt"}},
            "rmt": {"model": {"family": "rmt"}},
        },
        "rates": {"muon_5e-3": RATES["muon_5e-3"]},
        "tuning": None,
    }
    return values | changes


def small_sweep(folder: Path, **changes: Any) -> Sweep:
    return read_sweep(sweep_values(folder, **changes))


def tuned_sweep(folder: Path, **changes: Any) -> Sweep:
    rates = {name: RATES[name] for name in ("muon_5e-3", "adamw_3e-3")}
    tuning = {
        "seed": 1000,
        "lengths": (2,),
        "settings": {"curriculum": {"max_steps": (4, 4)}, "task": {"num_pairs": 2}},
    }
    return small_sweep(folder, rates=rates, tuning=tuning, **changes)


def made_result(cell: Cell, correct: dict[int, int] | int = 50, **about: Any) -> RunResult:
    """A result of ``cell`` with so many right answers of 100 at each length."""
    config = cell.config
    lengths = config.evaluation.num_pairs
    counts = dict.fromkeys(lengths, correct) if isinstance(correct, int) else correct
    values: dict[str, Any] = {
        "entry": cell.model,
        "family": config.model.family,
        "seed": config.seed,
        "rate": cell.rate,
        "optimizer": config.optimizer.name,
        "learning_rate": config.optimizer.learning_rate,
        "muon_learning_rate": None,
        "num_params": 1000,
        "state_floats": 512,
        "flops_per_token": 1e6,
        "trained_pairs": max(config.curriculum.num_pairs),
        "step": 32,
        "stages_reached": (True, False),
        "train_seconds": 12.5,
        "version": "0.1.0",
        "code": "abc",
        "commit": "c" * 40,
    }
    rows = [
        result_row(
            variant=config.task.variant,
            model=cell.model,
            rule=config.model.memory_rule,
            num_params=1000,
            num_pairs=length,
            key_size=config.task.key_size,
            value_size=1,
            samples=SAMPLES,
            correct=right,
            seed=config.seed,
            step=32,
            commit="c" * 40,
        )
        for length, right in counts.items()
    ]
    return RunResult(About(**(values | about)), to_dict(config), tuple(rows))


def finish(cell: Cell, correct: dict[int, int] | int = 50, **about: Any) -> None:
    """Write such a result where the sweep looks for it."""
    write_run(cell.result, made_result(cell, correct, **about))
