"""The associative memory against a NumPy loop over tokens, values and gradients, for every rule."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax.memory import FEATURE_MAPS, PRESETS, MemoryRule, associative, dpfp, feature_dim
from tests.golden_files import Golden
from tests.memory_oracle import STEP, read_text

SEGMENTS, TOKENS, M, D, D_MEM, NU = 4, 5, 3, 6, 4, 3


def _inputs(seed: int):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(SEGMENTS, TOKENS, D))
    # Two segments alike: their keys repeat, and the old value must be erased.
    x[2] = x[1] + 0.01 * rng.normal(size=x[1].shape)
    W_q, W_k = rng.normal(size=(2, D, D_MEM)) * 0.6
    return x, [W_q, W_k, rng.normal(size=(D, D)) * 0.5, rng.normal(size=D), np.array(0.3)]


def _read_text(rule: MemoryRule, x, weights, order=None):
    """The library's functions over segments ``x [s, t, d]``, with a batch of one."""
    W_q, W_k, W_v, w_beta, b_beta = weights
    state = associative.init_state(rule, 1, feature_dim(rule.feature_map, D_MEM, NU), D, x.dtype)
    recalled = []
    for segment in x:
        phi_q = associative.features(rule, segment @ W_q, NU)[None]
        recalled.append(associative.recall(rule, state, phi_q)[0])
        m = segment[-M:]
        phi_k = associative.features(rule, m @ W_k, NU)[None]
        beta = associative.gate(rule, m @ w_beta + b_beta)[None]
        state = associative.update(rule, state, phi_k, (m @ W_v)[None], beta)
    return jnp.stack(recalled), state.A[0], state.z[0]


RULES = {
    **PRESETS,
    "linear_sequential": dataclasses.replace(PRESETS["linear"], order="sequential"),
    "no_gamma_sequential": dataclasses.replace(PRESETS["armt_no_gamma"], order="sequential"),
    "hard_gate": dataclasses.replace(PRESETS["armt"], gate="hard"),
    **{f"armt_{name}": MemoryRule(feature_map=name) for name in FEATURE_MAPS},
    **{
        f"delta_{name}": dataclasses.replace(PRESETS["delta"], feature_map=name)
        for name in FEATURE_MAPS
    },
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", RULES)
def test_values_equal_the_token_loop(name: str) -> None:
    rule = RULES[name]
    x, weights = _inputs(0)
    recalled, A, z = _read_text(rule, jnp.asarray(x), [jnp.asarray(w) for w in weights])
    expected, expected_A, expected_z, _ = read_text(rule, NU, x, [*weights, M])
    np.testing.assert_allclose(recalled, expected.real, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(A, expected_A.real, rtol=1e-10, atol=1e-12)
    if rule.has_normaliser:
        np.testing.assert_allclose(z, expected_z.real, rtol=1e-10, atol=1e-12)
    else:
        assert z.shape == (0,)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", RULES)
def test_gradients_equal_the_token_loop(name: str) -> None:
    """Gradients of a random projection of all outputs, against complex-step derivatives."""
    rule = RULES[name]
    x, weights = _inputs(1)
    rng = np.random.default_rng(2)
    k = feature_dim(rule.feature_map, D_MEM, NU)
    cot_y, cot_A, cot_z = rng.normal(size=x.shape), rng.normal(size=(k, D)), rng.normal(size=k)
    *_, gammas = read_text(rule, NU, x, [*weights, M])

    def oracle(x, weights) -> complex:
        recalled, A, z, _ = read_text(rule, NU, x, [*weights, M], gammas)
        total = np.sum(recalled * cot_y) + np.sum(A * cot_A)
        return total + (np.sum(z * cot_z) if rule.has_normaliser else 0)

    def ours(x, weights):
        recalled, A, z = _read_text(rule, x, weights)
        total = jnp.sum(recalled * cot_y) + jnp.sum(A * cot_A)
        return total + (jnp.sum(z * cot_z) if rule.has_normaliser else 0)

    grads = jax.grad(ours, argnums=(0, 1))(jnp.asarray(x), [jnp.asarray(w) for w in weights])
    arguments = [x, *weights]
    for position, grad in enumerate([grads[0], *grads[1]]):
        for _ in range(3):
            direction = rng.normal(size=arguments[position].shape)
            moved = [a.astype(complex) for a in arguments]
            moved[position] = moved[position] + 1j * STEP * direction
            expected = oracle(moved[0], moved[1:]).imag / STEP
            found = float(np.sum(np.asarray(grad) * direction))
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", PRESETS)
def test_segment_without_tokens_writes_nothing(name: str) -> None:
    rule = PRESETS[name]
    rng = np.random.default_rng(3)
    k = feature_dim(rule.feature_map, D_MEM, NU)
    state = associative.init_state(rule, 2, k, D, jnp.float64)

    def write(state, mask):
        phi_k = associative.features(rule, jnp.asarray(rng.normal(size=(2, M, D_MEM))), NU)
        v, beta = jnp.asarray(rng.normal(size=(2, M, D))), jnp.asarray(rng.uniform(size=(2, M)))
        return associative.update(rule, state, phi_k, v, beta, mask)

    first = write(state, jnp.array([True, False]))
    assert np.array_equal(first.written, [1, 0])
    assert not np.any(first.A[1])
    assert not np.any(first.z[1])
    second = write(first, jnp.array([False, True]))
    np.testing.assert_array_equal(second.A[0], first.A[0])
    np.testing.assert_array_equal(second.z[0], first.z[0])
    # The second text's first segment is a first segment: gamma is 1 for a rule with one.
    assert np.any(second.A[1])


def test_hard_gate_at_zero_leaves_the_memory_bit_identical() -> None:
    rule = PRESETS["delta_hard"]
    beta = associative.gate(rule, jnp.array([-6.0, 0.0, 6.0]))
    np.testing.assert_array_equal(beta[jnp.array([0, 2])], [0.0, 1.0])
    rng = np.random.default_rng(4)
    state = associative.init_state(rule, 1, 2 * NU * D_MEM, D)
    state = state._replace(A=jnp.asarray(rng.normal(size=state.A.shape), jnp.float32))
    phi_k = associative.features(rule, jnp.asarray(rng.normal(size=(1, M, D_MEM)), jnp.float32), NU)
    v = jnp.asarray(rng.normal(size=(1, M, D)), jnp.float32)
    after = associative.update(rule, state, phi_k, v, jnp.zeros((1, M)))
    np.testing.assert_array_equal(after.A, state.A)


def test_delta_rule_rewrites_exactly() -> None:
    """With beta = 1 and one key, the memory answers the latest value and forgets the older one."""
    rule = PRESETS["delta"]
    rng = np.random.default_rng(5)
    phi_k = associative.features(rule, jnp.asarray(rng.normal(size=(1, 1, D_MEM)), jnp.float32), NU)
    state = associative.init_state(rule, 1, 2 * NU * D_MEM, D)
    for _ in range(50):
        v = jnp.asarray(rng.normal(size=(1, 1, D)), jnp.float32)
        state = associative.update(rule, state, phi_k, v, jnp.ones((1, 1)))
    np.testing.assert_allclose(associative.recall(rule, state, phi_k), v, rtol=1e-5, atol=1e-5)


def test_state_is_float32_whatever_the_compute_dtype() -> None:
    for name, rule in PRESETS.items():
        state = associative.init_state(rule, 1, 2 * NU * D_MEM, D, jnp.bfloat16)
        x = jnp.ones((1, M, D_MEM), jnp.bfloat16)
        phi_k = associative.features(rule, x, NU)
        v = jnp.ones((1, M, D), jnp.bfloat16)
        beta = associative.gate(rule, jnp.zeros((1, M), jnp.bfloat16))
        state = associative.update(rule, state, phi_k, v, beta)
        assert {leaf.dtype for leaf in state} == {jnp.dtype(jnp.float32)}, name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("feature_map", "softmax"),
        ("normaliser", "max"),
        ("order", "random"),
        ("gate", "tanh"),
        ("eps", 0.0),
    ],
)
def test_impossible_rule_is_refused(field: str, value) -> None:
    with pytest.raises(ValueError, match=rf"rule\.{field} = "):
        MemoryRule(**{field: value})


