"""Observing changes nothing, and what is seen are the equations' own numbers, one token a time."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax import ConfigError
from armt_jax.inspection import Observation, fact_strength, observe
from armt_jax.inspection.report import cosine_similarity, distances_up_to, mean_similarity
from armt_jax.inspection.strength import Asked
from armt_jax.memory import MemoryState
from armt_jax.models import ARMT
from armt_jax.models.layers import layer_params
from armt_jax.models.protocol import Params, Segment
from armt_jax.recurrence import answer
from armt_jax.streaming import StreamReader
from tests.memory_oracle import gate, phi
from tests.small_models import (
    assert_close,
    lively_params,
    quick_jit,
    random_tokens,
    segments_of,
    small_model,
)

SLOW = [
    pytest.param(rule, marks=pytest.mark.slow)
    for rule in ("delta_hard", "linear", "armt_sequential")
]
RULES = ["armt", *SLOW]
SEGMENTS, SIZE = 3, 5

pytestmark = pytest.mark.usefixtures("x64")


class Case(NamedTuple):
    """Two texts that were observed, and read by plain steps.

    Attributes:
      found, seen: of ``observe``.
      states: after each segment, by ``model.write``.
      outputs: of the layers at the memory tokens of the first text, ``[s, l, m, d]``.
    """

    model: ARMT
    params: Params
    found: Any
    seen: Observation
    states: list[Any]
    outputs: np.ndarray


@functools.cache
def case(rule: str) -> Case:
    model = small_model(rule=rule)
    params = lively_params(model)
    tokens = random_tokens(model, SEGMENTS, 2, SIZE)
    mask = np.ones(tokens.shape, bool)
    mask[0, 0, :3] = False
    mask[1, 1] = False  # a segment of padding only: nothing is written
    found, seen = observe(model, params, model.init_state(2), segments_of(tokens, mask))

    @quick_jit
    def read(state: Any, segment: Segment) -> tuple[Any, list[jax.Array]]:
        x, context = model.embed(params, segment)
        out = []
        for index in range(model.config.n_layer):
            memory = MemoryState(*(leaf[index] for leaf in state[:3]))
            x = model.layer(layer_params(params["layers"], index), memory, x, context)[1]
            out.append(x[0, -model.config.num_mem_tokens :])
        return model.write(params, state, segment), out

    state, states, outputs = model.init_state(2), [], []
    for row, real in zip(tokens, mask, strict=True):
        state, out = read(state, segments_of(row, real))
        states.append(state)
        outputs.append(np.stack(out))
    return Case(model, params, found, seen, states, np.stack(outputs))


@pytest.mark.parametrize("rule", RULES)
def test_observing_leaves_the_states_of_a_plain_reading(rule: str) -> None:
    _, _, found, seen, states, _ = case(rule)
    assert_close(found, states[-1], 1e-12)
    for s, state in enumerate(states):  # sizes are those of the states on the way
        norms = np.linalg.norm(state.A, axis=(2, 3))
        np.testing.assert_allclose(seen.A[s], norms, rtol=1e-10)
        if seen.z is not None:
            np.testing.assert_allclose(seen.z[s], np.linalg.norm(state.z, axis=2), rtol=1e-10)
    np.testing.assert_array_equal(seen.rows[1, :, 1], 0)
    assert (seen.gamma is None) == (seen.z is None) == (rule == "delta_hard")


@pytest.mark.parametrize("rule", RULES)
def test_what_is_seen_are_the_numbers_of_the_equations(rule: str) -> None:
    model, params, _, seen, _, m = case(rule)
    for layer in range(model.config.n_layer):
        W = jax.tree.map(lambda leaf, i=layer: np.asarray(leaf[i]), params["layers"]["memory"])
        A = np.zeros((model.features, model.config.d_model))
        z, new = np.zeros(model.features), True
        for s in range(SEGMENTS):
            before = A.copy(), z.copy(), new
            for i in range(model.config.num_mem_tokens):
                k = phi(model.rule, m[s, layer, i] @ W["W_mk"]["kernel"], model.config.nu)
                a = m[s, layer, i] @ W["W_mb"]["kernel"][:, 0] + W["W_mb"]["bias"][0]
                beta = gate(model.rule, a)
                np.testing.assert_allclose(seen.keys[s, layer, 0, i], k, rtol=1e-9, atol=1e-12)
                np.testing.assert_allclose(seen.beta[s, layer, 0, i], beta, rtol=1e-9)
                in_turn = model.rule.order == "sequential"
                A_seen, z_seen, is_new = (A, z, new) if in_turn else before
                weight = z_seen @ k + model.rule.eps if model.rule.has_normaliser else 1.0
                old = A_seen.T @ k / weight if model.rule.erase else 0.0
                u = beta * (m[s, layer, i] @ W["W_mv"]["kernel"] - old)
                length = np.linalg.norm(u)
                np.testing.assert_allclose(seen.rows[s, layer, 0, i], length, rtol=1e-8, atol=1e-10)
                A = A + np.outer(k, u)
                if seen.gamma is not None:
                    gamma = np.clip(1 - weight / (k @ k + model.rule.eps), 0, 1)
                    gamma = 1.0 if is_new or model.rule.normaliser == "sum" else gamma
                    np.testing.assert_allclose(seen.gamma[s, layer, 0, i], gamma, atol=1e-9)
                    z = z + gamma * k
                new = False
            np.testing.assert_allclose(seen.A[s, layer, 0], np.linalg.norm(A), rtol=1e-8)


def test_models_without_associative_memories_are_refused() -> None:
    model: Any = small_model(family="rmt")
    with pytest.raises(ConfigError, match=r"model.family = 'rmt': must be 'armt'"):
        observe(model, None, model.init_state(1), segments_of(jnp.zeros((1, 1, 3), jnp.int32)))
    armt = small_model()
    state = armt.init_state(1, window=3)
    with pytest.raises(ConfigError, match="sliding_window = True: must be False"):
        observe(armt, None, state, segments_of(jnp.zeros((1, 1, 3), jnp.int32)))


@pytest.mark.slow
def test_strength_is_what_the_keys_of_a_fact_still_recall() -> None:
    model = small_model(n_layer=1)
    params = lively_params(model)
    reader = StreamReader(model, params, segment_size=SIZE)
    write = quick_jit(functools.partial(model.write, params))
    state = write(model.init_state(1), segments_of(random_tokens(model, 1, SIZE)))
    fact = segments_of(random_tokens(model, 1, SIZE, seed=1))
    noise = np.asarray(random_tokens(model, 6 * SIZE + 2, seed=2))
    asked = Asked(np.array([1, 2, 3, 4, 5]), 3)
    found = fact_strength(reader, params, state, fact, noise, [0, 1, 2, 6], asked)

    memory = write(state, fact)
    seen = observe(model, params, state, jax.tree.map(lambda leaf: leaf[None], fact))[1]
    query = segments_of(jnp.asarray(asked.tokens, jnp.int32)[None, None])
    ask = quick_jit(lambda memory: answer(model, params, memory, query))
    first, row = np.zeros(0), 0
    for distance in range(7):
        if distance:
            segment = noise[None, (distance - 1) * SIZE : distance * SIZE]
            memory = write(memory, segments_of(jnp.asarray(segment)))
        if distance not in found.distances:
            continue
        keys = np.asarray(seen.keys[0, 0, 0])
        recalled = [np.asarray(memory.A[0, 0]).T @ k / (memory.z[0, 0] @ k + 1e-5) for k in keys]
        y = np.concatenate(recalled)
        first = first if distance else y
        strength = y @ first / (first @ first)
        rest = np.linalg.norm(y - strength * first) / np.linalg.norm(first)
        np.testing.assert_allclose(found.strength[row, 0], strength, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found.interference[row, 0], rest, rtol=1e-6, atol=1e-7)
        scores = jax.nn.log_softmax(ask(memory)[0, 0])
        assert found.answer is not None
        expected = np.exp(scores[2, 4] + scores[3, 5])
        np.testing.assert_allclose(found.answer[row], expected, rtol=1e-8)
        row += 1
    assert row == 4
    assert not np.any(np.isclose(found.strength[1:], 1, atol=1e-3))
    for wrong in ([0, 7], [2, 1], [-1]):
        with pytest.raises(ConfigError, match="must ascend from 0 to 6, the segments of noise"):
            fact_strength(reader, params, state, fact, noise, wrong)


def test_similarities_and_distances() -> None:
    keys = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    root = 0.5**0.5
    expected = [[1, 1, root, 0], [1, 1, root, 0], [root, root, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(cosine_similarity(keys), expected)
    found = mean_similarity(keys.reshape(2, 1, 2, 2))
    assert found == {"within_segment": [0.5], "across_segments": [round(root / 2, 6)]}
    assert mean_similarity(keys[:1].reshape(1, 1, 1, 2)) == {
        "within_segment": [None],
        "across_segments": [None],
    }
    assert [list(distances_up_to(n)) for n in (0, 1, 2, 5, 8)] == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 4, 5],
        [0, 1, 2, 4, 8],
    ]
