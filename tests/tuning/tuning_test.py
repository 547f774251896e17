"""Frozen parameters stay as they are to the bit, groups have their rates, factors merge exactly."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from armt_jax.config import AnyExperiment, ConfigError, TuningConfig, from_config_dict
from armt_jax.evaluation.next_tokens import NextTokens, token_scores
from armt_jax.models import create_model
from armt_jax.sharding.rules import leaf_names
from armt_jax.training.state import create_state
from armt_jax.training.step import accumulate_gradients, train_step
from armt_jax.tuning import (
    merge_lora,
    parameter_rows,
    plain_params,
    print_parameters,
    rate_factors,
    tuned_model,
    tuned_optimizer,
    tuned_scoring,
)
from armt_jax.tuning.lora import lora_targets
from configs import wikitext
from tests.next_tokens_test import whole_batch
from tests.small_models import SIZES, assert_close, quick_jit

SCORING = NextTokens()
MLP = r"layers\.block\.mlp\..*"
# The model's own names; each begins a line of the table.
MEMORY = {"embed.memory", "layers.memory.W_mb.bias"} | {
    f"layers.memory.W_m{letter}.kernel" for letter in "bkqv"
}


def experiment(folder: str = "runs/none", family: str = "armt", **tuning: Any) -> AnyExperiment:
    """Language modelling with the models of ``small_models``."""
    values = wikitext.get_config("tiny").to_dict()
    values["workdir"] = folder
    values["model"] |= {
        **SIZES,
        "n_layer": 1,
        "dtype": None,
        "family": family,
        "backbone": "gpt2",
        "n_positions": 128,
    }
    values["tuning"] |= tuning
    return from_config_dict(values)


def noisy(params: Any, seed: int = 0) -> Any:
    """Parameters in JAX's float, none of them at its start: ``W_V`` and ``up`` are not zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype), params)


def gradients(config: AnyExperiment, params: Any) -> Any:
    model, scoring = tuned_model(config.model, config.tuning), tuned_scoring(SCORING, config.tuning)
    run = quick_jit(lambda p, b: accumulate_gradients(model, p, b, scoring, 1))
    return run(params, whole_batch())


def trained_names(config: AnyExperiment) -> set[str]:
    shapes = jax.eval_shape(tuned_model(config.model, config.tuning).init, jax.random.key(0))
    return {name for name, factor in leaf_names(rate_factors(config.tuning, shapes)) if factor}


def test_what_is_trained_is_what_its_name_says() -> None:
    everything = trained_names(experiment())
    assert trained_names(experiment(trains="memory")) == MEMORY
    with_lora = trained_names(experiment(trains="lora", lora_targets=MLP))
    changes = {f"lora.layers.block.mlp.{n}.{f}" for n in ("c_fc", "c_proj") for f in ("down", "up")}
    assert with_lora == MEMORY | changes
    groups = {"groups": (r"embed\..*", r"embed\.wte|head\..*"), "factors": (0.5, 0.0)}
    kept = trained_names(experiment(**groups))
    assert kept == {name for name in everything if not name.startswith("head.")}
    assert trained_names(experiment(family="rmt", trains="memory")) == {"embed.memory"}


