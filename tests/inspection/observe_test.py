"""Observing changes nothing, and what is seen are the equations' own numbers, one token a time."""

from __future__ import annotations

from typing import Any

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
from armt_jax.models.protocol import Params
from armt_jax.recurrence import answer, run_segments
from armt_jax.streaming import StreamReader
from tests.memory_oracle import gate, phi
from tests.small_models import assert_close, lively_params, random_tokens, segments_of, small_model

RULES = ("armt", "armt_sequential", "delta_hard", "linear")
SEGMENTS, SIZE = 4, 5

pytestmark = pytest.mark.usefixtures("quickly_compiled", "x64")


def read_and_seen(model: ARMT, params: Params, batch: int = 1) -> tuple[Any, Observation]:
    segments = segments_of(random_tokens(model, SEGMENTS, batch, SIZE))
    return observe(model, params, model.init_state(batch), segments)


@pytest.mark.parametrize("rule", RULES)
def test_observing_leaves_the_states_of_a_plain_reading(rule: str) -> None:
    model = small_model(rule=rule)
    params = lively_params(model)
    tokens = random_tokens(model, SEGMENTS, 2, SIZE)
    mask = np.ones(tokens.shape, bool)
    mask[0, 0, :3] = False
    mask[2, 1] = False  # a segment of padding only: nothing is written
    segments = segments_of(tokens, mask)
    found, seen = observe(model, params, model.init_state(2), segments)
    plain = run_segments(model, params, model.init_state(2), segments, need_hidden=False)[0]
    assert_close(found, plain, 1e-12)
    # Sizes are those of the states on the way.
    for stop in (1, SEGMENTS):
        first = jax.tree.map(lambda leaf, stop=stop: leaf[:stop], segments)
        state = run_segments(model, params, model.init_state(2), first, need_hidden=False)[0]
        np.testing.assert_allclose(
            seen.A[stop - 1], np.linalg.norm(state.A, axis=(2, 3)), rtol=1e-10
        )
        if seen.z is not None:
            np.testing.assert_allclose(
                seen.z[stop - 1], np.linalg.norm(state.z, axis=2), rtol=1e-10
            )
    np.testing.assert_array_equal(seen.rows[2, :, 1], 0)
    assert (seen.gamma is None) == (seen.z is None) == (rule == "delta_hard")


def outputs(model: ARMT, params: Params) -> np.ndarray:
    """The layers' outputs at the memory tokens ``[s, l, m, d]``, from plain steps."""
    tokens = random_tokens(model, SEGMENTS, 1, SIZE)
    state, found = model.init_state(1), []
    for segment in tokens:
        x, context = model.embed(params, segments_of(segment))
        layers = []
        for index in range(model.config.n_layer):
            memory = MemoryState(*(leaf[index] for leaf in state[:3]))
            _, x, _ = model.layer(layer_params(params["layers"], index), memory, x, context)
            layers.append(np.asarray(x[0, -model.config.num_mem_tokens :]))
        state = model.write(params, state, segments_of(segment))
        found.append(layers)
    return np.array(found)


@pytest.mark.parametrize("rule", RULES)
def test_what_is_seen_are_the_numbers_of_the_equations(rule: str) -> None:
    model = small_model(rule=rule)
    params = lively_params(model)
    _, seen = read_and_seen(model, params)
    m = outputs(model, params)
    for layer in range(model.config.n_layer):
        W = jax.tree.map(lambda leaf, i=layer: np.asarray(leaf[i]), params["layers"]["memory"])
        A = np.zeros((model.features, model.config.d_model))
        z, new = np.zeros(model.features), True
        for s in range(SEGMENTS):
            A_before, z_before, new_before = A.copy(), z.copy(), new
            for i in range(model.config.num_mem_tokens):
                k = phi(model.rule, m[s, layer, i] @ W["W_mk"]["kernel"], model.config.nu)
                a = m[s, layer, i] @ W["W_mb"]["kernel"][:, 0] + W["W_mb"]["bias"][0]
                beta = gate(model.rule, a)
                np.testing.assert_allclose(seen.keys[s, layer, 0, i], k, rtol=1e-9, atol=1e-12)
                np.testing.assert_allclose(seen.beta[s, layer, 0, i], beta, rtol=1e-9)
                alone = model.rule.order == "sequential"
                A_seen, z_seen, is_new = (A, z, new) if alone else (A_before, z_before, new_before)
                weight = z_seen @ k + model.rule.eps if model.rule.has_normaliser else 1.0
                old = A_seen.T @ k / weight if model.rule.erase else 0.0
                u = beta * (m[s, layer, i] @ W["W_mv"]["kernel"] - old)
                np.testing.assert_allclose(
                    seen.rows[s, layer, 0, i], np.linalg.norm(u), rtol=1e-8, atol=1e-10
                )
                A = A + np.outer(k, u)
                if model.rule.has_normaliser:
                    gamma = np.clip(1 - weight / (k @ k + model.rule.eps), 0, 1)
                    gamma = 1.0 if is_new or model.rule.normaliser == "sum" else gamma
                    assert seen.gamma is not None
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


@pytest.mark.parametrize("rule", ["armt", "delta_hard"])
def test_strength_is_what_the_keys_of_a_fact_still_recall(rule: str) -> None:
    model = small_model(rule=rule)
    params = lively_params(model)
    reader = StreamReader(model, params, segment_size=SIZE)
    state = read_and_seen(model, params)[0]
    fact = segments_of(random_tokens(model, 1, SIZE, seed=1))
    noise = np.asarray(random_tokens(model, 6 * SIZE + 2, seed=2))
    asked = Asked(np.array([1, 2, 3, 4, 5]), 3)
    found = fact_strength(reader, params, state, fact, noise, [0, 1, 2, 6], asked)

    one = jax.tree.map(lambda leaf: leaf[None], fact)
    after, seen = observe(model, params, state, one)
    recalled = []
    for row, distance in enumerate((0, 1, 2, 6)):
        text = segments_of(jnp.asarray(noise[: distance * SIZE].reshape(distance, 1, SIZE)))
        memory = (
            run_segments(model, params, after, text, need_hidden=False)[0] if distance else after
        )
        y = np.zeros((2, 2, 16))
        for layer in range(2):
            for i in range(2):
                k = np.asarray(seen.keys[0, layer, 0, i])
                weight = memory.z[layer, 0] @ k + 1e-5 if rule == "armt" else 1.0
                y[layer, i] = np.asarray(memory.A[layer, 0]).T @ k / weight
        recalled.append(y)
        first = recalled[0]
        strength = (y * first).sum((1, 2)) / (first**2).sum((1, 2))
        rest = np.linalg.norm((y - strength[:, None, None] * first).reshape(2, -1), axis=1)
        rest = rest / np.linalg.norm(first.reshape(2, -1), axis=1)
        np.testing.assert_allclose(found.strength[row], strength, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found.interference[row], rest, rtol=1e-6, atol=1e-7)
        query = segments_of(jnp.asarray(asked.tokens, jnp.int32)[None, None])
        scores = jax.nn.log_softmax(answer(model, params, memory, query)[0, 0])
        expected = np.exp(scores[2, 4] + scores[3, 5])
        assert found.answer is not None
        np.testing.assert_allclose(found.answer[row], expected, rtol=1e-8)
    assert not np.allclose(found.strength[1:], 1, atol=1e-3)
    np.testing.assert_array_equal(found.distances, [0, 1, 2, 6])
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
