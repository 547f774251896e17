"""The table of parameters that a training begins with: which are trained, and how fast."""

from __future__ import annotations

from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from armt_jax.config import AnyExperiment, OptimizerConfig, TuningConfig
from armt_jax.processes import is_main
from armt_jax.sharding.rules import leaf_names
from armt_jax.training.optimizer import is_muon_matrix
from armt_jax.tuning.groups import rate_factors


class ParameterRow(NamedTuple):
    """Attributes: name, shape, number of entries, and highest learning rate (0: frozen)."""

    name: str
    shape: tuple[int, ...]
    count: int
    rate: float


def parameter_rows(
    optimizer: OptimizerConfig, tuning: TuningConfig, params: Any
) -> list[ParameterRow]:
    """A row for every parameter (arrays or shapes)."""
    factors = dict(leaf_names(rate_factors(tuning, params)))
    rows = []
    for name, leaf in leaf_names(params):
        muon = optimizer.name == "muon" and is_muon_matrix(name.rsplit(".", 1)[-1], leaf.shape)
        rate = optimizer.muon_learning_rate if muon else optimizer.learning_rate
        rows.append(ParameterRow(name, tuple(leaf.shape), leaf.size, factors[name] * rate))
    return rows


def print_parameters(rows: list[ParameterRow], console: Console | None = None) -> None:
    """The table, and how many parameters are trained, on the error stream."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header, side in (("parameter", "left"), ("shape", "left"), ("count", "right")):
        table.add_column(header, justify=side)  # pyright: ignore[reportArgumentType]
    table.add_column("learning rate", justify="right")
    for row in rows:
        rate = f"{row.rate:g}" if row.rate else "frozen"
        shape = " x ".join(str(size) for size in row.shape)
        table.add_row(row.name, shape, f"{row.count:,}", rate)
    console = console or Console(stderr=True, highlight=False, width=120)
    console.print(table)
    trained = sum(row.count for row in rows if row.rate)
    total = sum(row.count for row in rows)
    share = f"{trained:,} of {total:,} parameters are trained"
    console.print(share if trained < total else f"{total:,} parameters, all trained")


def show_parameters(config: AnyExperiment, params: Any) -> None:
    """The table of an experiment; of several processes the first one prints it."""
    if is_main():
        print_parameters(parameter_rows(config.optimizer, config.tuning, params))