@pytest.mark.parametrize(("name", "trains"), [("adamw", "memory"), ("muon", "lora")])
def test_frozen_parameters_are_bit_identical_after_steps_and_have_no_moments(
    name: str, trains: str
) -> None:
    config = experiment(trains=trains, lora_targets=MLP, lora_rank=2)
    optimizer = tuned_optimizer(
        dataclasses.replace(config.optimizer, name=name, weight_decay=0.1), config.tuning
    )
    model, scoring = tuned_model(config.model, config.tuning), tuned_scoring(SCORING, config.tuning)
    state = create_state(model, optimizer, 0)
    before, batch = jax.device_get(state.params), whole_batch()
    step = quick_jit(
        lambda s: train_step(model, optimizer, s, batch, jnp.float32(0.1), scoring=scoring)[0]
    )
    for _ in range(3):
        state = step(state)
    after = jax.device_get(state.params)
    trained = trained_names(config)
    for (leaf_name, old), (_, new) in zip(leaf_names(before), leaf_names(after), strict=True):
        changed = old.tobytes() != new.tobytes()
        assert changed == (leaf_name in trained), leaf_name
    moments = [x for x, leaf in leaf_names(state.opt_state) if ".mu." in f".{x}." and leaf.ndim]
    owners = {next(t for t in trained if x.endswith(t)) for x in moments}
    assert owners == trained
    assert len(moments) == len(trained)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_factor_multiplies_the_rate_of_its_group() -> None:
    factors = {"groups": (r"embed\.wte", r"layers\..*"), "factors": (0.25, 3.0)}
    config, plain = experiment(**factors), experiment()
    settings = dataclasses.replace(config.optimizer, name="adamw", clip="none", weight_decay=0.1)
    params = noisy(create_model(config.model).init(jax.random.key(0)))
    grads = noisy(jax.tree.map(jnp.zeros_like, params), seed=1)
    updates = []
    for one in (config, plain):
        optimizer = tuned_optimizer(settings, one.tuning)
        updates.append(optimizer.update(grads, optimizer.init(params), params)[0])
    scaled, usual = (dict(leaf_names(one)) for one in updates)
    for name, leaf in scaled.items():
        factor = 0.25 if name == "embed.wte" else 3.0 if name.startswith("layers.") else 1.0
        np.testing.assert_allclose(leaf, factor * usual[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("family", ["armt", "rmt", "transformer"])
def test_an_associative_memory_has_a_rate_of_its_own(family: str) -> None:
    """Of whatever is trained; models without one have the same configuration."""

    def factors(**tuning: Any) -> dict[str, float]:
        config = experiment(family=family, memory_factor=0.25, **tuning)
        shapes = jax.eval_shape(create_model(config.model).init, jax.random.key(0))
        return dict(leaf_names(rate_factors(config.tuning, shapes)))

    found = factors()
    slow = {name for name, factor in found.items() if factor == 0.25}
    assert slow == (MEMORY - {"embed.memory"} if family == "armt" else set())
    assert {found[name] for name in found.keys() - slow} == {1.0}
    grouped = factors(groups=(r"layers\..*",), factors=(2.0,))
    for name, factor in grouped.items():
        expected = 0.5 if name in slow else 2.0 if name.startswith("layers.") else 1.0
        assert factor == expected, name
    if family == "armt":
        alone = factors(trains="memory")
        assert {name: factor for name, factor in alone.items() if factor} == {
            name: 1.0 if name == "embed.memory" else 0.25 for name in MEMORY
        }


@pytest.mark.parametrize("family", ["armt", "rmt", "transformer"])
def test_write_gates_can_stay_as_they_begin(family: str) -> None:
    """In whatever family: models without gates have the same configuration."""
    config = experiment(family=family, memory_factor=0.25, gate_factor=0.0)
    assert not config.tuning.is_plain
    shapes = jax.eval_shape(create_model(config.model).init, jax.random.key(0))
    found = dict(leaf_names(rate_factors(config.tuning, shapes)))
    frozen = {name for name, factor in found.items() if factor == 0}
    gates = {"layers.memory.W_mb.kernel", "layers.memory.W_mb.bias"}
    assert frozen == (gates if family == "armt" else set())
    slow = {name for name, factor in found.items() if factor == 0.25}
    assert slow == (MEMORY - {"embed.memory"} - gates if family == "armt" else set())


@pytest.mark.usefixtures("x64")
def test_merged_and_unmerged_low_rank_changes_are_the_same_model() -> None:
    config = experiment(trains="lora", lora_rank=3, lora_scale=0.5)
    params = noisy(tuned_model(config.model, config.tuning).init(jax.random.key(0)))
    merged = plain_params(config, params)
    fresh = jax.eval_shape(create_model(config.model).init, jax.random.key(0))
    assert jax.tree.structure(merged) == jax.tree.structure(fresh)
    own, change = params["layers"]["block"]["mlp"]["c_fc"], params["lora"]["layers"]["block"]
    down, up = (np.asarray(change["mlp"]["c_fc"][name]) for name in ("down", "up"))
    expected = np.asarray(own["kernel"])[0] + 0.5 * down[0] @ up[0]
    found = merged["layers"]["block"]["mlp"]["c_fc"]["kernel"][0]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    scores, grads = gradients(config, params)
    model = create_model(config.model)
    plain = quick_jit(lambda p: token_scores(model, p, whole_batch()).losses)(merged)
    assert float(scores.loss) == pytest.approx(float(plain.sum()), rel=1e-12)
    base = {key: value for key, value in params.items() if key != "lora"}
    without = quick_jit(lambda p: token_scores(model, p, whole_batch()).losses)(base)
    assert abs(float(without.sum()) - float(plain.sum())) > 1e-3
    # The factors' gradient is the matrix's, by the chain rule.
    _, whole = gradients(experiment(), merged)
    d_kernel = np.asarray(whole["layers"]["block"]["mlp"]["c_fc"]["kernel"])
    d_change = grads["lora"]["layers"]["block"]["mlp"]["c_fc"]
    np.testing.assert_allclose(
        d_change["down"], 0.5 * np.einsum("lio,lro->lir", d_kernel, up), rtol=1e-9, atol=1e-14
    )
    np.testing.assert_allclose(
        d_change["up"], 0.5 * np.einsum("lio,lir->lro", d_kernel, down), rtol=1e-9, atol=1e-14
    )
    assert not np.asarray(grads["layers"]["block"]["mlp"]["c_fc"]["kernel"]).any()
    assert_close(grads["layers"]["memory"], whole["layers"]["memory"], 1e-10)


def test_every_layer_has_a_change_of_its_own() -> None:
    rng = np.random.default_rng(0)
    kernel, down, up = (rng.normal(size=s) for s in ((3, 4, 5), (3, 4, 2), (3, 2, 5)))
    params: dict[str, Any] = {"layers": {"block": {"a": {"kernel": jnp.asarray(kernel)}}}}
    params["lora"] = {
        "layers": {"block": {"a": {"down": jnp.asarray(down), "up": jnp.asarray(up)}}}
    }
    merged = merge_lora(TuningConfig(trains="lora", lora_scale=2.0), params)
    assert merged.keys() == {"layers"}
    for layer in range(3):
        expected = kernel[layer] + 2.0 * down[layer] @ up[layer]
        found = merged["layers"]["block"]["a"]["kernel"][layer]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_fresh_low_rank_change_is_none() -> None:
    config = experiment(trains="lora")
    params = tuned_model(config.model, config.tuning).init(jax.random.key(3))
    base = create_model(config.model).init(jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, plain_params(config, params), base)
    names = lora_targets(config.tuning, params)
    assert len(names) == 4
    assert all(
        np.asarray(leaf).any() != name.endswith("up") for name, leaf in leaf_names(params["lora"])
    )
    drawn = [leaf for name, leaf in leaf_names(params["lora"]) if name.endswith("down")]
    assert len({float(leaf.ravel()[0]) for leaf in drawn}) == len(drawn), "each has its own"


def test_the_table_names_every_parameter_and_its_rate() -> None:
    config = experiment(trains="memory", groups=(r"embed\.wte",), factors=(0.1,))
    shapes = jax.eval_shape(tuned_model(config.model, config.tuning).init, jax.random.key(0))
    optimizer = dataclasses.replace(
        config.optimizer, name="muon", learning_rate=0.5, muon_learning_rate=2.0
    )
    rows = {row.name: row for row in parameter_rows(optimizer, config.tuning, shapes)}
    assert rows.keys() == dict(leaf_names(shapes)).keys()
    assert {name for name, row in rows.items() if row.rate} == MEMORY | {"embed.wte"}
    assert rows["embed.wte"][1:] == ((23, 16), 368, 0.05)
    assert rows["layers.memory.W_mv.kernel"][1:] == ((1, 16, 16), 256, 2.0)
    assert rows["layers.memory.W_mb.kernel"].rate == 0.5  # a vector: AdamW's
    text = io.StringIO()
    print_parameters(list(rows.values()), Console(file=text, width=120))
    lines = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    assert "embed.wte 23 x 16 368 0.05" in lines
    assert "head.ln_f.bias 16 16 frozen" in lines
    trained = sum(row.count for row in rows.values() if row.rate)
    total = sum(row.count for row in rows.values())
    assert lines[-1] == f"{trained:,} of {total:,} parameters are trained"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trains": "half"}, "tuning.trains = 'half': must be one of all, memory, lora"),
        ({"lora_rank": 0}, "tuning.lora_rank = 0: must be at least 1"),
        ({"lora_scale": 0.0}, "tuning.lora_scale = 0.0: must be positive"),
        ({"groups": ("a",)}, r"tuning.factors = \(\): needs 1 entries"),
        (
            {"groups": ("(",), "factors": (1.0,)},
            r"groups\[0\] = '\(': must be a regular expression",
        ),
        ({"memory_factor": 0.0}, r"tuning.memory_factor = 0.0: must be positive"),
        ({"gate_factor": -0.5}, r"tuning.gate_factor = -0.5: must be 0 \(frozen\) or more"),
        ({"groups": ("a",), "factors": (-1.0,)}, r"factors\[0\] = -1.0: must be 0 \(frozen\) or"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TuningConfig(**changes)


def test_groups_and_targets_that_match_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"groups\[0\] = 'wte': matches no parameter"):
        trained_names(experiment(groups=("wte",), factors=(0.0,)))
    with pytest.raises(ConfigError, match=r"lora_targets = 'mlp': matches no weight matrix"):
        trained_names(experiment(trains="lora", lora_targets="mlp"))
    with pytest.raises(ConfigError, match=r"'memory': leaves nothing to train of this model"):
        trained_names(experiment(family="mamba", trains="memory"))
    config = wikitext.get_config("tiny").to_dict()
    config["tuning"]["trains"], config["mesh"]["tensor"] = "lora", 2
    with pytest.raises(
        ConfigError, match=r"mesh.tensor = 2: must be 1 with tuning.trains = 'lora'"
    ):
        from_config_dict(config)