def test_parallel_delta_without_normaliser_is_refused() -> None:
    with pytest.raises(ValueError, match="sequential"):
        MemoryRule(normaliser="none", order="parallel")


@pytest.mark.usefixtures("x64")
def test_dpfp_golden() -> None:
    golden = Golden("dpfp")
    for d in (1, 3, 4):
        for nu in (1, 2, 3):
            x = jnp.asarray(golden[f"x_d{d}"], jnp.float64)
            y, pullback = jax.vjp(lambda x, nu=nu: dpfp(x, nu), x)
            np.testing.assert_allclose(y, golden[f"y_d{d}_nu{nu}"], rtol=1e-12, atol=1e-14)
            (gx,) = pullback(jnp.asarray(golden[f"cot_d{d}_nu{nu}"], jnp.float64))
            np.testing.assert_allclose(gx, golden[f"gx_d{d}_nu{nu}"], rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name", ["assoc_layer_corr", "assoc_layer_corr_repeats", "assoc_layer_nocorr"]
)
def test_layer_alone_golden(name: str) -> None:
    """The authors' associative layer around an identity block."""
    golden = Golden(name)
    meta = golden.meta
    rule = PRESETS["armt" if meta["correction"] else "armt_no_gamma"]
    M, nu = meta["num_mem_tokens"], meta["nu"]
    weights = {k: jnp.asarray(v, jnp.float64) for k, v in golden.group("param").items()}
    cot = jnp.asarray(golden["cot"])

    def run(weights, x):
        k = feature_dim("dpfp", meta["d_mem"], nu)
        state = associative.init_state(rule, x.shape[1], k, x.shape[-1], x.dtype)
        outputs, states = [], []
        for segment in x:
            phi_q = associative.features(rule, segment @ weights["W_mq.weight"].T, nu)
            y = segment + associative.recall(rule, state, phi_q)
            m = y[:, -M:]
            phi_k = associative.features(rule, m @ weights["W_mk.weight"].T, nu)
            logits = (m @ weights["W_mb.weight"].T)[..., 0] + weights["W_mb.bias"][0]
            beta = associative.gate(rule, logits)
            state = associative.update(rule, state, phi_k, m @ weights["W_mv.weight"].T, beta)
            outputs.append(y)
            states.append(state)
        y = jnp.stack(outputs)
        loss = jnp.sum(y * cot) + 0.5 * jnp.sum(state.A**2) + jnp.sum(state.z)
        return loss, (y, jnp.stack([s.A for s in states]), jnp.stack([s.z for s in states]))

    x = jnp.asarray(golden["x"], jnp.float64)
    (loss, (y, A, z)), grads = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)(weights, x)
    exact: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-10}
    np.testing.assert_allclose(loss, golden["loss"], **exact)
    np.testing.assert_allclose(y, golden["y"], **exact)
    np.testing.assert_allclose(A, golden["W_mem"], **exact)
    np.testing.assert_allclose(z, golden["z"], **exact)
    np.testing.assert_allclose(grads[1], golden["gx"], **exact)
    for key, value in golden.group("grad").items():
        np.testing.assert_allclose(grads[0][key], value, **exact, err_msg=key)
