"""A training starts from another run's parameters, or says what is wrong with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from armt_jax.config import AnyExperiment, ConfigError
from armt_jax.reading import save_checkpoint
from armt_jax.sharding.rules import leaf_names
from armt_jax.training.checkpoints import Checkpoints
from armt_jax.training.start import start_state
from armt_jax.training.state import create_state
from armt_jax.training.workdir import Workdir
from armt_jax.tuning import merge_lora, tuned_model, tuned_optimizer
from tests.reading.cases import bits, make_run, tiny_experiment
from tests.tuning.tuning_test import experiment, noisy


def save_run(config: AnyExperiment, seed: int) -> Any:
    """A run's folder with one checkpoint; its parameters."""
    optimizer = tuned_optimizer(config.optimizer, config.tuning)
    state = create_state(tuned_model(config.model, config.tuning), optimizer, seed)
    state = state._replace(params=noisy(state.params))
    with Workdir(config) as workdir:
        Checkpoints(workdir.checkpoints).save(1, state, {}, 0.5)
    return state.params


def begin(config: AnyExperiment) -> Any:
    optimizer = tuned_optimizer(config.optimizer, config.tuning)
    return start_state(config, tuned_model(config.model, config.tuning), optimizer, None).params


def test_a_training_starts_from_a_run_with_what_that_has(tmp_path: Path) -> None:
    folder = str(tmp_path / "pretrained")
    trained = save_run(experiment(folder, family="transformer"), seed=5)
    config = experiment(start=folder, trains="lora")
    found, fresh = begin(config), begin(experiment(trains="lora"))
    for name, leaf in leaf_names(found):
        source = dict(leaf_names(trained)).get(name)
        expected = dict(leaf_names(fresh))[name] if source is None else source
        np.testing.assert_array_equal(leaf, expected, err_msg=name)
    assert "embed.memory" not in dict(leaf_names(trained))


def test_a_training_starts_from_a_run_of_low_rank_changes_merged(tmp_path: Path) -> None:
    folder = str(tmp_path / "tuned")
    first = experiment(folder, trains="lora")
    trained = save_run(first, seed=5)
    jax.tree.map(
        np.testing.assert_array_equal,
        begin(experiment(start=folder)),
        merge_lora(first.tuning, trained),
    )


def test_a_start_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    folder = str(tmp_path / "other")
    save_run(experiment(folder), seed=0)
    config = experiment(start=folder)
    wider = dataclasses.replace(config, model=dataclasses.replace(config.model, d_ff=32))
    with pytest.raises(
        ConfigError, match=r"c_fc.kernel is \[1, 16, 16\] there, \[1, 16, 32\] here"
    ):
        begin(wider)
    with pytest.raises(
        ConfigError, match=r"must be the folder of a run, of experiments.export or of a Hugging"
    ):
        begin(experiment(start=str(tmp_path)))


def test_a_training_starts_from_what_was_exported(tmp_path: Path) -> None:
    run, exported = tmp_path / "run", tmp_path / "exported"
    make_run(run)
    trained = save_checkpoint(exported, run).params
    config = tiny_experiment(tmp_path / "next")
    tuning = dataclasses.replace(config.tuning, start=str(exported))
    found = begin(dataclasses.replace(config, tuning=tuning))
    assert bits(found) == bits(trained)
    assert bits(found) != bits(begin(config))
    (exported / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        begin(dataclasses.replace(config, tuning=tuning))
