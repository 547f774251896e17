"""A sweep as a value: models, rates, seeds and lengths over one experiment, checked field by field.

A file of ``configs/figures/`` returns the sweep as a ``ConfigDict``; ``read_sweep`` turns it into a
``Sweep``. Every setting of every model must be one that the base experiment has: an unknown one is
refused by its name before anything is trained.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from armt_jax.config import ConfigError, ExperimentConfig, from_config_dict
from experiments.command_line import load_config

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How a model's rate is chosen: a short training of each, on a seed that no figure shows.

    Attributes:
      seed: of these trainings.
      lengths: evaluated; the mean of exact match over them decides.
      settings: changes of the base experiment, such as a shorter curriculum.
    """

    seed: int
    lengths: tuple[int, ...]
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A grid of models and seeds, each evaluated at ``lengths``.

    Attributes:
      figure: whose runs these are, such as ``fig2b``.
      pool: figures of one pool share runs of equal name: ``fig2b`` and ``fig4a`` have ARMT's.
      base: the experiment that everything is a change of, ``configs/NAME.py:VARIANT``.
      results, runs: folders of results, and of checkpoints and logs.
      lengths: pairs, or updates.
      seeds: of the trainings.
      common: settings of all runs.
      models: settings of each model, by its name in the figure.
      rates: settings of optimizer and learning rate, by name; of several each model takes the best.
      tuning: how; None with one rate.
    """

    figure: str
    pool: str
    base: str
    results: str
    runs: str
    lengths: tuple[int, ...]
    seeds: tuple[int, ...]
    common: Mapping[str, Any]
    models: Mapping[str, Mapping[str, Any]]
    rates: Mapping[str, Mapping[str, Any]]
    tuning: Tuning | None

    @property
    def results_folder(self) -> Path:
        """Where the results of the runs are."""
        return Path(self.results) / "figures" / self.pool


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
      name: of its files, such as ``armt_seed0`` or ``tuning/armt_muon_5e-3``.
      model, rate: names in the sweep.
      config: what is trained, evaluated at ``config.evaluation.num_pairs``.
      result: its file.
      folder: of its log, and in ``run`` of its checkpoints.
    """

    name: str
    model: str
    rate: str
    config: ExperimentConfig
    result: Path
    folder: Path

    @property
    def is_tuning(self) -> bool:
        """Whether it only chooses a rate."""
        return self.name.startswith("tuning/")


def read_sweep(config: Any) -> Sweep:
    """The checked sweep of a ``ConfigDict``.

    Raises:
      ConfigError: an unknown or missing field of the sweep, or an empty grid. Settings of the runs
        are checked where they are made (``cell``).
    """
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    fields = {field.name for field in dataclasses.fields(Sweep)}
    for name in values:
        if name not in fields:
            known = ", ".join(field.name for field in dataclasses.fields(Sweep))
            raise ConfigError(f"{name}: unknown field of a sweep; it has {known}")
    for name in fields - values.keys():
        raise ConfigError(f"{name} is missing from the sweep")
    for name in ("lengths", "seeds"):
        values[name] = _numbers(name, values[name])
    for name in ("models", "rates"):
        if not isinstance(values[name], Mapping) or not values[name]:
            raise ConfigError(f"{name} = {values[name]!r}: must name at least one")
        for key in values[name]:
            if not _NAME.fullmatch(key):
                raise ConfigError(f"{name}.{key}: must be a name of letters, digits, _ . and -")
    if values["tuning"] is not None:
        values["tuning"] = _tuning(values["tuning"])
    elif len(values["rates"]) > 1:
        raise ConfigError("tuning = None: must say how one of several rates is chosen")
    return Sweep(**values)


def _tuning(values: Any) -> Tuning:
    names = [field.name for field in dataclasses.fields(Tuning)]
    if not isinstance(values, Mapping) or set(values) != set(names):
        raise ConfigError(f"tuning = {values!r}: must have {', '.join(names)} and nothing else")
    lengths = _numbers("tuning.lengths", values["lengths"])
    return Tuning(int(values["seed"]), lengths, values["settings"])


