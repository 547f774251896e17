"""What a figure needs, beside the results: ``results/figures/NAME.json``.

A report reads it to know which runs are missing, and which models share a figure.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from armt_jax.config import ConfigError
from armt_jax.evaluation.results import atomic_write
from experiments.sweep_grid import Sweep, cell, tuning_cells

SCHEMA = "armt_jax.figure_plan"
SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """The runs of a figure.

    Attributes:
      figure: such as ``fig2b``.
      pool: folder of the results, beside the plan.
      variant: ``remember`` or ``rewrite``.
      lengths: pairs or updates.
      trained_pairs: longest context of the training.
      models, seeds: whose runs they are, ``MODEL_seedN.json``.
      rates: of these each model took the best.
      tuning_lengths: where it was best; empty with one rate.
    """

    figure: str
    pool: str
    variant: str
    lengths: tuple[int, ...]
    trained_pairs: int
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    rates: tuple[str, ...]
    tuning_lengths: tuple[int, ...]


def write_plan(sweep: Sweep) -> Path:
    """Write the plan of a sweep, replacing an older one; returns its file."""
    one = cell(sweep, next(iter(sweep.models)), sweep.seeds[0], next(iter(sweep.rates)))
    plan = Plan(
        figure=sweep.figure,
        pool=sweep.pool,
        variant=one.config.task.variant,
        lengths=sweep.lengths,
        trained_pairs=max(one.config.curriculum.num_pairs),
        models=tuple(sweep.models),
        seeds=sweep.seeds,
        rates=tuple(sweep.rates),
        tuning_lengths=sweep.tuning.lengths if sweep.tuning and tuning_cells(sweep) else (),
    )
    path = sweep.results_folder.parent / f"{sweep.figure}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **dataclasses.asdict(plan)}
    atomic_write(path, (json.dumps(content, indent=1) + "\n").encode())
    return path


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """What ``write_plan`` wrote.

    Raises:
      ConfigError: no such file, or not a plan of this version.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            f"{path}: is missing; python -m experiments.sweep --config=configs/figures/"
            f"{path.stem}.py writes it"
        )
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        marks = (content.pop("schema"), content.pop("schema_version"))
        if marks != (SCHEMA, SCHEMA_VERSION):
            raise ConfigError(f"{path}: is {marks}, must be {(SCHEMA, SCHEMA_VERSION)}")
        lists = {key: tuple(value) for key, value in content.items() if isinstance(value, list)}
        return Plan(**{**content, **lists})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: must be the plan of a figure ({error})") from None
