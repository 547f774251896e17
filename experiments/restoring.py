"""The checkpoint of a run that a command was asked for."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import jax

from armt_jax.config import AnyExperiment, BabilongExperiment, ConfigError
from armt_jax.processes import mark_agreed, process_count
from armt_jax.sharding import data_mesh
from armt_jax.training.checkpoints import BEST, LATEST, Checkpoints, Restored
from armt_jax.training.state import abstract_state
from armt_jax.training.workdir import read_config
from armt_jax.tuning import plain_params, tuned_model, tuned_optimizer

_CHECKPOINTS = "checkpoints"


def which_checkpoint(folder: Path, step: str) -> str | int:
    """``--step`` of a command: ``latest``, ``best`` or a number.

    Raises:
      ConfigError: something else, or a folder without checkpoints.
    """
    if step not in (LATEST, BEST) and not step.isdecimal():
        raise ConfigError(f"--step = {step!r}: must be {LATEST}, {BEST} or a number of steps")
    if not (folder / _CHECKPOINTS).is_dir():
        raise ConfigError(f"--workdir = {str(folder)!r}: has no checkpoint yet")
    return int(step) if step.isdecimal() else step


def restore(config: AnyExperiment, folder: Path, which: str | int) -> Restored:
    """A checkpoint of the run in ``folder``, low-rank changes merged into the parameters.

    ``which`` is from ``which_checkpoint``.

    Raises:
      ConfigError: no checkpoint yet, no such one, or all of them damaged.
    """
    # Several processes have no device in common, so all hold the state.
    mesh = data_mesh(jax.device_count()) if process_count() > 1 else None
    model = tuned_model(config.model, config.tuning)
    optimizer = tuned_optimizer(config.optimizer, config.tuning)
    template = abstract_state(model, optimizer, mesh)
    reader = Checkpoints(folder / _CHECKPOINTS, read_only=True)
    found = reader.restore(template, which, warn=lambda text: print(text, file=sys.stderr))
    if found is None:
        raise mark_agreed(ConfigError(f"--workdir = {str(folder)!r}: has no checkpoint yet"))
    params = plain_params(config, found.state.params)
    return found._replace(state=found.state._replace(params=params))


def babilong_run(workdir: str | None, step: str) -> tuple[BabilongExperiment, Restored]:
    """A run of BABILong, whose ``workdir`` is where it lies now, and a checkpoint of it.

    ``workdir`` and ``step`` are what the command was given.

    Raises:
      ConfigError: no folder named, a run of something else, or what ``restore`` raises.
    """
    if not workdir:
        raise ConfigError("--workdir is missing: must name the folder of a BABILong run")
    folder = Path(workdir)
    config = read_config(folder)
    if not isinstance(config, BabilongExperiment):
        raise ConfigError(f"--workdir = {workdir!r}: must be a run of BABILong, not {config.name}")
    config = dataclasses.replace(config, workdir=workdir)
    return config, restore(config, folder, which_checkpoint(folder, step))
