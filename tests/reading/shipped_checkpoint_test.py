"""The checkpoints that come with the repository answer what its README says they do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from armt_jax.config import BabilongExperiment
from armt_jax.reading import Memory, checkpoint_experiment, load_reading_model
from armt_jax.tasks.babilong.books import GeneratedBooks

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
FOLDER = CHECKPOINTS / "babilong_qa1"
TOLD = {
    "qa1": (
        ("Mary went to the garden", "John moved to the kitchen", "Mary journeyed to the office"),
        {"Where is Mary?": "office", "Where is John?": "kitchen"},
    ),
    "qa2": (
        ("Mary went to the garden", "Mary took the apple there", "Mary went to the office"),
        {"Where is the apple?": "office"},
    ),
    "qa3": (
        (
            "Mary went to the garden",
            "Mary took the apple",
            "Mary went to the office",
            "Mary travelled to the kitchen",
        ),
        {
            "Where was the apple before the office?": "garden",
            "Where was the apple before the kitchen?": "office",
        },
    ),
    "qa4": (
        ("The kitchen is north of the office", "The garden is north of the kitchen"),
        {
            "What is north of the office?": "kitchen",
            "What is the kitchen north of?": "office",
            "What is north of the kitchen?": "garden",
        },
    ),
    "qa5": (
        ("Fred got the milk there", "Fred gave the milk to Mary", "Mary passed the milk to Bill"),
        {
            "Who gave the milk to Mary?": "Fred",
            "What did Fred give to Mary?": "milk",
            "Who did Mary give the milk to?": "Bill",
            "Who received the milk?": "Bill",
        },
    ),
}


SHIPPED = {f"babilong_{task}": task for task in TOLD} | {"babilong_qa1_armt": "qa1"}


def test_every_checkpoint_is_asked_something() -> None:
    assert SHIPPED.keys() == {path.name for path in CHECKPOINTS.iterdir()}


@pytest.mark.parametrize(("name", "task"), SHIPPED.items())
def test_questions_about_a_text_are_answered(name: str, task: str) -> None:
    model = load_reading_model(CHECKPOINTS / name)
    sentences = GeneratedBooks("test").text(0)[:6_000].split(". ")
    told, questions = TOLD[task]
    for place, fact in zip((10, 40, 70, 75), told, strict=False):
        sentences.insert(place, fact)
    memory = Memory(model).read(". ".join(sentences))
    assert memory.ask([*questions]) == [*questions.values()]


def test_it_says_what_it_can_be_evaluated_on(tmp_path: Path) -> None:
    model, experiment = load_reading_model(FOLDER), checkpoint_experiment(FOLDER, tmp_path)
    assert isinstance(experiment, BabilongExperiment)
    assert (experiment.task.task, experiment.trained_tokens) == ("qa1", 456)
    assert experiment.model == model.model.config
    task = experiment.task
    assert (task.segment_size, task.segment_overlap) == (model.segment_size, model.segment_overlap)


def test_its_experiment_is_known_without_settings_that_came_later(tmp_path: Path) -> None:
    values = json.loads((FOLDER / "config.json").read_text())
    assert values["experiment"]["curriculum"].pop("noise_planted") == [0.5]
    (tmp_path / "config.json").write_text(json.dumps(values))
    experiment = checkpoint_experiment(tmp_path, tmp_path)
    assert isinstance(experiment, BabilongExperiment)
    assert experiment.curriculum.noise_planted == (0.0,)


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_small_and_holds_no_paths(name: str) -> None:
    folder = CHECKPOINTS / name
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["config.json", "model.safetensors", "tokenizer.json"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8_000_000
    assert "/" not in (folder / "config.json").read_text().replace("<|/", "")
