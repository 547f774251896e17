"""BABILong as an experiment: settings, stages, training, evaluation that goes on, and results."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from armt_jax.config import BabilongExperiment, ConfigError, from_config_dict
from armt_jax.evaluation import babilong as babilong_module
from armt_jax.evaluation.babilong import BabilongEvaluator
from armt_jax.evaluation.babilong_results import (
    Answer,
    AnswerFile,
    cell,
    read_cells,
    write_cells,
)
from armt_jax.models import create_model
from armt_jax.tasks.babilong.invented import invented_moves
from armt_jax.tasks.babilong.invented_carrying import invented_carrying
from armt_jax.tasks.babilong.invented_gifts import invented_gifts
from armt_jax.tasks.babilong.invented_relations import invented_relations
from armt_jax.tasks.babilong.stage_data import BabilongData
from armt_jax.training.experiment_stages import create_stages
from configs import babilong
from experiments.babilong_report import evaluate_lengths

pytestmark = pytest.mark.usefixtures("without_data")

ABOUT = {
    "model": "m",
    "rule": "armt",
    "seed": 0,
    "step": 7,
    "commit": "c",
    "noise": "books",
    "facts": "babi",
    "trained_tokens": 1024,
}


def values(variant: str, **task: Any) -> dict[str, Any]:
    plain = babilong.get_config(variant).to_dict()
    plain["task"] |= task
    return plain


def tiny(folder: Path, **task: Any) -> BabilongExperiment:
    """The smoke run, without any data."""
    plain = values("qa1,tiny", **task) | {"workdir": str(folder)}
    config = from_config_dict(plain)
    assert isinstance(config, BabilongExperiment)
    return config


@pytest.mark.parametrize("preset", babilong.PRESETS)
@pytest.mark.parametrize("task", ["qa1", "qa2", "qa3", "qa4", "qa5", "qa20"])
def test_presets_are_complete_and_valid(task: str, preset: str) -> None:
    plain = values(f"{task},{preset}")
    config = from_config_dict(plain)
    assert isinstance(config, BabilongExperiment)
    assert plain.keys() == {field.name for field in dataclasses.fields(config)}
    for name, group in plain.items():
        if isinstance(group, dict):
            fields = dataclasses.fields(getattr(config, name))
            assert group.keys() == {field.name for field in fields}, name
    with pytest.raises(ConfigError, match="variant = 'qa21': must be a task qa1 to qa20"):
        babilong.get_config("qa21")


@pytest.mark.parametrize(
    ("group", "field", "value", "message"),
    [
        ("task", "name", "babi", "task.name = 'babi': must be one of babilong"),
        ("task", "task", "qa6", "must be one of qa1, qa2, qa3, qa4, qa5"),
        ("task", "segment_size", 200, "segment length = 200: must be at most"),
        ("task", "segment_overlap", 48, "task.segment_overlap = 48: must be from 0 to 47, below"),
        ("task", "lenght", 1, "task.lenght = 1: unknown key"),
        ("curriculum", "noise", [0.5, 2.0], r"curriculum.noise\[1\] = 2.0: must be from 0 to 1"),
        ("curriculum", "max_facts", [1], r"curriculum.max_facts = \(1,\): needs 2 entries"),
        ("curriculum", "names", [8, 8], r"curriculum.names\[1\] = 8: must be 0, or at least"),
        ("curriculum", "names", [1, 0], r"curriculum.names\[0\] = 1: must be 0, or at least"),
        ("curriculum", "noise_before", [0, -1], r"noise_before\[1\] = -1: must be 0 or more"),
        ("curriculum", "drift_weight", [0.1, 0.1], r"drift_weight\[0\] = 0.1: must be 0, or"),
        ("curriculum", "noise_choices", [1, 0], r"noise_choices\[1\] = 0: must be at least 1"),
        ("curriculum", "noise_choices", [2, 1], r"noise_choices\[0\] = 2: must be 1 with"),
        ("curriculum", "noise_planted", [0.0, 1.5], r"noise_planted\[1\] = 1.5: must be from 0"),
        ("curriculum", "noise_planted", [0.5, 0.5], r"noise_planted\[0\] = 0.5: must be 0 with"),
        (
            "curriculum",
            "learning_rate_factor",
            [1.0, 0.0],
            r"learning_rate_factor\[1\] = 0.0: must be positive",
        ),
        ("curriculum", "difficulty", [0, 1], r"curriculum.difficulty\[0\] = 0: must be at least 1"),
        (
            "curriculum",
            "difficulty",
            [1, 2],
            r"difficulty\[1\] = 2: must be at most 1, what qa1",
        ),
        ("curriculum", "noise_mined", [0, -1], r"noise_mined\[1\] = -1: must be 0 or more"),
        ("curriculum", "noise_mined", [8, 8], r"noise_mined\[0\] = 8: must be 0 with"),
        ("curriculum", "gate_weight", [0.0, -0.1], r"gate_weight\[1\] = -0.1: must be 0, or"),
        ("model", "family", "rmt", r"gate_weight = \(0.0, 0.1\): must be all 0 with .* 'rmt'"),
        ("curriculum", "segment_size", [0, 200], "segment length = 200: must be at most"),
        ("evaluation", "lengths", ["4 k"], r"evaluation.lengths\[0\] = '4 k': must be a number"),
    ],
)
def test_impossible_settings_are_refused(group: str, field: str, value: Any, message: str) -> None:
    plain = values("qa1,tiny")
    plain["model"]["backbone"] = "gpt2"  # whose positions run out
    plain[group][field] = value
    with pytest.raises(ConfigError, match=message):
        from_config_dict(plain)


@pytest.mark.parametrize(
    ("task", "difficulty", "facts", "names"),
    [
        ("qa1", 1, 17, 17),
        ("qa2", 1, 10, 18),
        ("qa2", 3, 10, 18),
        ("qa3", 3, 13, 19),
        ("qa3", 4, 19, 19),  # 18 of few people, things and places; facts never exceed names
        ("qa4", 1, 11, 17),
        ("qa5", 2, 8, 17),
    ],
)
def test_there_are_names_for_all_that_invented_facts_are_about(
    task: str, difficulty: int, facts: int, names: int
) -> None:
    plain = values(f"{task},tiny")
    plain["curriculum"]["max_facts"] = [facts, 0]
    plain["curriculum"]["difficulty"] = [difficulty, 1]
    with pytest.raises(ConfigError, match=rf"curriculum.names\[0\] = 16: .* at least .*{facts}"):
        from_config_dict(plain)
    plain["curriculum"]["names"] = [names - 1, 0]
    with pytest.raises(ConfigError, match=rf"= {names - 1}: must be 0, or at least"):
        from_config_dict(plain)
    plain["curriculum"]["names"] = [names, 0]
    from_config_dict(plain)


def test_names_stand_for_what_the_task_tells_of(tmp_path: Path) -> None:
    inventions = {
        "qa2": invented_carrying,
        "qa3": invented_carrying,
        "qa4": invented_relations,
        "qa5": invented_gifts,
    }
    for task in ("qa1", *inventions):
        (tmp_path / task).mkdir()
        plain = values(f"{task},tiny") | {"workdir": str(tmp_path / task)}
        config = from_config_dict(plain)
        assert isinstance(config, BabilongExperiment)
        data = create_stages(config)[0].data
        assert isinstance(data, BabilongData)
        invention = data.maker.invention
        if task == "qa1":
            assert invention is invented_moves
        else:
            assert isinstance(invention, functools.partial)
            assert (invention.func, invention.args) == (inventions[task], (1,))
            label = "qa4, 2 segments of 24 tokens, at most 2 facts, up to 1 in each, of 16 names"
            assert task != "qa4" or data.label == f"{label}, difficulty 1 of 2"
        assert data.maker.num_queries == 2
        example = data.maker.forked(np.random.default_rng(0))
        assert example.query_mask.any()


def test_a_stage_reads_what_its_settings_say(tmp_path: Path) -> None:
    invented = tiny(tmp_path)
    assert create_stages(invented)[0].label == (
        "qa1, 2 segments of 24 tokens, at most 2 facts, up to 2 in each, of 16 names"
    )
    assert invented.trained_tokens == 4 * (48 - 8) + 8
    config = dataclasses.replace(
        invented,
        curriculum=dataclasses.replace(
            invented.curriculum,
            names=(0, 0),
            segment_size=(0, 0),
            random_num_segments=(True, False),
        ),
    )
    first, second = create_stages(config)
    assert isinstance(first.data, BabilongData)
    assert first.label == "qa1, 2 segments of 48 tokens, at most 2 facts, up to 2 in each"
    assert second.label == ("qa1, 4 segments of 48 tokens, up to 2 of noise before and 3 behind")
    assert first.data.maker.noise_choices == 1
    assert first.data.maker.planter is None
    assert isinstance(second.data, BabilongData)
    for maker in (second.data.maker, second.data.validation_maker):
        assert maker.noise_choices == 4
        assert maker.likeness is not None
        assert maker.planter is not None
        assert maker.planter.share == 0.5
    assert (second.data.scoring.drift_weight, second.data.scoring.gate_weight) == (0.1, 0.1)
    place = {"start": 0, "num_workers": 0, "stage": 0, "shard_index": 0, "shard_count": 1}
    stream = first.data.stream(0, 16, **place)
    batch = next(stream)
    stream.close()
    assert batch.context.shape == (16, 2, 48)
    # Two facts, in one segment or in two; noise up to half of the room between them.
    used = batch.context_mask.any(-1).sum(1)
    assert set(used) == {1, 2}
    whole = second.data.stream(0, 16, **place)
    assert next(whole).context_mask.any(-1).all()
    whole.close()
    counts = batch.context_mask.sum(-1)[batch.context_mask.any(-1)]
    assert 5 <= counts.min() < counts.max() <= 16 + 0.5 * 43
    assert len(np.unique(batch.context_mask.argmax(-1))) > 5
    tokenizer = first.data.maker.books.tokenizer
    for row in range(16):
        text = tokenizer.decode(batch.context[row][batch.context_mask[row]])
        asked = tokenizer.decode(batch.queries[row, 0][batch.query_mask[row, 0]])
        who, where = asked.removeprefix("Where is ").split("?")
        *_, last = re.finditer(rf"{who} [a-z ]+ the ([a-z]+)\.", text)
        assert last[1] == where.strip()
    # Several questions a context in training, one in validation, each with its answer marked.
    assert batch.query_mask.any(-1).sum(1).max() > 1
    validation = second.data.validation(6)
    assert (validation.query_mask.any(-1).sum(1) == 1).all()
    assert validation.context_mask.all()  # full length
    longest = first.data.scoring.longest
    assert 2 <= batch.loss_mask.sum(-1).max() <= longest
    again = create_stages(config)[1].data.validation(6)
    jax.tree.map(np.testing.assert_array_equal, validation, again)


def test_a_small_tokenizer_stays_with_its_run(tmp_path: Path) -> None:
    create_stages(tiny(tmp_path))
    file = tmp_path / "tokenizer.json"
    before = file.read_bytes()
    create_stages(tiny(tmp_path))
    assert file.read_bytes() == before
    plain: dict[str, Any] = values("qa1,tiny") | {"workdir": str(tmp_path)}
    plain["model"]["vocab_size"] = 300
    config = from_config_dict(plain)
    with pytest.raises(ConfigError, match=r"vocab_size = 300: must be at least 512"):
        create_stages(config)


def test_books_and_gpt2_are_asked_for_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task.noise = 'books': needs .* ARMT_DATA_DIR"):
        create_stages(tiny(tmp_path, noise="books"))
    with pytest.raises(ConfigError, match=r"task.tokenizer = 'gpt2': needs .* ARMT_DATA_DIR"):
        create_stages(tiny(tmp_path, tokenizer="gpt2"))


def test_an_evaluation_goes_on_behind_its_last_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path)
    params = create_model(config.model).init(jax.random.key(0))
    read: list[int] = []
    original = babilong_module.read_contexts

    def count(reader: Any, batch: Any, **options: Any) -> Any:
        read.append(len(batch))
        if len(read) == 2 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        return original(reader, batch, **options)

    monkeypatch.setattr(babilong_module, "read_contexts", count)
    evaluator = BabilongEvaluator(config, params, 7, tmp_path / "evaluation")
    with pytest.raises(KeyboardInterrupt):
        evaluator.answers("256", 6)
    (tmp_path / "again").touch()
    evaluator = BabilongEvaluator(config, params, 7, tmp_path / "evaluation")
    answers = evaluator.answers("256", 6)
    assert read == [4, 2, 2]  # four were there
    assert [answer.id for answer in answers] == list(range(6))
    other = BabilongEvaluator(config, params, 7, tmp_path / "other").answers("256", 6)
    assert answers == other
    # Another checkpoint, another length: other answers.
    BabilongEvaluator(config, params, 8, tmp_path / "evaluation").answers("256", 6)
    evaluator.answers("300", 2)
    assert read == [4, 2, 2, 4, 2, 4, 2, 2]
    with pytest.raises(ConfigError, match="is too short for every story"):
        evaluator.answers("3", 2)


def test_a_model_that_answers_right_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the model's answers replaced by the text's, strict match is whole."""
    config = tiny(tmp_path)
    params = create_model(config.model).init(jax.random.key(0))
    evaluator = BabilongEvaluator(config, params, 7, tmp_path / "evaluation")
    chosen = babilong_module.evaluation_set(config.task, evaluator.books, "256", 4)
    right = [[evaluator.books.tokenizer.bare(sample.question.answer)] for sample in chosen]
    monkeypatch.setattr(babilong_module, "answer_prompts", lambda *args, **options: right)
    one = cell(evaluator.answers("256", 4), **ABOUT)
    assert (one.correct, one.samples, one.exact_match, one.label_match) == (4, 4, 1.0, 1.0)


