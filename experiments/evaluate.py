"""Evaluate a checkpoint of a run at any number of pairs.

    python -m experiments.evaluate --workdir=runs/ar_remember --pairs=10,50,100 [--step=best]

Prints a table, and writes JSON and figures into the ``evaluation`` folder of the run.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
from absl import flags

from armt_jax.config import ConfigError, ExperimentConfig, TaskConfig
from armt_jax.evaluation.tables import print_table
from armt_jax.models import create_model
from armt_jax.processes import is_main, mark_agreed, process_count, together
from armt_jax.sharding import data_mesh
from armt_jax.training.checkpoints import BEST, LATEST, Checkpoints, Restored
from armt_jax.training.optimizer import create_optimizer
from armt_jax.training.state import abstract_state
from armt_jax.training.workdir import read_config
from experiments import errors, launch_flags, report
from experiments.command_line import parse_flags

_CHECKPOINTS = "checkpoints"
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_PAIRS = flags.DEFINE_string("pairs", None, "Numbers of pairs, such as 10,50,100.")
_STEP = flags.DEFINE_string("step", LATEST, "Checkpoint: latest, best, or a step.")
_SAMPLES = flags.DEFINE_integer("samples", None, "Contexts per number of pairs.")
_VARIANT = flags.DEFINE_string("variant", None, "remember or rewrite, instead of the run's task.")
_KEY_SIZE = flags.DEFINE_integer("key_size", None, "Digits of a key, instead of the run's task.")


def main(argv: list[str]) -> None:
    """Parse the flags, evaluate and report."""
    parse_flags(argv)
    if not _WORKDIR.value:
        raise ConfigError("--workdir is missing: must name the folder of a run")
    folder = Path(_WORKDIR.value)
    launch_flags.join()
    with together():
        config = read_config(folder)
        task = _task(config)
        lengths = config.evaluation.num_pairs if _PAIRS.value is None else _numbers(_PAIRS.value)
        samples = config.evaluation.samples if _SAMPLES.value is None else _SAMPLES.value
        if samples < 1:
            raise ConfigError(f"--samples = {samples}: must be at least 1")
        for num_pairs in lengths:
            dataclasses.replace(task, num_pairs=num_pairs)
            config.model.check_text((num_pairs + 1) * _segment_length(task))
        which = _which(folder)
    found = _restore(config, folder, which)
    rows = report.evaluate_lengths(config, found.state.params, found.step, task, lengths, samples)
    trained_pairs = max(config.curriculum.num_pairs)
    with together():
        if is_main():
            report.write_report(folder / "evaluation", rows, task.variant, trained_pairs)
            print_table(rows, title=f"{config.name}, step {found.step:,}")


def _task(config: ExperimentConfig) -> TaskConfig:
    changes: dict[str, Any] = {"num_pairs": 1}
    if _VARIANT.value is not None:
        changes["variant"] = _VARIANT.value
    if _KEY_SIZE.value is not None:
        changes["key_size"] = _KEY_SIZE.value
    task = dataclasses.replace(config.task, **changes)
    config.model.check_segment(_segment_length(task))
    return task


def _segment_length(task: TaskConfig) -> int:
    return task.key_size + task.value_size + 2


def _which(folder: Path) -> str | int:
    which = _STEP.value
    if which not in (LATEST, BEST):
        if not which.isdecimal():
            raise ConfigError(f"--step = {which!r}: must be {LATEST}, {BEST} or a number of steps")
        which = int(which)
    if not (folder / _CHECKPOINTS).is_dir():
        raise ConfigError(f"--workdir = {str(folder)!r}: has no checkpoint yet")
    return which


def _restore(config: ExperimentConfig, folder: Path, which: str | int) -> Restored:
    # Several processes have no device in common, so all hold the state.
    mesh = data_mesh(jax.device_count()) if process_count() > 1 else None
    model, optimizer = create_model(config.model), create_optimizer(config.optimizer)
    template = abstract_state(model, optimizer, mesh)
    reader = Checkpoints(folder / _CHECKPOINTS, read_only=True)
    found = reader.restore(template, which, warn=lambda text: print(text, file=sys.stderr))
    if found is None:
        raise mark_agreed(ConfigError(f"--workdir = {str(folder)!r}: has no checkpoint yet"))
    return found


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise ConfigError(f"--pairs = {text!r}: must be numbers of at least 1, such as 10,50,100")
    return tuple(int(part) for part in parts)


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
