"""Exact match of trained parameters per number of pairs: rows, table, JSON and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from jax.sharding import Mesh

from armt_jax.config import Experiment, ExperimentConfig, TaskConfig
from armt_jax.evaluation.evaluate import Evaluator
from armt_jax.evaluation.figures import capacity_figure, exact_match_figure
from armt_jax.evaluation.results import (
    ResultRow,
    git_commit,
    result_row,
    update_results,
)
from armt_jax.evaluation.scoring import AnswerAtEnd
from armt_jax.models import create_model
from armt_jax.models.protocol import Params
from armt_jax.tasks.associative_retrieval import AssociativeRetrieval
from armt_jax.tasks.frozen_sets import frozen_size, load_frozen_together
from armt_jax.training.state import count_parameters


def evaluate_lengths(
    config: ExperimentConfig,
    params: Params,
    step: int,
    task: TaskConfig,
    lengths: Iterable[int],
    samples: int,
    mesh: Mesh | None = None,
) -> list[ResultRow]:
    """A row for every number of pairs: unseen contexts of the test set, one query each.

    A set that has fewer contexts than ``samples`` is used whole. ``mesh``: see ``Evaluator``.
    """
    model = create_model(config.model)
    batch_size = min(config.evaluation.batch_size, samples)
    evaluator = Evaluator(model, AnswerAtEnd(task.value_size), batch_size, mesh)
    commit, num_params = git_commit(), count_parameters(params)
    rows = []
    for num_pairs in sorted(set(lengths)):
        sizes = dataclasses.replace(task, num_pairs=num_pairs)
        frozen = AssociativeRetrieval(
            **dataclasses.asdict(sizes), num_queries=1, random_num_pairs=False
        )
        count = min(samples, frozen_size(frozen, "test"))
        correct, asked = evaluator(params, load_frozen_together(frozen, "test", count))
        row = result_row(
            **dataclasses.asdict(sizes),
            model=model_name(config),
            rule=config.model.memory_rule,
            num_params=num_params,
            samples=asked,
            correct=correct,
            seed=config.seed,
            step=step,
            commit=commit,
        )
        rows.append(row)
    return rows


def model_name(config: Experiment) -> str:
    """Such as ``armt-gpt2-4x128`` or ``mamba-4x128``: family, backbone if any, layers, width."""
    model = config.model
    if model.is_state_space:
        return f"{model.family}-{model.n_layer}x{model.d_model}"
    return f"{model.family}-{model.backbone}-{model.n_layer}x{model.d_model}"


def write_report(
    folder: Path, rows: Sequence[ResultRow], variant: str, trained_pairs: int | None
) -> None:
    """``results.json`` and the figures of ``rows`` in ``folder``.

    What was measured before stays in the file, and in the figures what was of the same checkpoint
    and sizes of key and value.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {(row.step, row.key_size, row.value_size) for row in rows}
    drawn = [
        row
        for row in update_results(folder / "results.json", rows)
        if (row.step, row.key_size, row.value_size) in sizes
    ]
    exact_match_figure(
        folder / "exact_match.png", drawn, variant=variant, trained_pairs=trained_pairs
    )
    if variant == "remember":
        remembered = [row for row in drawn if row.variant == variant]
        capacity_figure(folder / "capacity.png", remembered, trained_pairs=trained_pairs)
