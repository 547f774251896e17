"""The checkpoint that a command was asked for: of a run, or an exported one."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from armt_jax.config import (
    AnyExperiment,
    BabilongExperiment,
    ConfigError,
    LanguageModellingExperiment,
)
from armt_jax.evaluation.results import atomic_write
from armt_jax.interop.weights import read_json
from armt_jax.models.protocol import Params
from armt_jax.processes import mark_agreed, process_count
from armt_jax.reading import checkpoint_experiment, load_reading_model
from armt_jax.reading.checkpoint_folder import CONFIG
from armt_jax.sharding import data_mesh
from armt_jax.tasks.babilong.setup import TOKENIZER_FILE
from armt_jax.training.checkpoints import BEST, LATEST, Restored
from armt_jax.training.workdir import read_config
from armt_jax.tuning import restored
from armt_jax.tuning.restored import CHECKPOINTS
from experiments.shared_flags import CHECKPOINT, OUT, STEP, WORKDIR


def which_checkpoint(folder: Path, step: str) -> str | int:
    """``--step`` of a command: ``latest``, ``best`` or a number.

    Raises:
      ConfigError: something else, or a folder without checkpoints.
    """
    if step not in (LATEST, BEST) and not step.isdecimal():
        raise ConfigError(f"--step = {step!r}: must be {LATEST}, {BEST} or a number of steps")
    if not (folder / CHECKPOINTS).is_dir():
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
    warn = lambda text: print(text, file=sys.stderr)  # noqa: E731
    found = restored(config, folder, which, mesh=mesh, warn=warn)
    if found is None:
        raise mark_agreed(ConfigError(f"--workdir = {str(folder)!r}: has no checkpoint yet"))
    return found


class BabilongModel(NamedTuple):
    """What was trained on BABILong: its settings, parameters and step.

    ``config.workdir`` is the folder that takes what is measured.
    """

    config: BabilongExperiment
    params: Params
    step: int


class LanguageModel(NamedTuple):
    """What was trained on text; see ``BabilongModel``."""

    config: LanguageModellingExperiment
    params: Params
    step: int


def babilong_model() -> BabilongModel:
    """What ``--workdir`` (and ``--step``) or ``--checkpoint`` (and ``--out``) name.

    Raises:
      ConfigError: none or both of them, a run of something else, or what ``restore`` and
        ``load_reading_model`` raise.
    """
    if (WORKDIR.value is None) == (CHECKPOINT.value is None):
        raise ConfigError(
            "--workdir or --checkpoint: one of them must name a folder, of a BABILong run or of "
            "experiments.export"
        )
    if CHECKPOINT.value is not None:
        trained = exported_model(CHECKPOINT.value, OUT.value, _check_babilong)
        assert isinstance(trained, BabilongModel)
        return trained
    workdir = WORKDIR.value or ""
    if OUT.value is not None:
        raise ConfigError(f"--out = {OUT.value!r}: goes with --checkpoint; a run has its folder")
    config = read_config(Path(workdir))
    if not isinstance(config, BabilongExperiment):
        raise ConfigError(f"--workdir = {workdir!r}: must be a run of BABILong, not {config.name}")
    config = dataclasses.replace(config, workdir=workdir)
    found = restore(config, Path(workdir), which_checkpoint(Path(workdir), STEP.value))
    return BabilongModel(config, found.state.params, found.step)


def _check_babilong(config: AnyExperiment) -> None:
    if not isinstance(config, BabilongExperiment):
        raise ConfigError(
            f"--checkpoint = {CHECKPOINT.value!r}: must be of a run of BABILong, not {config.name}"
        )


def exported_model(
    checkpoint: str, out: str | None, check: Callable[[AnyExperiment], None]
) -> BabilongModel | LanguageModel:
    """What ``experiments.export`` wrote, and a folder for it in ``out``, by default ``runs``.

    That folder has the digest of the parameters in its name, so no two models share one, and the
    tokenizer. ``check`` is told the experiment before anything is written.

    Raises:
      ConfigError: no such folder, or one that does not say of what experiment it is; what
        ``check`` raises.
    """
    if STEP.value != LATEST:
        raise ConfigError(f"--step = {STEP.value!r}: is for a run; a checkpoint folder has one")
    reading = load_reading_model(checkpoint)
    folder = Path(out or "runs") / f"{reading.name}_{reading.parameters_digest[:8]}"
    config = checkpoint_experiment(checkpoint, folder)
    check(config)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / TOKENIZER_FILE, (Path(checkpoint) / TOKENIZER_FILE).read_bytes())
    step = read_json(Path(checkpoint) / CONFIG)["step"]
    if isinstance(config, BabilongExperiment):
        return BabilongModel(config, reading.params, step)
    return LanguageModel(config, reading.params, step)
