"""The recurrences alone: numbers at the edge, and other people's results."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax.models.state_space.parts import unit
from armt_jax.state_space import (
    gated_delta_rule,
    packing,
    selective_scan,
    state_space_dual,
    wkv5,
    wkv7,
)
from tests.golden_files import Golden
from tests.small_models import assert_close, quick_jit

B, T, H, N, P = 2, 13, 2, 4, 3


def _random(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def _positive(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).uniform(0.1, 1.0, size=shape))


def _inputs(name: str) -> tuple[Any, tuple[jax.Array, ...], jax.Array]:
    """The function of ``(inputs, state, chunk)``; every third token forgets everything."""
    strength = jnp.where(jnp.arange(T) % 3 == 1, 300.0, 0.3)[None, :, None]
    q, k, v = _random(0, B, T, H, N), unit(_random(1, B, T, H, N)), _random(2, B, T, H, P)
    scalar = -strength * _positive(3, B, T, H)
    by_channel = -strength[..., None] * _positive(4, B, T, H, N)
    if name in ("mamba", "mamba_parallel"):
        x, dt = _random(5, B, T, N), strength * _positive(6, B, T, N)
        A, B_, C = -_positive(7, N, P), _random(8, B, T, P), _random(9, B, T, P)
        parallel = name == "mamba_parallel"

        def run_mamba(x: Any, dt: Any, B_: Any, C: Any, h: Any, chunk: int) -> Any:
            return selective_scan(x, dt, A, B_, C, h, chunk, parallel and chunk > 1)

        return run_mamba, (x, dt, B_, C), _random(10, B, N, P)
    if name == "mamba2":
        B_, C = _random(8, B, T, N), _random(9, B, T, N)
        A = -jnp.ones((H,))
        run = lambda x, dt, B_, C, S, chunk: state_space_dual(x, dt, A, B_, C, S, chunk)  # noqa: E731
        return run, (v, -scalar, B_, C), _random(10, B, H, P, N)
    state = _random(10, B, H, N, P)
    if name == "delta":
        return gated_delta_rule, (q, k, v, _positive(11, B, T, H), scalar), state
    if name == "wkv5":
        u = _random(12, H, N)
        run = lambda r, k, v, g, S, chunk: wkv5(r, k, v, g, u, S, chunk)  # noqa: E731
        return run, (q, k, v, by_channel), state
    # RWKV-7's decays have a bound.
    log_decay = jnp.maximum(by_channel, -np.exp(-0.5))
    rate = _positive(13, B, T, H, N)
    return wkv7, (q, log_decay, _random(14, B, T, H, N), v, -k, k * rate), state


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["mamba", "mamba_parallel", "mamba2", "delta", "wkv5", "wkv7"])
def test_any_chunk_is_one_token_at_a_time(name: str) -> None:
    """Values and gradients, where decays are weak and where they leave nothing."""
    run, inputs, state = _inputs(name)
    weights = _random(20, B, T, 99)

    @functools.partial(quick_jit, static_argnums=2)
    @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def loss(inputs: Any, state: jax.Array, chunk: int) -> Any:
        after, y = run(*inputs, state, chunk)
        flat = y.reshape(B, T, -1)
        total = jnp.sum(weights[..., : flat.shape[-1]] * flat) + jnp.sum(jnp.sin(after))
        return total, (after, y)

    expected = loss(inputs, state, 1)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(expected))
    for chunk in (5, T - 1, T):
        assert_close(loss(inputs, state, chunk), expected, 1e-10)


@pytest.mark.parametrize("name", ["delta", "wkv7"])
def test_a_key_that_is_written_again_and_again_in_float32(name: str) -> None:
    """The triangular system at its worst: equal keys, full strength, a long chunk.

    So long that RWKV-7's decays over all of it are no float32 any more.
    """
    count = 64 if name == "delta" else 200
    k = jnp.broadcast_to(unit(_random(0, 1, 1, 1, N)), (1, count, 1, N)).astype(jnp.float32)
    v = _random(1, 1, count, 1, P).astype(jnp.float32)
    state = _random(2, 1, 1, N, P).astype(jnp.float32)
    if name == "delta":
        _, y = quick_jit(gated_delta_rule, static_argnums=6)(
            k, k, v, jnp.ones((1, count, 1)), None, state, count
        )
    else:
        decay = jnp.full(k.shape, -np.exp(-0.5), jnp.float32)
        _, y = quick_jit(wkv7, static_argnums=7)(k, decay, k, v, -k, k, state, count)
        # What a key held decays before it is removed: something is left of it.
        _, expected = quick_jit(wkv7, static_argnums=7)(k, decay, k, v, -k, k, state, 1)
        np.testing.assert_allclose(y, expected, rtol=0, atol=2e-5)
        return
    # What is read is what was written last, whatever stood there.
    np.testing.assert_allclose(y, v, rtol=0, atol=2e-5)


def test_packing_keeps_the_order_of_tokens() -> None:
    mask = jnp.asarray([[False, True, False, True, True], [True] * 5, [False] * 5])
    found = packing(mask)
    x = jnp.arange(15.0).reshape(3, 5, 1)
    packed = found.pack(x)[..., 0]
    np.testing.assert_array_equal(packed[0], [1, 3, 4, 0, 2])
    np.testing.assert_array_equal(packed[1:], x[1:, :, 0])
    np.testing.assert_array_equal(found.unpack(found.pack(x)), x)
    np.testing.assert_array_equal(found.mask.sum(axis=1), mask.sum(axis=1))
    cotangent = jnp.cos(x)
    _, pullback = jax.vjp(found.pack, x)
    np.testing.assert_array_equal(pullback(cotangent)[0], found.unpack(cotangent))


@pytest.mark.usefixtures("x64")
def test_gated_delta_rule_of_another_library() -> None:
    """Values and gradients of the token loop of Qwen3-Next in ``transformers``."""
    golden = Golden("gated_delta_rule")

    def loss(leaves: dict[str, jax.Array]) -> Any:
        q = unit(leaves["q"]) * leaves["q"].shape[-1] ** -0.5
        rest = (unit(leaves["k"]), leaves["v"], leaves["beta"], leaves["g"], leaves["S"])
        last, y = gated_delta_rule(q, *rest, 4)
        return jnp.sum(y * golden["wy"]) + jnp.sum(last * golden["wS"]), (y, last)

    leaves = {name: jnp.asarray(golden[name]) for name in ("q", "k", "v", "beta", "g", "S")}
    grads, found = quick_jit(jax.grad(loss, has_aux=True))(leaves)
    assert_close(found, (golden["y"], golden["last"]), 1e-12)
    assert_close(grads, {name: golden[f"grad_{name}"] for name in leaves}, 1e-12)
