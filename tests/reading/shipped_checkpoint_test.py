"""The checkpoint that comes with the repository answers what its README says it does."""

from __future__ import annotations

import json
from pathlib import Path

from armt_jax.config import BabilongExperiment
from armt_jax.reading import Memory, checkpoint_experiment, load_reading_model
from armt_jax.tasks.babilong.books import GeneratedBooks

FOLDER = Path(__file__).parents[2] / "checkpoints" / "babilong_qa1"


def test_questions_about_a_text_are_answered() -> None:
    model = load_reading_model(FOLDER)
    sentences = GeneratedBooks("test").text(0)[:6_000].split(". ")
    told = ("Mary went to the garden", "John moved to the kitchen", "Mary journeyed to the office")
    for place, fact in zip((10, 40, 70), told, strict=True):
        sentences.insert(place, fact)
    memory = Memory(model).read(". ".join(sentences))
    assert memory.ask(["Where is Mary?", "Where is John?"]) == ["office", "kitchen"]


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


def test_it_is_small_and_holds_no_paths() -> None:
    files = sorted(path.name for path in FOLDER.iterdir())
    assert files == ["config.json", "model.safetensors", "tokenizer.json"]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 8_000_000
    assert "/" not in (FOLDER / "config.json").read_text().replace("<|/", "")
