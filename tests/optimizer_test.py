"""AdamW and Muon against their equations, clipping, and the schedule."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax.config import CurriculumConfig, OptimizerConfig, from_config_dict
from armt_jax.training.optimizer import apply_updates, create_optimizer, learning_rate
from configs import babilong

CONFIG = OptimizerConfig(
    name="adamw",
    learning_rate=0.5,
    muon_learning_rate=0.5,
    weight_decay=0.1,
    b1=0.9,
    b2=0.99,
    eps=1e-8,
    warmup_steps=0,
    schedule="linear",
    scope="stage",
    final_fraction=0.0,
    reset_per_stage=False,
    clip="none",
    clip_threshold=1.0,
)
STAGES = CurriculumConfig(
    variant=("remember",) * 3,
    num_pairs=(1, 2, 3),
    key_size=(1, 1, 1),
    key_symbols=(16, 16, 16),
    random_symbols=(False,) * 3,
    max_steps=(10, 20, 40),
    target=(0.9, 0.9, 0.9),
    num_queries=0,
    random_num_pairs=False,
)


def rate(step: int, stage: int = 0, **changes: object) -> float:
    return learning_rate(dataclasses.replace(CONFIG, **changes), STAGES, stage, step)


def oracle(p: np.ndarray, grads: list[np.ndarray], lr: float) -> np.ndarray:
    m, v = np.zeros_like(p), np.zeros_like(p)
    for i, g in enumerate(grads, start=1):
        m = CONFIG.b1 * m + (1 - CONFIG.b1) * g
        v = CONFIG.b2 * v + (1 - CONFIG.b2) * g * g
        scaled = (m / (1 - CONFIG.b1**i)) / (np.sqrt(v / (1 - CONFIG.b2**i)) + CONFIG.eps)
        p = p - lr * (scaled + CONFIG.weight_decay * p)
    return p


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("clip", ["none", "value", "norm"])
def test_adamw_is_its_equations_with_clipping_before_the_moments(clip: str) -> None:
    config = dataclasses.replace(CONFIG, clip=clip, clip_threshold=0.7)
    grads = [np.array([0.3, -2.0, 1.0]), np.array([0.1, 0.2, -0.1]), np.array([5.0, 0.0, 0.5])]
    clipped = {
        "none": grads,
        "value": [np.clip(g, -0.7, 0.7) for g in grads],
        "norm": [g * min(1.0, 0.7 / np.linalg.norm(g)) for g in grads],
    }[clip]
    optimizer = create_optimizer(config)
    params = {"w": jnp.array([1.0, -2.0, 3.0])}
    state = optimizer.init(params)
    for grad in grads:
        updates, state = optimizer.update({"w": jnp.asarray(grad)}, state, params)
        params = apply_updates(params, updates, jnp.float64(0.05))
    expected = oracle(np.array([1.0, -2.0, 3.0]), clipped, 0.05)
    np.testing.assert_allclose(params["w"], expected, rtol=1e-12)


def orthogonal(matrix: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ right


@pytest.mark.usefixtures("x64")
def test_muon_moves_a_matrix_by_its_orthogonal_factor_and_the_rest_as_adamw() -> None:
    config = dataclasses.replace(CONFIG, name="muon", muon_learning_rate=0.125)
    optimizer = create_optimizer(config)
    rng = np.random.default_rng(0)
    shapes = {"kernel": (2, 8, 24), "bias": (2, 24), "gate": (2, 8, 1), "embedding": (9, 8)}
    values = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    params = {
        "proj": {"kernel": values["kernel"], "bias": values["bias"]},
        "W_mb": {"kernel": values["gate"]},
        "wte": values["embedding"],
    }
    grads = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    moved = apply_updates(params, updates, jnp.float64(0.05))

    # 0.05 is a tenth of the learning rate: the schedule. Muon's own rate is a tenth of 0.125.
    for layer in range(2):
        step = values["kernel"][layer] - moved["proj"]["kernel"][layer]
        step = step / 0.0125 - CONFIG.weight_decay * values["kernel"][layer]
        target = 0.2 * np.sqrt(24) * orthogonal(grads["proj"]["kernel"][layer])
        # Five Newton-Schulz steps leave singular values between about 0.7 and 1.2.
        assert np.sum(step * target) > 0.97 * np.linalg.norm(step) * np.linalg.norm(target)
        assert 0.7 < np.linalg.norm(step) / np.linalg.norm(target) < 1.2
    for name, after, grad in (
        ("bias", moved["proj"]["bias"], grads["proj"]["bias"]),
        ("gate", moved["W_mb"]["kernel"], grads["W_mb"]["kernel"]),
        ("embedding", moved["wte"], grads["wte"]),
    ):
        # Adam's first step is the sign; with Nesterov momentum b1 / (1 + b1) of it again.
        step = np.sign(grad) * (1 + CONFIG.b1 / (1 + CONFIG.b1))
        expected = values[name] - 0.05 * (step + CONFIG.weight_decay * values[name])
        np.testing.assert_allclose(after, expected, rtol=1e-6, err_msg=name)


def test_updates_keep_each_dtype() -> None:
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    moved = apply_updates(params, {"w": jnp.ones(3, jnp.float32)}, jnp.float32(0.5))
    assert moved["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(jax.device_get(moved["w"]).astype(np.float32), 0.5)


def test_constant_rate() -> None:
    assert [rate(i, schedule="constant") for i in (0, 5, 9)] == [0.5, 0.5, 0.5]


def test_warmup_has_no_step_of_rate_zero_and_ends_at_the_full_rate() -> None:
    rates = [rate(i, schedule="constant", warmup_steps=4) for i in range(6)]
    np.testing.assert_allclose(rates, [0.125, 0.25, 0.375, 0.5, 0.5, 0.5])


def test_stage_scope_starts_again_in_every_stage() -> None:
    np.testing.assert_allclose([rate(i) for i in (0, 5, 9)], [0.5, 0.25, 0.05])
    np.testing.assert_allclose([rate(i, stage=1) for i in (0, 10)], [0.5, 0.25])
    np.testing.assert_allclose(rate(0, stage=1, warmup_steps=2), 0.25)


def test_run_scope_is_one_line_over_all_stages() -> None:
    rates = [rate(0, scope="run"), rate(5, stage=1, scope="run"), rate(40, stage=2, scope="run")]
    np.testing.assert_allclose(rates, [0.5, 0.5 * (1 - 15 / 70), 0.0], atol=1e-15)


def test_last_stage_scope_holds_and_then_decays_to_the_final_fraction() -> None:
    changes = {"scope": "last_stage", "final_fraction": 0.2, "warmup_steps": 2}
    held = [rate(5, **changes), rate(0, stage=1, **changes), rate(19, stage=1, **changes)]
    assert held == [0.5, 0.5, 0.5]
    np.testing.assert_allclose(rate(0, **changes), 0.25)
    decaying = [rate(i, stage=2, **changes) for i in (0, 20, 40)]
    np.testing.assert_allclose(decaying, [0.5, 0.3, 0.1])


def test_rate_never_falls_below_its_end() -> None:
    assert rate(1000, final_fraction=0.1) == pytest.approx(0.05)


def test_a_stage_of_babilong_has_a_share_of_the_rate() -> None:
    config = babilong.get_config("qa1,tiny").to_dict()
    config["curriculum"]["learning_rate_factor"] = (0.5, 0.1)
    stages = from_config_dict(config).curriculum
    schedule = dataclasses.replace(CONFIG, warmup_steps=2)
    rates = [learning_rate(schedule, stages, stage, step) for stage in (0, 1) for step in (0, 2, 5)]
    plain = [1 / 2, 1.0, 1.0 - 3 / 6]  # of 8 steps each, 2 of them warm-up
    np.testing.assert_allclose(rates, [0.5 * x * y for x in (0.5, 0.1) for y in plain], rtol=1e-12)
