"""Stages, when they end, and the position that a checkpoint keeps."""

from __future__ import annotations

import dataclasses
import json

import pytest

from armt_jax.config import CurriculumConfig
from armt_jax.tasks.associative_retrieval import AssociativeRetrieval
from armt_jax.tasks.stage_data import RetrievalData
from armt_jax.training.curriculum import (
    Position,
    Stage,
    evaluation_due,
    retrieval_stages,
    score,
    stage_ends,
)

CONFIG = CurriculumConfig(
    variant=("remember", "rewrite"),
    num_pairs=(2, 20),
    key_size=(1, 2),
    key_symbols=(16, 16),
    random_symbols=(False,) * 2,
    max_steps=(10, 25),
    target=(0.9, 1.1),
    num_queries=0,
    random_num_pairs=True,
)
FIRST, SECOND = retrieval_stages(CONFIG, 3)


def task_of(stage: Stage) -> AssociativeRetrieval:
    assert isinstance(stage.data, RetrievalData)
    return stage.data.task


def test_stages_carry_their_entries() -> None:
    task = task_of(SECOND)
    assert (SECOND.index, SECOND.max_steps, SECOND.target) == (1, 25, 1.1)
    assert (task.variant, task.num_pairs, task.key_size, task.value_size) == ("rewrite", 20, 2, 3)
    assert (task.num_queries, task.random_num_pairs) == (0, True)
    assert SECOND.label == "rewrite, 20 pairs of key size 2"
    few = retrieval_stages(dataclasses.replace(CONFIG, key_symbols=(16, 4)), 3)[1]
    assert task_of(few).key_symbols == 4
    assert few.label == "rewrite, 20 pairs of key size 2 of 4 symbols"
    mixed = retrieval_stages(dataclasses.replace(CONFIG, random_symbols=(False, True)), 3)
    assert [task_of(stage).random_symbols for stage in mixed] == [False, True]
    assert mixed[1].label == "rewrite, 20 pairs of key size 2 of 2 to 16 symbols"


def test_evaluations_come_regularly_and_at_the_end() -> None:
    due = [step for step in range(1, 26) if evaluation_due(SECOND, step, 10)]
    assert due == [10, 20, 25]


@pytest.mark.parametrize(
    ("step", "exact_match", "ends"),
    [(5, 0.9, True), (5, 0.89, False), (10, 0.1, True), (9, 0.1, False)],
)
def test_a_stage_ends_at_its_target_or_out_of_steps(
    step: int, exact_match: float, ends: bool
) -> None:
    assert stage_ends(FIRST, step, exact_match) is ends


def test_a_target_above_one_is_never_reached() -> None:
    assert not stage_ends(SECOND, 24, 1.0)
    assert stage_ends(SECOND, 25, 1.0)


def test_position_goes_on_and_survives_json() -> None:
    position = Position()
    for _ in range(7):
        position = position.stepped()
    position = position.advanced(0.95, True, 12.5).stepped()
    assert (position.stage, position.step_in_stage, position.step) == (1, 1, 8)
    assert [(r.stage, r.steps, r.reached) for r in position.history] == [(0, 7, True)]
    assert Position.from_json(json.loads(json.dumps(position.to_json()))) == position


def test_a_later_stage_scores_higher_than_any_match_before_it() -> None:
    assert score(0, 0.2) < score(0, 0.9) < score(0, 1.0) < score(1, 0.0) < score(1, 0.5)
