"""MQAR and events on entities: exact match at each length, a table, JSON."""

from __future__ import annotations

from pathlib import Path

from armt_jax.config import RecallExperiment
from armt_jax.evaluation.evaluate import Evaluator
from armt_jax.evaluation.figures import training_figure
from armt_jax.evaluation.results import ResultRow, git_commit, result_row, write_results
from armt_jax.evaluation.tables import print_table
from armt_jax.evaluation.training_log import read_training_log
from armt_jax.models import create_model
from armt_jax.models.protocol import Params
from armt_jax.processes import is_main, together
from armt_jax.tasks.entity_events import EntityEvents
from armt_jax.tasks.recall_experiments import evaluation_tasks
from armt_jax.tasks.recall_stages import frozen, scoring_of
from armt_jax.training.loop import Trainer, TrainResult
from armt_jax.training.metrics import FILE_NAME
from armt_jax.training.state import count_parameters
from experiments.retrieval_report import model_name


def after_training(
    config: RecallExperiment, folder: Path, trainer: Trainer, result: TrainResult
) -> None:
    """Evaluate, print a table and one line, write JSON and the figure of the training."""
    rows = evaluate_lengths(config, result.state.params, result.position.step)
    with together():
        if not is_main():
            return
        (folder / "evaluation").mkdir(exist_ok=True)
        write_results(folder / "evaluation" / "results.json", rows)
        labels = tuple(stage.label for stage in trainer.stages)
        log = read_training_log(folder / FILE_NAME, stage_labels=labels)
        training_figure(folder / "training.png", log)
        print_table(rows, title=config.name)
        last = rows[-1]
        unit = "events" if last.variant == "entity_events" else "pairs"
        print(
            f"{config.name}: exact_match={last.exact_match:.3f} {unit}={last.num_pairs} "
            f"train_seconds={result.seconds:.0f}",
            flush=True,
        )


def evaluate_lengths(config: RecallExperiment, params: Params, step: int) -> list[ResultRow]:
    """A row for every length of the configuration, of unseen contexts.

    MQAR asks every key of a text, so its samples are questions and not texts.
    """
    model, rows = create_model(config.model), []
    samples = config.evaluation.samples
    about = {"commit": git_commit(), "num_params": count_parameters(params)}
    for task in evaluation_tasks(config):
        evaluator = Evaluator(model, scoring_of(task), config.evaluation.batch_size)
        correct, asked = evaluator(params, frozen(task, "test", samples))
        events = isinstance(task, EntityEvents)
        row = result_row(
            variant=config.task.name,
            model=model_name(config),
            rule=config.model.memory_rule,
            num_pairs=task.num_events if events else task.num_pairs,
            key_size=3 if events else 1,
            value_size=task.value_size if events else 1,
            samples=asked,
            correct=correct,
            seed=config.seed,
            step=step,
            **about,
        )
        rows.append(row)
    return rows
