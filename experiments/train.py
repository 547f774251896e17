"""Training an experiment, then the report on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from armt_jax.config import (
    AnyExperiment,
    BabilongExperiment,
    ExperimentConfig,
    LanguageModellingExperiment,
)
from armt_jax.evaluation.figures import training_figure
from armt_jax.evaluation.results import ResultRow
from armt_jax.evaluation.tables import print_table
from armt_jax.evaluation.training_log import read_training_log
from armt_jax.processes import is_main, together
from armt_jax.training.loop import Trainer, TrainResult
from armt_jax.training.metrics import FILE_NAME
from armt_jax.training.workdir import Workdir
from armt_jax.tuning import plain_params
from experiments import (
    babilong_report,
    language_modelling_report,
    recall_report,
    retrieval_report,
)


def train_and_evaluate(config: AnyExperiment) -> TrainResult:
    """Train to the end, evaluate, print a table and the result, write JSON and figures."""
    with Workdir(config) as workdir:
        trainer = Trainer(config, workdir)
        result = _plain(config, trainer.run())
        if isinstance(config, ExperimentConfig):
            _report(config, workdir.path, trainer, result)
        elif isinstance(config, LanguageModellingExperiment):
            language_modelling_report.after_training(config, workdir.path, result)
        elif isinstance(config, BabilongExperiment):
            babilong_report.after_training(config, workdir.path, trainer, result)
        else:
            recall_report.after_training(config, workdir.path, trainer, result)
    return result


def _plain(config: AnyExperiment, result: TrainResult) -> TrainResult:
    """With the parameters of the model itself: low-rank changes merged."""
    params = plain_params(config, result.state.params)
    return dataclasses.replace(result, state=result.state._replace(params=params))


def _report(config: ExperimentConfig, folder: Path, trainer: Trainer, result: TrainResult) -> None:
    lengths = {*config.evaluation.num_pairs, config.task.num_pairs}
    rows = retrieval_report.evaluate_lengths(
        config,
        result.state.params,
        result.position.step,
        config.task,
        lengths,
        config.evaluation.samples,
        trainer.mesh,
    )
    with together():
        if is_main():
            _write(config, folder, trainer, result, rows)


def _write(
    config: ExperimentConfig,
    folder: Path,
    trainer: Trainer,
    result: TrainResult,
    rows: list[ResultRow],
) -> None:
    trained_pairs = max(config.curriculum.num_pairs)
    retrieval_report.write_report(folder / "evaluation", rows, config.task.variant, trained_pairs)
    labels = tuple(stage.label for stage in trainer.stages)
    log = read_training_log(folder / FILE_NAME, stage_labels=labels)
    training_figure(folder / "training.png", log)
    print_table(rows, title=config.name)
    row = next(row for row in rows if row.num_pairs == config.task.num_pairs)
    print(
        f"{config.name}: exact_match={row.exact_match:.3f} pairs={row.num_pairs} "
        f"train_seconds={result.seconds:.0f}",
        flush=True,
    )