def _numbers(name: str, values: Any) -> tuple[int, ...]:
    whole = isinstance(values, list | tuple) and all(type(value) is int for value in values)
    if not whole or not values:
        raise ConfigError(f"{name} = {values!r}: must be whole numbers, at least one")
    if len(set(values)) != len(values):
        raise ConfigError(f"{name} = {values!r}: must not repeat one")
    return tuple(values)


def select(sweep: Sweep, models: str | None, seeds: str | None) -> Sweep:
    """The part of the sweep that flags ask for: names and numbers with commas between.

    Raises:
      ConfigError: a model or seed that the sweep has not.
    """
    chosen, numbers = dict(sweep.models), sweep.seeds
    if models is not None:
        names = [name.strip() for name in models.split(",")]
        for name in names:
            if name not in chosen:
                raise ConfigError(f"--models: {name!r} is none of {', '.join(chosen)}")
        chosen = {name: chosen[name] for name in chosen if name in names}
    if seeds is not None:
        wanted = [part.strip() for part in seeds.split(",")]
        known = {str(seed): seed for seed in sweep.seeds}
        for part in wanted:
            if part not in known:
                raise ConfigError(f"--seeds: {part!r} is none of {', '.join(known)}")
        numbers = tuple(known[part] for part in wanted)
    return dataclasses.replace(sweep, models=chosen, seeds=numbers)


def cell(sweep: Sweep, model: str, seed: int, rate: str) -> Cell:
    """The run of a figure: one model and seed, with the rate that was chosen.

    Raises:
      ConfigError: a setting that the base experiment does not have, or an impossible value; the
        message names the model.
    """
    return _cell(sweep, f"{model}_seed{seed}", model, seed, rate, sweep.lengths, {})


def tuning_cells(sweep: Sweep) -> list[Cell]:
    """The runs that choose a rate for each model; none where there is one rate only.

    Raises:
      ConfigError: as ``cell``.
    """
    tuning = sweep.tuning
    if tuning is None or len(sweep.rates) == 1:
        return []
    return [
        _cell(
            sweep,
            f"tuning/{model}_{rate}",
            model,
            tuning.seed,
            rate,
            tuning.lengths,
            tuning.settings,
        )
        for model in sweep.models
        for rate in sweep.rates
    ]


def _cell(
    sweep: Sweep,
    name: str,
    model: str,
    seed: int,
    rate: str,
    lengths: tuple[int, ...],
    settings: Mapping[str, Any],
) -> Cell:
    values = copy.deepcopy(load_config(sweep.base).to_dict())
    changes = {
        "common": sweep.common,
        f"models.{model}": sweep.models[model],
        f"rates.{rate}": sweep.rates[rate],
        "tuning.settings": settings,
    }
    for where, change in changes.items():
        merge(values, change, where)
    folder = Path(sweep.runs) / sweep.pool / name
    values |= {"name": f"{sweep.pool}_{name.replace('/', '_')}", "seed": seed}
    values |= {"workdir": str(folder / "run")}
    values["evaluation"]["num_pairs"] = lengths
    try:
        config = from_config_dict(values)
    except ConfigError as error:
        raise ConfigError(f"models.{model}: {error}") from None
    if not isinstance(config, ExperimentConfig):
        raise ConfigError(f"base = {sweep.base!r}: must be an experiment of associative retrieval")
    return Cell(name, model, rate, config, sweep.results_folder / f"{name}.json", folder)


def merge(values: dict[str, Any], changes: Mapping[str, Any], where: str) -> None:
    """Replace settings in ``values``; tuples may change their length, groups may not be replaced.

    Raises:
      ConfigError: a setting that ``values`` does not have; ``where`` says who asked for it.
    """
    for key, value in changes.items():
        name = f"{where}.{key}"
        if key not in values:
            raise ConfigError(f"{name} = {value!r}: unknown field; there is {', '.join(values)}")
        if isinstance(values[key], dict) != isinstance(value, Mapping):
            kind = "a group of settings" if isinstance(values[key], dict) else "a value"
            raise ConfigError(f"{name} = {value!r}: must be {kind}")
        if isinstance(value, Mapping):
            merge(values[key], value, name)
        else:
            values[key] = value
