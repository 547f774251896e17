"""What the library asks of every family: training, meshes, checkpoints, size of the state."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from armt_jax import ModelConfig, create_model, state_size
from armt_jax.config import FAMILIES, ConfigError, ExperimentConfig, from_config_dict
from armt_jax.interop import load_official, to_official
from armt_jax.sharding.placement import Placement
from armt_jax.sharding.rules import leaf_names
from armt_jax.training.checkpoints import Checkpoints
from armt_jax.training.loop import Trainer
from armt_jax.training.metrics import FILE_NAME
from armt_jax.training.state import abstract_state
from armt_jax.training.step import accumulate_gradients, sharded_gradients
from armt_jax.training.workdir import Workdir
from configs import ar_remember
from tests.config_values import changed, retrieval
from tests.mesh_cases import SCORING, batches, mesh_of, model_of
from tests.small_models import assert_close, lively_params, quick_jit

BLOCK_FAMILIES = ("rmt", "prmt", "rmt_r", "transformer")


def _tiny(folder: Path, family: str) -> ExperimentConfig:
    config = retrieval(ar_remember.get_config("tiny").to_dict())
    sizes = {"d_model": 8, "num_mem_tokens": 1, "d_ff": 16}
    return dataclasses.replace(
        config,
        workdir=str(folder),
        model=dataclasses.replace(config.model, family=family, **sizes),
        curriculum=dataclasses.replace(
            config.curriculum, num_pairs=(4, 4), max_steps=(4, 4), target=(1.1, 1.1)
        ),
        optimizer=dataclasses.replace(config.optimizer, name="adamw"),
        train=dataclasses.replace(
            config.train, batch_size=4, log_every=2, eval_every=4, eval_samples=8
        ),
    )


@pytest.mark.parametrize(
    "family", ["rmt", *(pytest.param(f, marks=pytest.mark.slow) for f in BLOCK_FAMILIES[1:])]
)
def test_a_tiny_experiment_trains_saves_and_is_evaluated(
    family: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One making of the frozen sets serves all.
    folder = tmp_path_factory.getbasetemp() / "frozen-sets"
    monkeypatch.setenv("ARMT_CACHE_DIR", str(folder))
    config = _tiny(tmp_path / "run", family)
    with Workdir(config) as workdir:
        trainer = Trainer(config, workdir)
        before = jax.device_get(trainer.state.params)
        result = trainer.run()
    template = abstract_state(trainer.model, trainer.optimizer, None)
    found = Checkpoints(tmp_path / "run" / "checkpoints", read_only=True).restore(
        template, warn=pytest.fail
    )
    assert found is not None
    jax.tree.map(np.testing.assert_array_equal, found.state.params, result.state.params)
    for (name, first), (_, last) in zip(
        leaf_names(before), leaf_names(found.state.params), strict=True
    ):
        assert np.any(first != last), name
        assert np.all(np.isfinite(last)), name
    lines = (tmp_path / "run" / FILE_NAME).read_text().splitlines()
    assert sum("evaluation_seconds" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"rule": "delta"}, "delta"),
        ({"family": "rmt", "rule": "delta"}, "rmt"),
        ({"family": "prmt"}, "prmt"),
        ({"family": "prmt", "memory_passing": "layerwise"}, "prmt_layerwise"),
    ],
)
def test_tables_tell_models_apart_by(changes: dict[str, Any], name: str) -> None:
    assert ModelConfig(**changes).memory_rule == name


@functools.cache
def _gradients(family: str, backbone: str, axes: tuple[tuple[str, int], ...]) -> Any:
    sizes = {"retrieval_states": 3, "n_positions": 64, "memory_passing": "layerwise"}
    model = model_of(backbone, family=family, **sizes)
    params, batch = lively_params(model), batches()[0]
    if not axes:
        one = functools.partial(accumulate_gradients, model, scoring=SCORING, pieces=1)
        return quick_jit(lambda p, b: one(p, b))(params, batch)
    mesh = mesh_of(**dict(axes))
    params = jax.device_put(params, Placement(model, mesh).shardings)
    several = functools.partial(sharded_gradients, model, scoring=SCORING, pieces=1, mesh=mesh)
    return quick_jit(lambda p, b: several(p, b))(params, batch)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("family", "backbone", "axes"),
    [
        pytest.param("rmt_r", "gpt2", (("fsdp", 2), ("tensor", 2)), marks=pytest.mark.slow),
        pytest.param("prmt", "gpt2", (("fsdp", 2), ("stage", 2)), marks=pytest.mark.slow),
        pytest.param(
            "transformer", "gpt_neox", (("fsdp", 2), ("tensor", 2)), marks=pytest.mark.slow
        ),
        pytest.param("rmt", "gpt2", (("fsdp", 2), ("tensor", 2)), marks=pytest.mark.slow),
        ("prmt", "gpt_neox", (("tensor", 2),)),
    ],
)
def test_gradients_on_a_mesh_are_those_of_one_device(
    family: str, backbone: str, axes: tuple[tuple[str, int], ...]
) -> None:
    found, expected = (jax.device_get(_gradients(family, backbone, a)) for a in (axes, ()))
    assert_close(found, expected, 1e-10)
    for name, leaf in leaf_names(expected[1]):
        dead = family == "prmt" and name == "embed.memory"
        assert np.any(leaf) != dead, name


@pytest.mark.parametrize("family", ["rmt", "prmt", "rmt_r", "transformer"])
def test_a_pipeline_of_what_cannot_be_one_is_refused(family: str) -> None:
    model = model_of("gpt2", family=family, n_positions=64)
    params = jax.eval_shape(model.init, jax.random.key(0))
    with pytest.raises(ConfigError) as error:
        jax.eval_shape(
            lambda p: sharded_gradients(model, p, batches()[0], SCORING, 1, mesh_of(stage=2)),
            params,
        )
    name = type(model).__name__
    assert str(error.value) == f"mesh.stage = 2: must be 1, {name} cannot be asked layer by layer"


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("armt", 4 * (192 * 128 + 192)),
        ("rmt", 4 * 128),
        ("prmt", 4 * 4 * 128),
        ("rmt_r", (1 + 7) * 4 * 128),
        ("transformer", 2 * 4 * 100 * 128),
    ],
)
def test_state_size_counts_what_is_carried(family: str, expected: int) -> None:
    sizes: dict[str, Any] = {"n_layer": 4, "d_model": 128, "num_mem_tokens": 4, "d_mem": 32}
    config = ModelConfig(family=family, retrieval_states=7, context_tokens=100, **sizes)
    assert state_size(create_model(config)) == expected


@pytest.mark.parametrize("window", [0, 30])
def test_state_size_of_a_window_is_the_windows(window: int) -> None:
    config = ModelConfig(family="transformer", attention_window=window, context_tokens=100)
    assert state_size(create_model(config)) == 2 * 4 * (window or 100) * 128


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "rnn"}, "model.family = 'rnn': must be one of armt, rmt, prmt, rmt_r, "),
        ({"family": "rmt", "num_mem_tokens": 0}, "model.num_mem_tokens = 0: must be at least 1"),
        ({"family": "armt", "d_mem": 0}, "model.d_mem = 0: must be at least 1"),
        ({"family": "prmt", "memory_passing": "up"}, "model.memory_passing = 'up': must be one of"),
        ({"family": "rmt_r", "retrieval": "top2"}, "model.retrieval = 'top2': must be one of exa"),
        ({"family": "rmt_r", "retrieval_states": 0}, "model.retrieval_states = 0: must be at l"),
        ({"family": "transformer", "attention_window": -1}, "model.attention_window = -1: must be"),
        ({"family": "transformer", "context_tokens": 0}, "model.context_tokens = 0: must be at l"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ModelConfig(**changes)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "armt"])
def test_armts_settings_are_not_demanded_of_other_families(family: str) -> None:
    ModelConfig(family=family, d_mem=0, nu=0, rule="none")


def test_an_experiment_longer_than_the_model_reads_is_refused() -> None:
    """Forty pairs of four tokens, and a query."""
    model = {"family": "transformer", "backbone": "gpt_neox", "context_tokens": 163}
    with pytest.raises(ConfigError) as error:
        from_config_dict(changed("model", model))
    assert str(error.value).startswith("text length = 164: must be at most model.context_tokens")
    from_config_dict(changed("model", {**model, "context_tokens": 164}))


@pytest.mark.parametrize("family", ["rmt_r", "transformer"])
def test_families_without_official_names(family: str) -> None:
    model = create_model(ModelConfig(family=family))
    for call in (
        lambda: load_official({}, model.config),
        lambda: to_official(jax.eval_shape(model.init, jax.random.key(0)), model.config),
    ):
        with pytest.raises(ConfigError) as error:
            call()
        expected = f"model.family = {family!r}: must be one of armt, rmt, prmt, which the authors"
        assert str(error.value).startswith(expected)
