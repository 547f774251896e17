"""A folder belongs to one experiment and one process; metrics go on where a checkpoint was."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from armt_jax.config import ConfigError, ExperimentConfig, from_config_dict
from armt_jax.training.metrics import MetricsWriter
from armt_jax.training.workdir import Workdir, read_config
from configs import ar_remember


def make_config(folder: Path, **changes: object) -> ExperimentConfig:
    config = from_config_dict(ar_remember.get_config("tiny").to_dict())
    return dataclasses.replace(config, workdir=str(folder), **changes)


def enter(config: ExperimentConfig) -> None:
    with Workdir(config):
        pass


def test_a_folder_is_made_and_knows_its_experiment(tmp_path: Path) -> None:
    config = make_config(tmp_path / "new" / "run")
    enter(config)
    enter(config)
    assert read_config(tmp_path / "new" / "run") == config


def test_another_experiment_is_refused_and_nothing_is_overwritten(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    enter(config)
    with pytest.raises(ConfigError, match=r"another experiment: seed = 0 there, 1 here"):
        enter(dataclasses.replace(config, seed=1))
    bigger = dataclasses.replace(config, model=dataclasses.replace(config.model, d_ff=128))
    with pytest.raises(ConfigError, match=r"model\.d_ff = 64 there, 128 here"):
        enter(bigger)
    assert read_config(tmp_path) == config


def test_settings_that_change_no_training_may_change(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    enter(config)
    changed = dataclasses.replace(
        config,
        evaluation=dataclasses.replace(config.evaluation, samples=7),
        train=dataclasses.replace(config.train, data_workers=2),
    )
    enter(changed)
    assert read_config(tmp_path) == changed


def test_foreign_files_a_file_and_a_second_process_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"must be empty or a run's"):
        enter(make_config(tmp_path))
    with pytest.raises(ConfigError, match="is a file; must be a folder"):
        enter(make_config(tmp_path / "notes.txt"))
    config = make_config(tmp_path / "run")
    with Workdir(config), pytest.raises(ConfigError, match="another process is training there"):
        enter(config)
    enter(config)


@pytest.mark.parametrize("content", ["{", "[]", '{"name": 3}'])
def test_a_config_that_cannot_be_read_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json|name"):
        read_config(tmp_path)
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        read_config(tmp_path / "nothing")


def test_metrics_after_the_checkpoint_are_dropped_and_come_again(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 0)
    for step in range(1, 6):
        writer.write(step, {"loss": 1.0 / step})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    writer = MetricsWriter(tmp_path, 3)
    writer.write(4, {"loss": 0.25, "stage": 1})
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1] == {"step": 4, "loss": 0.25, "stage": 1}
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
