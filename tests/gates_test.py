"""Gates on text that holds nothing: what is penalised, and that learning it shuts them for good."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from armt_jax import ConfigError
from armt_jax.evaluation.scoring import MarkedAnswer, Reading
from armt_jax.inspection.observe import observe
from armt_jax.models import ARMT, Segment, create_model
from armt_jax.recurrence.gates import MARGINS, open_gates
from tests.scoring_test import PASSAGES, marked
from tests.small_models import (
    assert_close,
    lively_params,
    quick_jit,
    random_tokens,
    segments_of,
    small_model,
)
from tests.step_test import MODEL as STEP_MODEL
from tests.step_test import busy_params, draw_batch

SEGMENTS, BATCH, LENGTH = 4, 3, 5


def noise(rows: int = SEGMENTS) -> Segment:
    return segments_of(random_tokens(small_model(), rows, BATCH, LENGTH, seed=3))


def read(model: ARMT, params: Any, segments: Segment) -> Any:
    state = model.init_state(BATCH)
    for index in range(segments.tokens.shape[0]):
        state = model.write(params, state, jax.tree.map(lambda leaf, i=index: leaf[i], segments))
    return state


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rule", ["armt", "delta_hard"])
def test_logits_are_those_of_the_gates_that_write(rule: str) -> None:
    model = small_model(rule=rule)
    params = lively_params(model)
    state = read(model, params, noise())
    segment = jax.tree.map(lambda leaf: leaf[0], noise())
    logits = model.gate_logits(params, state, segment)
    _, seen = observe(model, params, state, jax.tree.map(lambda leaf: leaf[None], segment))
    beta = 1 / (1 + np.exp(-np.asarray(logits)))
    if rule == "delta_hard":
        beta = np.clip(1.2 * beta - 0.1, 0, 1)
    np.testing.assert_allclose(beta, seen.beta[0], rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rule", ["armt", "delta_hard"])
def test_is_the_mean_over_what_is_read_from_one_memory(rule: str) -> None:
    """Layers without a memory and segments without a token count for nothing."""
    model = small_model(rule=rule)
    params = lively_params(model)
    state = read(model, params, noise(2))
    segments = noise()
    mask = np.ones(segments.tokens.shape, bool)
    mask[1, 0] = False
    mask[2] = False
    mask[3, 1, :3] = False
    segments = Segment(segments.tokens, jnp.asarray(mask))
    kept = dataclasses.replace(model.config, memory_layers=(1,))
    for layers, chosen in (((0, 1), model), ((1,), create_model(kept))):
        expected = []
        for index in range(SEGMENTS):
            one = jax.tree.map(lambda leaf, i=index: leaf[i], segments)
            logits = np.asarray(model.gate_logits(params, state, one))
            for row in range(BATCH):
                if mask[index, row].any():
                    margin = {"armt": 18.0, "delta_hard": 6.0}[rule]
                    excess = np.log1p(np.exp(logits[list(layers), row] + margin))
                    expected.append(excess.mean())
        found = open_gates(chosen, params, state, segments)
        np.testing.assert_allclose(found, np.mean(expected), rtol=1e-6)
    nothing = Segment(segments.tokens, jnp.zeros(mask.shape, bool))
    assert float(open_gates(model, params, state, nothing)) == 0.0


def test_shut_gates_leave_the_memory_as_it_is() -> None:
    """Learnt on some noise, exact on other noise: the hard gate ends at 0, not near it."""
    model = small_model(rule="delta_hard")
    params = lively_params(model)
    state = read(model, params, noise())
    train = jax.tree.map(lambda leaf: leaf[:3], noise())
    other = jax.tree.map(lambda leaf: leaf[3], noise())
    changed = model.write(params, state, other)
    assert float(jnp.abs(changed.A - state.A).max()) > 0.1, "nothing was written: tests nothing"
    optimizer = optax.adam(0.05)
    loss = functools.partial(open_gates, model)

    @quick_jit
    def step(params: Any, moments: Any) -> Any:
        value, slope = jax.value_and_grad(loss)(params, state, train)
        updates, moments = optimizer.update(slope, moments, params)
        return value, optax.apply_updates(params, updates), moments

    moments = optimizer.init(params)
    for _ in range(100):
        value, params, moments = step(params, moments)
    assert float(value) < 0.5
    after = model.write(params, state, other)
    np.testing.assert_array_equal(after.A, state.A)


@pytest.mark.usefixtures("x64")
def test_scoring_adds_them_for_every_scored_token() -> None:
    """The memory that the noise is read from has no gradient of this; ``PASSAGES`` are around."""
    batch, params, weight = marked(draw_batch(3)), busy_params(), 0.25
    plain = MarkedAnswer(3, *PASSAGES)
    gated = MarkedAnswer(3, *PASSAGES, gate_weight=weight)
    tokens, mask = jnp.swapaxes(batch.context, 0, 1), jnp.swapaxes(batch.context_mask, 0, 1)

    def loss(scoring: MarkedAnswer, params: Any) -> jax.Array:
        return scoring.score(STEP_MODEL, params, batch, Reading("sequential")).loss

    def expected(params: Any) -> jax.Array:
        state = STEP_MODEL.init_state(tokens.shape[1])
        for index in range(tokens.shape[0]):
            fixed = jax.lax.stop_gradient(params)
            state = STEP_MODEL.write(fixed, state, Segment(tokens[index], mask[index]))
        assert isinstance(STEP_MODEL, ARMT)
        last = slice(tokens.shape[0] - PASSAGES[1], None)
        excess = open_gates(STEP_MODEL, params, state, Segment(tokens[last], mask[last]))
        return loss(plain, params) + weight * excess * plain.count(batch)

    found = quick_jit(jax.value_and_grad(functools.partial(loss, gated)))(params)
    assert_close(found, quick_jit(jax.value_and_grad(expected))(params), 1e-9)
    assert float(found[0]) != float(loss(plain, params))


def test_every_gate_has_a_margin_below_where_it_is_shut() -> None:
    assert MARGINS.keys() == {"hard", "sigmoid"}
    assert 1.2 / (1 + np.exp(MARGINS["hard"])) - 0.1 < 0
    assert 1 / (1 + np.exp(MARGINS["sigmoid"])) < np.finfo(np.float32).eps


def test_a_model_without_gates_is_refused() -> None:
    model = create_model(dataclasses.replace(small_model().config, family="rmt"))
    params = lively_params(model)
    with pytest.raises(ConfigError, match=r"gate_weight: must be 0 for model.family = 'rmt'"):
        open_gates(model, params, model.init_state(BATCH), noise())
