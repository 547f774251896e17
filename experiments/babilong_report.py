"""BABILong: answers at each length, a table, cells as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from armt_jax.config import BabilongExperiment
from armt_jax.evaluation.babilong import BabilongEvaluator
from armt_jax.evaluation.babilong_results import (
    BabilongCell,
    cell,
    cells_of,
    with_cell,
    write_cells,
)
from armt_jax.evaluation.results import git_commit
from armt_jax.models.protocol import Params
from armt_jax.tasks.babilong import setup
from armt_jax.training.loop import Trainer, TrainResult
from experiments.reading_bar import ReadingBar
from experiments.retrieval_report import model_name

FOLDER = "evaluation"
FILE_NAME = "babilong.json"


def after_training(
    config: BabilongExperiment, folder: Path, trainer: Trainer, result: TrainResult
) -> None:
    """Evaluate at the lengths of the configuration, and end with one line."""
    cells = evaluate_lengths(
        config,
        result.state.params,
        result.position.step,
        folder,
        config.evaluation.lengths,
        config.evaluation.samples,
    )
    last = cells[-1]
    print(
        f"{config.name}: exact_match={last.exact_match:.3f} length={last.length} "
        f"samples={last.samples} train_seconds={result.seconds:.0f}",
        flush=True,
    )


def evaluate_lengths(
    config: BabilongExperiment,
    params: Params,
    step: int,
    folder: Path,
    lengths: Sequence[str],
    samples: int,
) -> list[BabilongCell]:
    """A cell for every length, written and printed as soon as it is there.

    The file keeps what it has of other lengths, if the same parameters answered.
    """
    about = {
        "model": model_name(config),
        "rule": config.model.memory_rule,
        "seed": config.seed,
        "step": step,
        "noise": config.task.noise,
        "facts": "simulator" if setup.data_folder(config.task) is None else "babi",
        "trained_tokens": config.trained_tokens,
    }
    path = folder / FOLDER / FILE_NAME
    written = cells_of(path, task=config.task.task, **about)
    cells: list[BabilongCell] = []
    with ReadingBar() as bar:

        def show(length: str, done: int, total: int) -> None:
            bar.update(f"{config.task.task}, length {length}", done, total)

        evaluator = BabilongEvaluator(config, params, step, folder / FOLDER, show)
        for length in lengths:
            one = cell(evaluator.answers(length, samples), **about, commit=git_commit())
            cells.append(one)
            written = with_cell(written, one)
            write_cells(path, written)
            bar.message(f"{one.task}, {length} tokens: {one.correct} of {one.samples} right")
    print_cells(cells, f"{config.name}, step {step:,}")
    return cells


def print_cells(cells: Sequence[BabilongCell], title: str) -> None:
    """A table for the terminal."""
    table = Table(title=title)
    for header in ("task", "tokens", "exact match, % [95 % CI]", "by label, %", "samples"):
        table.add_column(header, justify="left" if header == "task" else "right")
    for one in cells:
        low, high = 100 * one.exact_match_low, 100 * one.exact_match_high
        table.add_row(
            one.task,
            one.length,
            f"{100 * one.exact_match:.1f} [{low:.1f}, {high:.1f}]",
            "-" if one.label_match is None else f"{100 * one.label_match:.1f}",
            f"{one.samples:,}",
        )
    Console().print(table)
