"""MQAR and events on entities: layout, answers against a symbolic oracle, and refusals."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax.config import ConfigError, from_config_dict
from armt_jax.evaluation.results import read_results
from armt_jax.evaluation.scoring import AnswersInText
from armt_jax.models import Segment, create_model
from armt_jax.recurrence import run_segments
from armt_jax.tasks import entity_events
from armt_jax.tasks.entity_events import EntityEvents
from armt_jax.tasks.mqar import MarkedText, Mqar
from armt_jax.tasks.recall_experiments import evaluation_tasks, recall_tasks
from armt_jax.tasks.recall_stages import RecallData, frozen
from configs import entity_events as entity_config
from configs import mqar as mqar_config
from experiments.train import train_and_evaluate

MQAR = Mqar(num_pairs=4, length=30, vocab_size=64, segment_size=8)
EVENTS = EntityEvents(
    num_events=60,
    num_entities=6,
    num_attributes=4,
    numeric_attributes=2,
    value_size=3,
    delete_share=0.3,
    num_queries=0,
)


def draw(task: Any, count: int) -> list[Any]:
    rng = np.random.default_rng(0)
    return [task.sample(rng) for _ in range(count)]


def test_mqar_answers_are_the_values_that_followed_their_keys() -> None:
    for sample in draw(MQAR, 50):
        text = sample.context.reshape(-1)[sample.context_mask.reshape(-1)]
        assert text.size == 30
        memory = dict(zip(text[:8:2].tolist(), text[1:8:2].tolist(), strict=True))
        assert len(memory) == 4
        assert all(0 < key < 32 <= value < 64 for key, value in memory.items())
        asked = text[sample.places].tolist()
        assert sorted(asked) == sorted(memory)
        assert [memory[key] for key in asked] == sample.queries[:, 0].tolist()
        assert np.all(np.diff(sample.places) > 0)
        assert np.all(sample.places >= 8)
        assert np.all(sample.places % 2 == 0)
        assert not sample.context.reshape(-1)[30:].any()


def test_mqar_asks_early_by_its_power_law() -> None:
    task = dataclasses.replace(MQAR, num_pairs=1, length=42)  # 20 places
    first = np.mean([sample.places[0] == 2 for sample in draw(task, 2000)])
    weights = np.arange(1, 21) ** (0.01 - 1)
    assert abs(first - weights[0] / weights.sum()) < 0.04
    even = [sample.places[0] for sample in draw(dataclasses.replace(task, power=1.0), 2000)]
    assert abs(np.mean(np.array(even) == 2) - 1 / 20) < 0.02


def test_mqar_filler() -> None:
    blank = dataclasses.replace(MQAR, random_filler=False)
    for sample in draw(blank, 5):
        assert int((sample.context != 0).sum()) == 3 * 4
    assert np.mean([(sample.context != 0).sum() for sample in draw(MQAR, 20)]) > 25


class Machine:
    """What events do, told from their tokens alone."""

    def __init__(self) -> None:
        self.values: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.seen: list[str] = []

    def read(self, event: list[int]) -> None:
        name, op, value = tuple(event[:3]), event[3], tuple(event[4:-1])
        assert event[-1] == entity_events.END
        if op == entity_events.DELETE:
            assert name in self.values
            del self.values[name]
            self.seen.append("delete")
        else:
            assert op == entity_events.SET
            self.seen.append("overwrite" if name in self.values else "set")
            self.values[name] = value

    def answer(self, query: list[int]) -> tuple[int, ...]:
        assert query[3] == entity_events.ASK
        return self.values.get(tuple(query[:3]), (entity_events.NONE,) * 3)


def test_events_are_answered_as_the_oracle_does() -> None:
    kinds: set[str] = set()
    deleted = 0
    for sample in draw(EVENTS, 40):
        machine, named = Machine(), set()
        for event in sample.context.tolist():
            machine.read(event)
            named.add(tuple(event[:3]))
        asked = [
            query for query, real in zip(sample.queries, sample.query_mask, strict=True) if real
        ]
        assert {tuple(query[:3].tolist()) for query in asked} == named
        assert len(asked) == len(named)
        for query in asked:
            answer = tuple(query[4:-1].tolist())
            assert answer == machine.answer(query.tolist())
            deleted += answer[0] == entity_events.NONE
            assert query[-1] == entity_events.END
        assert not sample.queries[len(asked) :].any()
        kinds.update(machine.seen)
    assert kinds == {"set", "overwrite", "delete"}
    assert deleted > 20


def test_values_are_words_or_numbers_by_attribute() -> None:
    for sample in draw(EVENTS, 10):
        for event in sample.context.tolist():
            attribute, op, value = event[2] - 16, event[3], event[4:-1]
            if op == entity_events.DELETE:
                assert value == [entity_events.NONE] * 3
            elif attribute >= 2:
                assert all(0 <= digit < 10 for digit in value)
            else:
                assert 32 <= value[0] < 48
                assert value[1:] == [entity_events.BLANK] * 2
            assert 0 <= attribute < 4
    entities = {tuple(e[:2]) for s in draw(EVENTS, 30) for e in s.context.tolist()}
    assert len(entities) > 60  # others in each context


def test_frozen_sets_stay_what_they_were() -> None:
    digest = hashlib.sha256()
    for task in (MQAR, EVENTS):
        for split in ("validation", "test"):
            for leaf in jax.tree.leaves(frozen(task, split, 3)):
                digest.update(np.ascontiguousarray(leaf).tobytes())
    assert digest.hexdigest() == "0e86f160a2bec7e2760c58ef78ad072f434aa588e9c230f6b3617a79fd9e8cd1"
    more, fewer = frozen(EVENTS, "test", 4), frozen(EVENTS, "test", 2)
    np.testing.assert_array_equal(more.context[:2], fewer.context)
    assert fewer.queries.shape[1] == 1
    with pytest.raises(ConfigError, match=r"num_samples = 1001: must be in \[1, 1000\]"):
        frozen(MQAR, "validation", 1001)
    with pytest.raises(ConfigError, match="split = 'train': must be one of validation, test"):
        frozen(MQAR, "train", 1)


def test_training_batches_depend_on_seed_and_stage_and_go_on_anywhere() -> None:
    def batch(seed: int = 0, stage: int = 0, start: int = 0, **shard: int) -> Any:
        stream = RecallData(EVENTS).stream(
            seed, 4, start=start, stage=stage, num_workers=0, **shard
        )
        first = next(stream)
        stream.close()
        return first

    whole = batch()
    np.testing.assert_array_equal(whole.context, batch().context)
    for other in (batch(seed=1), batch(stage=1), batch(start=1)):
        assert not np.array_equal(whole.context, other.context)
    half = batch(shard_index=1, shard_count=2)
    np.testing.assert_array_equal(whole.context[2:], half.context)


@pytest.mark.slow
def test_answers_in_a_text_are_scored_where_they_are_asked() -> None:
    config = mqar_config.get_config("tiny")
    model = create_model(from_config_dict(config).model)
    params = model.init(jax.random.key(0))
    task = Mqar(num_pairs=2, length=14, vocab_size=64, segment_size=8)
    samples = draw(task, 3)
    batch = MarkedText(*(np.stack(leaves) for leaves in zip(*samples, strict=True)))
    text = (batch.context.swapaxes(0, 1), batch.context_mask.swapaxes(0, 1))
    segments = Segment(*map(jnp.asarray, text))
    _, hidden = run_segments(model, params, model.init_state(3), segments, schedule="sequential")
    logits = np.asarray(model.readout(params, hidden)).swapaxes(0, 1).reshape(3, 16, -1)
    losses, right = [], 0
    for row, sample in enumerate(samples):
        for place, value in zip(sample.places, sample.queries[:, 0], strict=True):
            scores = logits[row, place]
            losses.append(np.log(np.exp(scores).sum()) - scores[value])
            right += int(scores.argmax() == value)
    scores = AnswersInText().score(model, params, batch)
    assert float(scores.loss) == pytest.approx(np.sum(losses), rel=1e-4)
    assert (int(scores.matches.correct), int(scores.matches.total)) == (right, 6)
    assert float(AnswersInText().count(batch)) == 6
    with pytest.raises(ConfigError, match=r"mesh.stage = 2: must be 1"):
        AnswersInText().score(model, params, batch, stages=2)


@pytest.mark.parametrize("module", [mqar_config, entity_config])
def test_configurations_describe_tasks_that_can_be(module: Any) -> None:
    for variant in module.VARIANTS:
        config: Any = from_config_dict(module.get_config(variant))
        assert len(recall_tasks(config)) == config.curriculum.num_stages
        assert evaluation_tasks(config)
    with pytest.raises(ConfigError, match="variant = 'big': must be one of default"):
        module.get_config("big")


@pytest.mark.parametrize(
    ("module", "field", "value", "line"),
    [
        (mqar_config, "task.length", 7, "task.length = 7: must be at least 8, for 2 pairs"),
        (mqar_config, "task.num_pairs", 32, "task.num_pairs = 32: must be at most 31, the keys"),
        (mqar_config, "model.vocab_size", 63, "model.vocab_size = 63: must be at least 64"),
        (mqar_config, "curriculum.length", (16,), "curriculum.length = .* needs 2 entries"),
        (mqar_config, "evaluation.length", (16,), "evaluation.length = .* as many entries"),
        (
            mqar_config,
            "task.name",
            "mqa",
            "task.name = 'mqa': must be one of babilong, mqar, entity",
        ),
        (entity_config, "task.num_entities", 257, "task.num_entities = 257: must be 1 to 256"),
        (entity_config, "task.numeric_attributes", 3, "task.numeric_attributes = 3: must be 0 to"),
        (entity_config, "task.delete_share", 1.0, "task.delete_share = 1.0: must be in"),
        (entity_config, "model.vocab_size", 105, "model.vocab_size = 105: must be at least 106"),
    ],
)
def test_impossible_settings_are_refused(module: Any, field: str, value: Any, line: str) -> None:
    config = module.get_config("tiny").to_dict()
    group, name = field.split(".")
    config[group][name] = value
    with pytest.raises(ConfigError, match=line):
        from_config_dict(config)


@pytest.mark.slow
@pytest.mark.parametrize("module", [mqar_config, entity_config])
def test_a_tiny_run_trains_and_evaluates(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    config: Any = from_config_dict(module.get_config("tiny"))
    train_and_evaluate(dataclasses.replace(config, workdir=str(tmp_path / "run")))
    rows = read_results(tmp_path / "run" / "evaluation" / "results.json")
    assert [row.variant for row in rows] == [config.task.name] * 2
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{config.name}: exact_match=0.")
