"""An interrupted run, continued, ends bit-identical to one that was not interrupted."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from armt_jax.config import AnyExperiment, ConfigError, ExperimentConfig
from armt_jax.training.divergence import NonFiniteError
from armt_jax.training.interruption import Interrupted
from armt_jax.training.loop import Trainer, TrainResult
from armt_jax.training.metrics import WALL_CLOCK
from armt_jax.training.workdir import Workdir
from configs import ar_remember
from tests.config_values import retrieval

pytestmark = pytest.mark.usefixtures("compile_once")

STEPS = 9


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "frozen-sets"
    monkeypatch.setenv("ARMT_CACHE_DIR", str(folder))


def make_config(folder: Path, **train: int) -> ExperimentConfig:
    """Two stages of one shape (5 and 4 steps), the second with fresh moments."""
    config = retrieval(ar_remember.get_config("tiny").to_dict())
    return dataclasses.replace(
        config,
        workdir=str(folder),
        model=dataclasses.replace(config.model, d_model=8, d_mem=2, num_mem_tokens=1, d_ff=16),
        curriculum=dataclasses.replace(
            config.curriculum,
            variant=("remember", "rewrite"),
            num_pairs=(2, 2),
            max_steps=(5, 4),
            target=(1.1, 1.1),
        ),
        optimizer=dataclasses.replace(config.optimizer, reset_per_stage=True, warmup_steps=2),
        train=dataclasses.replace(
            config.train,
            **{"batch_size": 4, "log_every": 2, "eval_every": 3, "eval_samples": 8} | train,
        ),
    )


def train(config: AnyExperiment, before_step: Callable[[int], None] | None = None) -> TrainResult:
    """Run to the end; ``before_step`` is called with the steps done before each step."""
    with Workdir(config) as folder:
        trainer = Trainer(config, folder)
        step = trainer.step

        def watched(state: Any, batch: Any, rate: Any) -> Any:
            if before_step is not None:
                before_step(trainer.position.step)
            return step(state, batch, rate)

        trainer.step = watched
        return trainer.run()


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in WALL_CLOCK} for line in lines]


def assert_same_run(first: TrainResult, second: TrainResult, a: Path, b: Path) -> None:
    jax.tree.map(np.testing.assert_array_equal, first.state, second.state)
    assert metrics_of(a) == metrics_of(b)
    assert [dataclasses.replace(r, seconds=0.0) for r in first.position.history] == [
        dataclasses.replace(r, seconds=0.0) for r in second.position.history
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, Path]:
    patch = pytest.MonkeyPatch()
    patch.setenv("ARMT_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "frozen-sets"))
    folder = tmp_path_factory.mktemp("whole")
    result = train(make_config(folder))
    patch.undo()
    assert result.position.step == STEPS
    return result, folder


def stop(number: int, at: int) -> Callable[[int], None]:
    return lambda step: os.kill(os.getpid(), number) if step == at else None


def test_stopped_after_every_single_step(whole: tuple[TrainResult, Path], tmp_path: Path) -> None:
    config = make_config(tmp_path)
    for step in range(STEPS):
        number = (signal.SIGTERM, signal.SIGINT)[step % 2]
        with pytest.raises(Interrupted) as caught:
            train(config, stop(number, at=step))
        assert (caught.value.step, caught.value.signal_number) == (step + 1, number)
    result = train(config)
    assert_same_run(whole[0], result, whole[1], tmp_path)
    assert result.seconds > 0


class Killed(BaseException):
    """Stands for ``kill -9``: nothing of the program runs after it."""


@pytest.mark.parametrize("at", [1, 4, 5, 7])
def test_killed_between_saves(whole: tuple[TrainResult, Path], tmp_path: Path, at: int) -> None:
    config = make_config(tmp_path, checkpoint_every=2)

    def kill(step: int) -> None:
        if step == at:
            raise Killed

    with pytest.raises(Killed):
        train(config, kill)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # the line it was writing
    assert_same_run(whole[0], train(config), whole[1], tmp_path)


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_used(
    whole: tuple[TrainResult, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(tmp_path, checkpoint_every=1)
    with pytest.raises(Interrupted):
        train(config, stop(signal.SIGTERM, at=6))
    newest = tmp_path / "checkpoints" / "7" / "description.json"
    newest.write_bytes(newest.read_bytes()[:-40])
    capsys.readouterr()
    result = train(config)
    said = capsys.readouterr().err
    assert f"{newest.parent}: the checkpoint is damaged" in said
    assert "going on from the checkpoint of step 6" in said
    assert_same_run(whole[0], result, whole[1], tmp_path)


def test_a_finished_run_is_not_trained_again(
    whole: tuple[TrainResult, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    result, folder = whole
    lines = metrics_of(folder)
    again = train(make_config(folder), lambda step: pytest.fail(f"trained step {step}"))
    assert "training is finished" in capsys.readouterr().err
    assert again.seconds == result.seconds
    assert_same_run(result, again, folder, folder)
    assert metrics_of(folder) == lines


def test_workers_and_prefetching_change_nothing(
    whole: tuple[TrainResult, Path], tmp_path: Path
) -> None:
    config = make_config(tmp_path, data_workers=1)
    with pytest.raises(Interrupted):
        train(config, stop(signal.SIGTERM, at=3))
    assert_same_run(whole[0], train(config), whole[1], tmp_path)


@pytest.mark.parametrize(("right", "steps", "warned"), [(8, [3, 3], False), (4, [5, 4], True)])
def test_a_stage_ends_at_its_target_or_with_a_warning(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    right: int,
    steps: list[int],
    warned: bool,
) -> None:
    config = make_config(tmp_path)
    curriculum = dataclasses.replace(config.curriculum, target=(0.9, 0.9))
    config = dataclasses.replace(config, curriculum=curriculum)
    with Workdir(config) as folder:
        trainer = Trainer(config, folder)

        def evaluate(params: Any, samples: Any) -> tuple[int, int]:
            del params
            return right, len(samples.context)

        monkeypatch.setattr(trainer, "evaluator", evaluate)
        result = trainer.run()
    assert [stage.steps for stage in result.position.history] == steps
    assert [stage.reached for stage in result.position.history] == [not warned] * 2
    assert ("below its target of 0.9" in capsys.readouterr().err) is warned
    ends = [line for line in metrics_of(tmp_path) if "stage_reached" in line]
    assert [line["stage_reached"] for line in ends] == [int(not warned)] * 2


def test_more_evaluation_samples_than_there_are_is_said_before_training(tmp_path: Path) -> None:
    config = make_config(tmp_path, eval_samples=1001)
    with Workdir(config) as folder, pytest.raises(ConfigError, match=r"train\.eval_samples = 1001"):
        Trainer(config, folder)


def test_divergence_stops_says_where_and_saves_nothing_of_it(tmp_path: Path) -> None:
    config = make_config(tmp_path, checkpoint_every=1)
    with Workdir(config) as folder:
        trainer = Trainer(config, folder)
        step = trainer.step

        def poisoned(state: Any, batch: Any, rate: Any) -> Any:
            if trainer.position.step == 3:
                nan = np.float32(np.nan)
                state = state._replace(params=jax.tree.map(lambda x: x * nan, state.params))
            return step(state, batch, rate)

        trainer.step = poisoned
        with pytest.raises(NonFiniteError) as caught:
            trainer.run()
    message = str(caught.value)
    assert message.startswith("step 4 (stage 1: remember, 2 pairs of key size 1): loss = nan")
    assert "embed.memory" in message
    result = train(config)  # goes on from step 3, which was finite
    assert np.isfinite(np.concatenate([x.ravel() for x in jax.tree.leaves(result.state)])).all()