def test_the_file_of_cells_keeps_other_lengths_of_the_same_parameters(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    params = create_model(config.model).init(jax.random.key(0))
    path = tmp_path / "evaluation" / "babilong.json"

    def evaluated(lengths: str, samples: int, step: int = 7) -> list[tuple[str, int, int | None]]:
        asked = lengths.split(",")
        told = evaluate_lengths(config, params, step, tmp_path, asked, samples)
        assert [(one.length, one.samples) for one in told] == [(one, samples) for one in asked]
        return [(one.length, one.samples, one.step) for one in read_cells(path)]

    assert evaluated("300,200", 2) == [("200", 2, 7), ("300", 2, 7)]
    assert evaluated("1k", 1) == [("200", 2, 7), ("300", 2, 7), ("1k", 1, 7)]
    assert evaluated("1000,300", 3) == [("200", 2, 7), ("300", 3, 7), ("1000", 3, 7)]
    assert evaluated("200", 1, step=8) == [("200", 1, 8)]  # other parameters
    path.write_text("{}")
    with pytest.raises(ConfigError, match="must be a file of BABILong cells"):
        evaluated("200", 1)


def answer(index: int, output: str, length: str = "4k") -> Answer:
    return Answer("qa1", length, "set", index, "Where is Mary?", "office", output, 7)


def test_an_answer_cut_short_is_dropped_and_a_damaged_one_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    file = AnswerFile(path)
    assert file.read() == []
    file.append([answer(0, "office"), answer(1, "garden")])
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert file.read() == [answer(0, "office")]
    file.append([answer(2, "hallway")])
    assert file.read() == [answer(0, "office"), answer(2, "hallway")]
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(ConfigError, match="line 1: is not an answer"):
        file.read()


def test_cells_hold_both_metrics_and_their_file_is_checked(tmp_path: Path) -> None:
    made = cell([answer(0, "office"), answer(1, "the office"), answer(2, "garden")], **ABOUT)
    assert (made.correct, made.samples, made.label_match) == (1, 3, pytest.approx(2 / 3))
    assert made.exact_match_low < 1 / 3 < made.exact_match_high
    with pytest.raises(ConfigError, match="must be of one task and length"):
        cell([answer(0, "x"), answer(1, "x", "1M")], **ABOUT)
    path = tmp_path / "cells.json"
    write_cells(path, [made])
    assert read_cells(path) == [made]
    assert json.loads(path.read_text())["cells"][0]["task"] == "qa1"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(ConfigError, match=r"version 2, must be 'armt_jax.babilong' version 1"):
        read_cells(path)
    path.write_text("{")
    with pytest.raises(ConfigError, match="must be a file of BABILong cells"):
        read_cells(path)
