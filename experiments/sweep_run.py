"""One run of a sweep, in a process of its own: ``experiments.sweep`` starts it, nobody else.

    python -m experiments.sweep_run --cell_file=FOLDER/cell.json

A run that crashes, diverges or runs out of memory takes nothing with it. It goes on from its last
checkpoint; one whose training is finished is only evaluated again, at further lengths.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from armt_jax.config import ConfigError, ExperimentConfig, from_config_dict, to_dict
from armt_jax.evaluation.code_version import code_version
from armt_jax.evaluation.results import ResultRow, git_commit, read_results
from armt_jax.evaluation.sweep_results import About, RunResult, write_run
from armt_jax.models import create_model, state_size
from armt_jax.sharding import cpu_devices, use_cpu_cores
from armt_jax.training.loop import TrainResult
from benchmarks import flops
from experiments import errors
from experiments.command_line import parse_flags
from experiments.train import train_and_evaluate

BUSY = 75  # EX_TEMPFAIL: another process has this run
CELL = "cell.json"
_CELL_FILE = flags.DEFINE_string(
    "cell_file", None, "The run's cell.json, as experiments.sweep wrote it."
)


def main(argv: list[str]) -> None:
    """Train, evaluate, write the result."""
    parse_flags(argv)
    path = Path(_CELL_FILE.value or "")
    if not path.is_file():
        raise ConfigError(
            f"--cell_file = {str(path)!r}: must be a file that experiments.sweep wrote"
        )
    values = json.loads(path.read_text(encoding="utf-8"))
    with locked(path.parent):
        run_cell(values)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Leave with ``BUSY`` where another process has the run of ``folder``."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(BUSY)
        yield


def run_cell(values: dict[str, Any]) -> RunResult:
    """Do what ``cell.json`` says: ``entry``, ``rate``, ``result`` and the ``config``."""
    code, commit = code_version(), git_commit()  # before files may change under a long training
    config = from_config_dict(values["config"])
    if not isinstance(config, ExperimentConfig):
        raise ConfigError("cell.json: must hold an experiment of associative retrieval")
    use_cpu_cores(cpu_devices(config.mesh))
    trained = train_and_evaluate(config)
    rows = read_results(Path(config.workdir) / "evaluation" / "results.json")
    about = describe(config, values["entry"], values["rate"], trained, rows, code, commit)
    # A figure's lines are its models, whatever their rules are called.
    named = [dataclasses.replace(row, model=about.entry, commit=commit) for row in rows]
    result = RunResult(about, to_dict(config), tuple(named))
    write_run(values["result"], result)
    return result


def describe(
    config: ExperimentConfig,
    entry: str,
    rate: str,
    trained: TrainResult,
    rows: list[ResultRow],
    code: str,
    commit: str,
) -> About:
    """What the run's table says of it beside exact match."""
    optimizer = config.optimizer
    return About(
        entry=entry,
        family=config.model.family,
        seed=config.seed,
        rate=rate,
        optimizer=optimizer.name,
        learning_rate=optimizer.learning_rate,
        muon_learning_rate=optimizer.muon_learning_rate if optimizer.name == "muon" else None,
        num_params=rows[0].num_params,
        state_floats=state_size(create_model(config.model)),
        flops_per_token=flops_per_token(config),
        trained_pairs=max(config.curriculum.num_pairs),
        step=trained.position.step,
        stages_reached=tuple(stage.reached for stage in trained.position.history),
        train_seconds=trained.seconds,
        version=library_version(),
        code=code,
        commit=commit,
    )


def flops_per_token(config: ExperimentConfig) -> float:
    """Of reading one text of the trained length, on average over its tokens."""
    length = config.task.key_size + config.task.value_size + 2
    return flops.flops_per_token(config.model, max(config.curriculum.num_pairs), length)


def library_version() -> str:
    """Of the installed package; ``unknown`` where only its files are there."""
    try:
        return importlib.metadata.version("armt_jax")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
