"""RMT-R's retrieval against NumPy loops, its ring of states, and what makes it an RMT."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax.models.rmt_r import RmtRState
from tests.small_models import (
    assert_close,
    lively_params,
    quick_jit,
    random_tokens,
    segments_of,
    small_model,
)

M, D = 2, 16


def _model(**changes: Any) -> Any:
    return small_model(**changes)


def _softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def retrieve_by_loops(params: Any, memory: np.ndarray, past: list[np.ndarray], top1: bool):
    """``softmax(M W_Q (P W_K)^T / sqrt(d)) P W_V`` of one text, state by state."""
    w_q, w_k, w_v = (np.asarray(params[name]["kernel"]) for name in ("query", "key", "value"))
    if not past:
        return np.zeros((M, D))

    def attend(states: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.concatenate(states)
        weights = [_softmax(tokens @ w_k @ (row @ w_q) / np.sqrt(D)) for row in memory]
        return np.stack(weights), np.stack([w @ (tokens @ w_v) for w in weights])

    weights, out = attend(past)
    if not top1:
        return out
    shares = weights.sum(axis=0).reshape(len(past), M).sum(axis=1)
    return attend([past[int(np.argmax(shares))]])[1]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("retrieval", ["exact", "top1"])
def test_retrieval_is_the_equation(retrieval: str) -> None:
    """Texts with no, two, four and seven earlier states, of which four are kept."""
    model = _model(family="rmt_r", retrieval=retrieval, retrieval_states=4)
    params = lively_params(model)
    own = jax.tree.map(lambda x: 2 * x, params["retrieval"])
    rng = np.random.default_rng(0)
    read = np.array([1, 3, 5, 8])
    history = rng.normal(size=(4, 8, M, D))
    ring = rng.normal(size=(4, 4, M, D))  # what stands in places never written must not matter
    for row, count in enumerate(read - 1):
        for index in range(count):
            ring[row, index % 4] = history[row, index]
    memory = rng.normal(size=(4, M, D))
    state = RmtRState(jnp.asarray(memory), jnp.asarray(ring), jnp.asarray(read, jnp.int32))
    found = quick_jit(model.retrieve)(own, state, jnp.asarray(memory))
    for row, count in enumerate(read - 1):
        kept = list(history[row, max(0, count - 4) : count])
        expected = retrieve_by_loops(own, memory[row], kept, retrieval == "top1")
        np.testing.assert_allclose(found[row], expected, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_ring_keeps_the_last_states_in_their_places() -> None:
    """As RMT, whose memory after each segment is known: the ring has those before the last."""
    model = _model(family="rmt_r", backbone="gpt_neox", retrieval_states=3)
    params = lively_params(model)
    text = segments_of(random_tokens(model, 6, 2, 3))
    step, state, left = quick_jit(model.step), model.init_state(2), []
    for index in range(6):
        state, _ = step(params, state, jax.tree.map(lambda x, i=index: x[i], text))
        left.append(np.asarray(state.memory))
        for earlier in range(max(0, index - 3), index):
            np.testing.assert_array_equal(state.past[:, earlier % 3], left[earlier])
        assert not np.any(np.asarray(state.past)[:, max(index, 0) :])
        np.testing.assert_array_equal(state.read, [index + 1] * 2)


@pytest.mark.usefixtures("x64")
def test_without_an_earlier_state_it_is_an_rmt() -> None:
    """Rotary positions count from anywhere, so the masked places in front change nothing."""
    model = _model(family="rmt_r", backbone="gpt_neox", retrieval_states=3)
    rmt = _model(family="rmt", backbone="gpt_neox")
    params = lively_params(model)
    text = segments_of(random_tokens(model, 3, 2, 3))
    state, hidden = quick_jit(functools.partial(armt_jax.run_segments, model))(
        params, model.init_state(2), text
    )
    plain, plain_hidden = quick_jit(functools.partial(armt_jax.run_segments, rmt))(
        params, rmt.init_state(2), text
    )
    assert_close(hidden[:2], plain_hidden[:2], 1e-12)
    assert np.abs(hidden[2] - plain_hidden[2]).max() > 1e-3
    assert np.abs(state.memory - plain.memory).max() > 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("retrieval", ["exact", "top1"])
def test_far_memory_is_reached_directly(retrieval: str) -> None:
    """Gradients reach an old state through the ring, and only where the state is looked at."""
    model = _model(family="rmt_r", retrieval=retrieval, retrieval_states=4)
    params = lively_params(model)
    state = model.init_state(1)._replace(read=jnp.asarray([4], jnp.int32))
    rng = np.random.default_rng(1)
    memory, past = (jnp.asarray(rng.normal(size=x.shape)) for x in state[:2])
    queries = segments_of(random_tokens(model, 1, 1, 3))

    def loss(past):
        hidden = model.ask(params, state._replace(memory=memory, past=past), queries)
        return jnp.sum(jnp.sin(hidden))

    size = np.abs(quick_jit(jax.grad(loss))(past))[0].max(axis=(1, 2))
    assert size[3] == 0  # three earlier states: nothing is in the fourth place
    assert np.count_nonzero(size) == (3 if retrieval == "exact" else 1)
