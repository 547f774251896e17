"""BABILong's metrics, against what is published about stored answers."""

from __future__ import annotations

import csv

import pytest

from armt_jax.config import ConfigError
from armt_jax.evaluation.babilong_metric import (
    TASK_LABELS,
    label_match,
    score_answers,
    strict_match,
    task_labels,
)

# Published for gemini-3-flash-preview: right answers in percent, qa1 to qa5.
PUBLISHED = {
    "0k": (100, 98, 87, 100, 97),
    "32k": (77, 50, 30, 79, 82),
    "64k": (75, 44, 27, 74, 77),
    "128k": (66, 31, 21, 62, 62),
    "512k": (61, 35, 21, 74, 67),
    "1M": (57, 28, 30, 71, 67),
}


@pytest.mark.parametrize("length", PUBLISHED)
def test_stored_answers_score_what_is_published(data_dir, length):
    folder = data_dir / "babilong" / "predictions" / "gemini-3-flash-preview"
    for task, want in zip(TASK_LABELS, PUBLISHED[length], strict=True):
        (path,) = folder.glob(f"{task}_{length}_*.csv")
        with open(path, newline="", encoding="utf-8") as file:
            rows = [(r["output"], r["target"], r["question"]) for r in csv.DictReader(file)]
        scores = score_answers(task, rows)
        assert scores.total == len(rows)
        percent = 100 * scores.labelled / scores.total
        # Sets of 100 to the question; the larger ones are published without decimals.
        assert percent == want if scores.total == 100 else abs(percent - want) <= 0.5


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
