"""BABILong's metrics (stored answers of others: stored_predictions_test.py)."""

from __future__ import annotations

import pytest

from armt_jax.config import ConfigError
from armt_jax.evaluation.babilong_metric import (
    label_match,
    score_answers,
    strict_match,
    task_labels,
)


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("kitchen", True),
        ("The milk is in the Kitchen.", True),
        ("The kitchen. Not the garden.", True),
        ("Not the garden, the kitchen", False),
        ("The milk is there. Kitchen.", False),
        ("", False),
        ("before the hallway it was in the kitchen", True),
    ],
)
def test_labels_of_the_first_sentence(output, right):
    question = "Where was the milk before the hallway? "
    assert label_match(output, "kitchen", question, task_labels("qa3")) is right


def test_labels_of_the_question_do_not_count():
    labels = task_labels("qa5")
    assert label_match("Fred gave the milk to Bill", "milk", "What did Fred give to Bill? ", labels)
    assert not label_match("Fred gave the milk", "Fred", "Who did Fred give the milk to? ", labels)
    assert label_match("Jeff", "Jeff", "Who gave the milk? ", labels)


def test_strict_is_equality():
    assert strict_match("garden", "garden")
    for output in ("Garden", " garden", "garden.", "garden garden", ""):
        assert not strict_match(output, "garden")


def test_other_tasks_need_their_labels():
    with pytest.raises(ConfigError, match="task = 'qa6': must be one of qa1"):
        score_answers("qa6", [])
    scores = score_answers(
        "qa6", [("Yes, it is.", "yes", "Is it? "), ("no", "no", "Is it? ")], ["yes", "no"]
    )
    assert scores == (1, 2, 2)
