"""The chunked schedule against the sequential one: values, states and gradients."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax import ConfigError
from armt_jax.memory import PRESETS
from armt_jax.models import ARMT
from armt_jax.models.armt import ArmtState
from armt_jax.recurrence.chunked import DEFAULT_CHUNK, chunk_length
from tests.layerwise_cases import Case
from tests.small_models import (
    assert_close,
    lively_params,
    quick_jit,
    random_tokens,
    segments_of,
    small_model,
)

# Two chunks of four, the second one padded; the sizes of a chunk are chosen by `chunk_length`.
S, B, T = 7, 3, 3


def _text(model: ARMT):
    """Row 0 starts with a segment of padding; row 1 has them in the middle; row 2 ends early."""
    mask = np.ones((S, B, T), bool)
    mask[0, 0] = False
    mask[2:4, 1] = False
    mask[5:, 2] = False
    mask[4, 2, 1:] = False
    return segments_of(random_tokens(model, S, B, T), mask)


def _start(model: ARMT, rng: np.random.Generator) -> ArmtState:
    """A memory with something in it, but row 0 new; ``z`` is positive as after any reading."""
    state = model.init_state(B)
    old = (np.arange(B) > 0).astype(float)
    A = rng.normal(size=state.A.shape) * old[:, None, None]
    z = rng.uniform(0.5, 1.0, size=state.z.shape) * old[:, None]
    written = np.broadcast_to(old, state.written.shape)
    A, z, written = (jnp.asarray(leaf, state.A.dtype) for leaf in (A, z, written))
    return ArmtState(A, z, written)


def _case(model: ARMT) -> Case:
    start = _start(model, np.random.default_rng(0))
    return Case(model, text=_text(model), state=start)


def _assert_equal_both_ways(model: ARMT) -> None:
    case = _case(model)
    sequential = case.gradients("sequential")
    chunked = case.gradients("chunked")(1.0)
    assert_close(chunked, sequential(1.0), 1e-10)
    (_, (after, hidden)), (grads, A_grad, _) = chunked
    assert hidden is not None
    # Nothing is equal because it is zero.
    assert np.array_equal(after.written, np.ones((2, B)))
    assert np.all(np.abs(A_grad).max(axis=(2, 3)) > 0)
    projections = grads["layers"]["memory"]
    assert all(np.any(projections[name]["kernel"]) for name in projections)
    # Without hidden states: as if they did not count.
    (loss, (after, hidden)), grads = case.gradients("chunked", need_hidden=False)(1.0)
    (expected_loss, (expected_after, _)), expected_grads = sequential(0.0)
    assert hidden is None
    assert_close((loss, after, grads), (expected_loss, expected_after, expected_grads), 1e-10)


@pytest.mark.usefixtures("x64")
def test_chunked_equals_sequential() -> None:
    _assert_equal_both_ways(small_model())


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rule", [rule for rule in PRESETS if rule != "armt"])
def test_chunked_equals_sequential_for_every_rule(rule: str) -> None:
    _assert_equal_both_ways(small_model(rule=rule))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("rule", "backbone"), [("armt_sequential", "gpt_neox"), ("delta_hard", "gpt2")]
)
def test_one_layer_chunked_equals_sequential(rule: str, backbone: str) -> None:
    """What a rule or a backbone changes is inside one layer."""
    case = _case(small_model(n_layer=1, rule=rule, backbone=backbone))
    found, expected = (case.gradients(schedule)(1.0) for schedule in ("chunked", "sequential"))
    assert_close(found, expected, 1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rule", ["armt_no_gamma", "linear", "delta"])
def test_values_of_one_layer_for_the_other_rules(rule: str) -> None:
    case = _case(small_model(n_layer=1, rule=rule))
    assert_close(case.values("chunked"), case.values("sequential"), 1e-10)


def test_values_in_float32() -> None:
    """Of a rule that divides by nothing: rounding stays rounding over seven segments."""
    case = _case(small_model(rule="delta"))
    assert_close(case.values("chunked"), case.values("sequential"), 1e-5)


@pytest.mark.slow
def test_gradients_in_float32() -> None:
    case = _case(small_model(n_layer=1, rule="delta"))
    found, expected = (case.gradients(schedule)(1.0) for schedule in ("chunked", "sequential"))
    assert_close(found, expected, 1e-5)


@pytest.mark.parametrize("longest", [1, 2, 3, DEFAULT_CHUNK, 8])
def test_chunk_length_costs_least(longest: int) -> None:
    for segments in range(1, 100):
        length = chunk_length(segments, longest)
        assert 1 <= length <= min(longest, segments)
        chunks = {c: -(-segments // c) for c in range(1, min(longest, segments) + 1)}
        padding = {c: chunks[c] * c - segments for c in chunks}
        assert 0 <= padding[length] < length
        # Whoever has fewer chunks pays for them with padding, and the other way round.
        for c in chunks:
            assert (padding[c] + chunks[c]) >= (padding[length] + chunks[length])
        if segments % longest == 0:
            assert length == longest


def test_chunk_length_of_a_prime_number_is_not_one() -> None:
    assert [chunk_length(n) for n in (7, 11, 13, 53)] == [4, 4, 5, 5]


def test_second_call_compiles_nothing() -> None:
    model = small_model(n_layer=1, rule="delta")
    params, traces = lively_params(model), []

    @quick_jit
    def read(params, state, text):
        traces.append(text.tokens.shape)
        return armt_jax.run_segments(model, params, state, text, schedule="chunked")

    state, hidden = read(params, model.init_state(2), segments_of(random_tokens(model, 4, 2, T)))
    # The state that comes back is of the kind that was given: it goes straight in again.
    _, later = read(params, state, segments_of(random_tokens(model, 4, 2, T, seed=1)))
    assert traces == [(4, 2, T)]
    assert np.abs(hidden - later).max() > 1e-3


def test_schedules_are_refused_by_name() -> None:
    model = small_model()
    text = segments_of(random_tokens(model, 2, 1, T))
    state = model.init_state(1, window=T)
    read = functools.partial(armt_jax.run_segments, model, lively_params(model))
    with pytest.raises(ConfigError) as error:
        read(state, text, schedule="chunked")
    assert str(error.value) == (
        "schedule = 'chunked': needs a memory of low-rank updates (ARMT without sliding window)"
    )
    with pytest.raises(ConfigError) as error:
        read(state, text, schedule="diagnoal")
    assert str(error.value) == (
        "schedule = 'diagnoal': must be one of sequential, chunked, diagonal, pipeline, whole, auto"
    )


def test_auto_is_chunked_where_it_can_be() -> None:
    model = small_model(n_layer=1)
    params, text = lively_params(model), segments_of(random_tokens(model, 4, 1, T))

    def program(state: ArmtState, schedule: str) -> str:
        read = functools.partial(armt_jax.run_segments, model, schedule=schedule)
        return str(jax.make_jaxpr(read)(params, state, text))

    usual, window = model.init_state(1), model.init_state(1, window=T)
    assert program(usual, "auto") == program(usual, "chunked") != program(usual, "sequential")
    assert program(window, "auto") == program(window, "sequential")
