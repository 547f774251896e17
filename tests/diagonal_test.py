"""The diagonal schedule against the sequential one, resets, and lanes that have no segment."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax import ConfigError
from armt_jax.models import Params
from armt_jax.recurrence.diagonal import Place, guarded_layer
from armt_jax.recurrence.run import choose_schedule
from tests.layerwise_cases import (
    B,
    Case,
    Fragile,
    S,
    T,
    assert_gradients_mean_something,
    fragile_gradients,
    kept_for_backward,
    resets,
    scans,
)
from tests.small_models import (
    assert_close,
    lively_params,
    quick_jit,
    random_tokens,
    segments_of,
    small_model,
)


@pytest.mark.usefixtures("x64")
def test_diagonal_equals_sequential() -> None:
    case = Case(small_model(n_layer=3), resets())
    sequential, found = case.gradients("sequential"), case.gradients("diagonal")(1.0)
    assert_close(found, sequential(1.0), 1e-10)
    assert_gradients_mean_something(found[1])
    # Without hidden states: as if they did not count.
    (loss, (after, hidden)), grads = case.gradients("diagonal", need_hidden=False)(1.0)
    (expected_loss, (expected_after, _)), expected_grads = sequential(0.0)
    assert hidden is None
    assert_close((loss, after, grads), (expected_loss, expected_after, expected_grads), 1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_diagonal_with_remat_equals_sequential_for_the_other_backbone() -> None:
    model = small_model(n_layer=2, backbone="gpt_neox", rule="armt_sequential")
    case = Case(model, resets())
    found = case.gradients("diagonal", remat="segment")(1.0)
    assert_close(found, case.gradients("sequential")(1.0), 1e-10)
    assert_gradients_mean_something(found[1])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("remat", ["none", "segment"])
@pytest.mark.parametrize("rule", ["armt_no_gamma", "linear", "delta", "delta_hard"])
def test_diagonal_equals_sequential_for_every_rule(rule: str, remat: str) -> None:
    case = Case(small_model(n_layer=3, rule=rule), resets())
    found = case.gradients("diagonal", remat=remat)(1.0)
    assert_close(found, case.gradients("sequential")(1.0), 1e-10)


def test_values_in_float32_of_segments_with_a_length() -> None:
    """Of a rule that divides by nothing: rounding stays rounding over the segments.

    Every layer of this backbone looks at the positions, which the length changes.
    """
    case = Case(small_model(rule="delta", backbone="gpt_neox"))
    lengths = np.where(np.arange(S)[:, None] == S - 1, T - 1, np.full((S, B), T))
    case.text = case.text._replace(length=jnp.asarray(lengths, jnp.int32))
    assert_close(case.values("diagonal"), case.values("sequential"), 1e-5)


@pytest.mark.slow
def test_gradients_in_float32() -> None:
    case = Case(small_model(rule="delta"), resets())
    found, expected = (case.gradients(schedule)(1.0) for schedule in ("diagonal", "sequential"))
    assert_close(found, expected, 1e-5)


@pytest.mark.usefixtures("x64")
def test_texts_in_one_row_are_as_texts_apart() -> None:
    """Two texts after one another, of two segments each; the first memory is not even finite."""
    model = small_model(n_layer=1)
    case = Case(model, jnp.asarray([[True] * B, [False] * B] * 2))
    case.text = jax.tree.map(lambda leaf: leaf[:4], case.text)
    case.state = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), case.state)
    after, hidden = case.values("sequential")
    read = quick_jit(functools.partial(armt_jax.run_segments, model, case.params))
    cuts = [jax.tree.map(lambda leaf, i=i: leaf[i : i + 2], case.text) for i in (0, 2)]
    apart = [read(model.init_state(B), text) for text in cuts]
    assert_close(hidden, jnp.concatenate([hidden for _, hidden in apart]), 1e-10)
    assert_close(after, apart[1][0], 1e-10)
    assert np.abs(apart[0][0].A - apart[1][0].A).max() > 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("remat", ["none", "segment"])
def test_nothing_of_a_dead_lane_is_seen(remat: str) -> None:
    found = fragile_gradients("diagonal", 3, remat=remat)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))
    assert_close(found, fragile_gradients("sequential", 3), 1e-10)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("garbage", [np.nan, np.inf])
def test_guard_of_one_layer(live: bool, garbage: float) -> None:
    """Whatever a dead lane is given, it keeps its memory, and its cotangents are 0 or the memory's.

    A live one is untouched, garbage included.
    """
    model = Fragile(small_model().config)
    params_l = jax.tree.map(lambda leaf: leaf[1], model.init(jax.random.key(0))["layers"])
    memory = {"sum": jnp.full(2, garbage)}
    x, harmless = jnp.full((2, T, 1), garbage), jnp.ones((2, T, 1))
    context = jnp.ones(2, bool)

    def run(params_l: Params, memory: Any, x: jax.Array, harmless: jax.Array):
        at = Place(jnp.asarray(live), segments_of(jnp.zeros((2, T), int)), None, None)
        return guarded_layer(model, params_l, memory, x, context, at=at, harmless=harmless)

    (after, y), pullback = jax.vjp(run, params_l, memory, x, harmless)
    if live:
        expected = model.layer(params_l, memory, x, context)[:2]
        jax.tree.map(np.testing.assert_array_equal, (after, y), expected)
        return
    np.testing.assert_array_equal(after["sum"], memory["sum"])
    np.testing.assert_array_equal(y, 0.0)
    d_params, d_memory, d_x, d_harmless = pullback(({"sum": jnp.full(2, 3.0)}, jnp.ones_like(y)))
    np.testing.assert_array_equal(d_memory["sum"], 3.0)
    for leaf in jax.tree.leaves((d_params, d_x, d_harmless)):
        np.testing.assert_array_equal(leaf, 0.0)


def test_one_scan_of_segments_and_layers() -> None:
    case = Case(small_model(n_layer=3))
    run = functools.partial(case.read, schedule="diagonal")
    program = jax.make_jaxpr(run)(case.params, case.state.A, case.state.z)
    assert [scan.params["length"] for scan in scans(program.jaxpr)] == [S + 3 - 1]


@pytest.mark.parametrize("remat", ["none", "segment"])
def test_what_is_kept_for_the_backward_pass(remat: str) -> None:
    """No parameter, which does not change, and A once; with ``remat`` only what travels on."""
    model = small_model(n_layer=3)
    kept, state = kept_for_backward(model, S + 2, "diagonal", remat=remat), model.init_state(B)
    layers = jax.eval_shape(lambda: model.init(jax.random.key(0)))["layers"]
    assert kept.count(state.A.shape) == 1
    assert not set(kept) & {leaf.shape for leaf in jax.tree.leaves(layers)}
    travelling = (2, B, T + model.config.num_mem_tokens, model.config.d_model)
    between = {travelling, *(leaf.shape for leaf in jax.tree.leaves(state))}
    assert (set(kept) == between) is (remat == "segment")


class _TopToBottom:
    """Reads segments, but not layer by layer."""

    config = init = init_state = step = write = ask = readout = None


def test_what_cannot_be_is_refused() -> None:
    model = small_model()
    text, state = segments_of(random_tokens(model, 2, 1, T)), model.init_state(1)
    window = model.init_state(1, window=T)
    read = functools.partial(armt_jax.run_segments, params=lively_params(model), segments=text)
    reset = jnp.zeros((2, 1), bool)
    wrong_model: Any = _TopToBottom()
    refused = [
        (
            lambda: read(wrong_model, state=state, schedule="diagonal"),
            "schedule = 'diagonal': needs a memory in each layer; "
            "_TopToBottom's goes from the top layer to the bottom",
        ),
        (
            lambda: read(model, state=window, schedule="diagonal"),
            "schedule = 'diagonal': needs a memory in each layer; "
            "a sliding window is one segment's, for all layers",
        ),
        (
            lambda: read(model, state=state, schedule="chunked", reset=reset),
            "schedule = 'chunked': reads a chunk from one memory, so reset must be None",
        ),
        (
            lambda: read(model, state=window, reset=reset),
            "reset: must be None with a sliding window, whose position all rows share",
        ),
        (
            lambda: read(model, state=state, reset=reset[:1]),
            "reset of bool (1, 1): must be bool (2, 1), segments and batch",
        ),
        (
            lambda: read(model, state=state, reset=jnp.zeros((2, 1), jnp.int32)),
            "reset of int32 (2, 1): must be bool (2, 1), segments and batch",
        ),
    ]
    for call, message in refused:
        with pytest.raises(ConfigError) as error:
            call()
        assert str(error.value) == message


def test_auto_takes_what_can_be() -> None:
    model = small_model()
    text, state = segments_of(random_tokens(model, 2, 1, T)), model.init_state(1)
    ragged = text._replace(length=jnp.full((2, 1), T))
    window = model.init_state(1, window=T)
    assert choose_schedule(model, state, text, None) == "chunked"
    assert choose_schedule(model, state, text, jnp.zeros((2, 1), bool)) == "sequential"
    assert choose_schedule(model, state, ragged, None) == "sequential"
    assert choose_schedule(model, window, text, None) == "sequential"
