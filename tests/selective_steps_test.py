"""Mamba's few tokens: the derivative that is written by hand is the one that JAX derives."""

from __future__ import annotations

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax.state_space import selective_scan
from armt_jax.state_space.selective_scan import ONE_BY_ONE
from armt_jax.state_space.selective_steps import selective_steps
from tests.small_models import assert_close, quick_jit

B, T, I, N = 3, 5, 4, 6


def _inputs() -> tuple[jax.Array, ...]:
    """``x, dt, A, B, C, state``; in the first text a token in the middle is padding."""
    random = np.random.default_rng(0)
    dt = random.uniform(0.01, 2.0, (B, T, I))
    dt[0, 2] = 0.0
    shapes = (B, T, N), (B, T, N), (B, I, N)
    rest = [jnp.asarray(random.normal(size=shape)) for shape in shapes]
    x, A = random.normal(size=(B, T, I)), -random.uniform(0.1, 3.0, (I, N))
    return (jnp.asarray(x), jnp.asarray(dt), jnp.asarray(A), *rest)


def _derived(
    x: jax.Array, dt: jax.Array, A: jax.Array, B: jax.Array, C: jax.Array, h: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Algorithm 2 of arXiv 2312.00752 as it stands there."""
    outputs = []
    for t in range(x.shape[1]):
        h = (
            jnp.exp(dt[:, t, :, None] * A[None]) * h
            + (dt[:, t] * x[:, t])[..., None] * B[:, t, None]
        )
        outputs.append(jnp.sum(h * C[:, t, None], axis=-1))
    return h, jnp.stack(outputs, axis=1)


def _value_and_gradients(steps: Any, inputs: tuple[jax.Array, ...]) -> Any:
    """All outputs, and every input's gradient of a sum that tells all outputs apart."""

    def loss(inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, Any]:
        outputs = steps(*inputs)
        weighed = [
            jnp.sum(jnp.sin(leaf) * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape))
            for leaf in outputs
        ]
        return sum(weighed, jnp.zeros(())), outputs

    return quick_jit(jax.value_and_grad(loss, has_aux=True))(inputs)


@pytest.mark.usefixtures("x64")
def test_values_and_gradients_are_those_of_the_loop() -> None:
    assert_close(
        _value_and_gradients(selective_steps, _inputs()),
        _value_and_gradients(_derived, _inputs()),
        1e-12,
    )


@pytest.mark.usefixtures("x64")
def test_queries_forked_from_one_state_add_up_their_gradients() -> None:
    x, dt, A, B, C, h = _inputs()
    shifted = lambda leaf: jnp.stack([leaf, 0.5 * leaf, leaf + 0.1], axis=1)  # noqa: E731
    queries = (shifted(x), shifted(dt), A, shifted(B), shifted(C), h)

    def forked(steps: Any) -> Any:
        return jax.vmap(steps, (1, 1, None, 1, 1, None), 1)

    assert_close(
        _value_and_gradients(forked(selective_steps), queries),
        _value_and_gradients(forked(_derived), queries),
        1e-12,
    )


@pytest.mark.usefixtures("x64")
def test_padding_leaves_a_state_as_it_is() -> None:
    x, dt, A, B, C, h = _inputs()
    after, _ = quick_jit(selective_steps)(x, jnp.zeros_like(dt), A, B, C, h)
    np.testing.assert_array_equal(after, h)


@pytest.mark.parametrize(
    ("tokens", "parallel", "expected"),
    [(T, None, [T]), (2 * T, None, [ONE_BY_ONE]), (T, True, [T]), (2 * T, True, [])],
)
def test_who_reads_token_by_token(
    tokens: int, parallel: bool | None, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU all of a text, in pieces (traced once); others what is short."""
    called = []

    def noted(x: jax.Array, *rest: Any) -> tuple[jax.Array, jax.Array]:
        called.append(x.shape[1])
        return selective_steps(x, *rest)

    module = importlib.import_module("armt_jax.state_space.selective_scan")  # not the function
    monkeypatch.setattr(module, "selective_steps", noted)
    x, dt, A, B, C, h = _inputs()
    x, dt, B, C = (jnp.tile(leaf, (1, tokens // T, 1)) for leaf in (x, dt, B, C))
    selective_scan(x, dt, A, B, C, h, 16, parallel)
    assert called == expected


@pytest.mark.parametrize(("backend", "parallel"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_accelerators_read_side_by_side(
    backend: str, parallel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, dt, A, B, C, h = _inputs()
    x, dt, B, C = (jnp.tile(leaf, (1, 4, 1)) for leaf in (x, dt, B, C))
    program = lambda how: str(  # noqa: E731
        jax.make_jaxpr(lambda x: selective_scan(x, dt, A, B, C, h, 16, how))(x)
    )
    expected = program(parallel)
    assert expected != program(not parallel)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert program(None) == expected
