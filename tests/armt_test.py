"""What ARMT promises: who sees whom, what is remembered, and which ways of reading are the same."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax.models import ARMT, Params, Segment, layers
from tests.bare_gpt2 import read_alone
from tests.small_models import (
    assert_close,
    lively_params,
    quick_jit,
    random_tokens,
    segments_of,
    small_model,
)

S, T = 3, 4


def _read(model: ARMT, params: Params, segments: Segment):
    """State and hidden states ``[s, b, t, d]`` of a text from an empty memory."""
    return _reader(model)(params, model.init_state(segments.tokens.shape[1]), segments)


@functools.lru_cache
def _reader(model: ARMT):
    return quick_jit(functools.partial(armt_jax.run_segments, model))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("backbone", ["gpt2", "gpt_neox"])
def test_tokens_see_earlier_tokens_only(backbone: str) -> None:
    """Every token of the text is another id, so its embedding's gradient is the token's own."""
    model = small_model(backbone=backbone, wrap_pos=True)
    params = lively_params(model)
    tokens = jnp.arange(S * T, dtype=jnp.int32).reshape(S, 1, T)
    name = {"gpt2": "wte", "gpt_neox": "embed_in"}[backbone]
    state = model.init_state(1)

    def hidden(leaves):
        changed = {**params, "embed": {**params["embed"], **leaves}}
        _, out = armt_jax.run_segments(model, changed, state, segments_of(tokens))
        # Hidden states, not logits: a tied output matrix would bring the embedding in once more.
        return jnp.einsum("sbtd,d->sbt", out, jnp.arange(1.0, 17.0)).reshape(S * T)

    leaves = {key: params["embed"][key] for key in (name, "memory")}
    pullback = quick_jit(lambda one: jax.vjp(hidden, leaves)[1](one)[0])
    rows = [pullback(one) for one in jnp.eye(S * T)]
    seen = np.array([np.abs(row[name]).max(axis=-1)[: S * T] for row in rows])
    assert np.all(seen[np.triu_indices(S * T, 1)] == 0)
    assert np.all(seen[np.tril_indices(S * T)] > 0)
    # Memory tokens: unseen by their own segment, so by all of the first; seen through the memory.
    memory = np.array([np.abs(row["memory"]).max() for row in rows])
    assert np.all(memory[:T] == 0)
    assert np.all(memory[T:] > 0)


def test_memory_tokens_unseen_by_their_own_segment() -> None:
    """From one memory, other memory tokens change what is written and nothing that is said."""
    model = small_model(n_layer=1)
    params = lively_params(model)
    memory = params["embed"]["memory"]
    other = {**params, "embed": {**params["embed"], "memory": memory[::-1] + 1}}
    text = segments_of(random_tokens(model, 2, 2, T))
    state, _ = _read(model, params, text)
    step = quick_jit(model.step)
    segment = segments_of(random_tokens(model, 2, T, seed=1))
    (first, hidden), (second, other_hidden) = (step(p, state, segment) for p in (params, other))
    np.testing.assert_array_equal(hidden, other_hidden)
    assert np.abs(first.A - second.A).max() > 1e-3


@pytest.mark.usefixtures("x64")
def test_write_gives_the_state_of_step_and_the_pieces_are_the_whole() -> None:
    model = small_model()
    params = lively_params(model)
    tokens = random_tokens(model, 6, 2, T)
    whole, hidden = _read(model, params, segments_of(tokens))
    write = functools.partial(armt_jax.run_segments, model, need_hidden=False)
    written, nothing = quick_jit(write)(params, model.init_state(2), segments_of(tokens))
    assert nothing is None
    assert_close(written, whole, 1e-12)
    middle, first = _read(model, params, segments_of(tokens[:2]))
    assert_close(middle.written, jnp.ones((2, 2)), 0)
    end, rest = _reader(model)(params, middle, segments_of(tokens[2:]))
    assert_close((end, jnp.concatenate([first, rest])), (whole, hidden), 1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("backbone", "n_layer"), [("gpt2", 2), ("gpt_neox", 1)])
def test_answer_is_each_query_as_a_last_segment_of_its_own(backbone: str, n_layer: int) -> None:
    """Values, and gradients of parameters and memory, with a padded query among them."""
    model = small_model(backbone=backbone, n_layer=n_layer)
    params = lively_params(model)
    state, _ = _read(model, params, segments_of(random_tokens(model, 2, 2, T)))
    mask = np.ones((2, 3, 5), bool)
    mask[1, 2, :2] = False
    queries = segments_of(random_tokens(model, 2, 3, 5, seed=1), mask)
    # What a model says at padding means nothing.
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, 1)) * mask[..., None])

    def forked(params, state):
        logits = weights * armt_jax.answer(model, params, state, queries)
        return jnp.sum(jnp.sin(logits)), logits

    def one_by_one(params, state):
        def ask(tokens, mask):
            _, hidden = model.step(params, state, Segment(tokens, mask))
            return model.readout(params, hidden)

        each = jax.tree.map(lambda x: x.swapaxes(0, 1), queries)
        logits = jax.lax.map(lambda q: ask(q.tokens, q.mask), each)
        logits = weights * logits.swapaxes(0, 1)
        return jnp.sum(jnp.sin(logits)), logits

    found, expected = (
        quick_jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(params, state)
        for f in (forked, one_by_one)
    )
    assert_close(found, expected, 1e-12)
    # Nobody wrote: the memory's own weights have no part in an answer, reading it has.
    grads, state_grad = found[1]
    assert np.abs(grads["layers"]["memory"]["W_mq"]["kernel"]).max() > 0
    assert not np.any(grads["layers"]["memory"]["W_mv"]["kernel"])
    assert np.all(np.abs(state_grad.A).max(axis=(2, 3)) > 0)


def test_memory_is_float32_where_the_model_computes_in_bfloat16() -> None:
    model = small_model(n_layer=1, dtype="bfloat16")
    params = lively_params(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    tokens = random_tokens(model, 3, 2, T)
    state, hidden = _read(model, params, segments_of(tokens))
    assert hidden.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.float32)}
    _, exact = _read(small_model(n_layer=1), params, segments_of(tokens))
    # Three decimal digits a step, and a few steps after another.
    assert np.abs(hidden.astype(jnp.float32) - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.usefixtures("x64")
def test_without_values_every_segment_is_a_bare_gpt2_alone() -> None:
    """``W_V = 0`` (the initialisation): nothing is ever recalled, whatever came before."""
    model = small_model()
    values = quick_jit(model.init)(jax.random.key(0))["layers"]["memory"]["W_mv"]
    params = lively_params(model)
    params["layers"]["memory"]["W_mv"] = values
    tokens = random_tokens(model, S, 2, T)
    state, hidden = _read(model, params, segments_of(tokens))
    assert not np.any(state.A)
    assert np.all(np.abs(state.z).max(axis=2) > 0)
    logits = model.readout(params, hidden)
    for s in range(S):
        for b in range(2):
            alone = read_alone(model.config, params, np.asarray(tokens[s, b]))
            np.testing.assert_allclose(logits[s, b], alone, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_scan_over_layers_equals_unrolled_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without hidden states, with a sliding window, and for queries."""
    model = small_model()
    params = lively_params(model)
    text = segments_of(random_tokens(model, 2, 2, T))
    queries = segments_of(random_tokens(model, 2, 2, T, seed=1))

    def everything(params):
        state, hidden = armt_jax.run_segments(model, params, model.init_state(2), text)
        window = model.init_state(2, window=T)
        return (
            state,
            hidden,
            armt_jax.run_segments(model, params, model.init_state(2), text, need_hidden=False)[0],
            armt_jax.run_segments(model, params, window, text),
            model.ask(params, state, queries),
        )

    unrolled = quick_jit(everything)(params)
    assert_close(unrolled[2], unrolled[0], 1e-12)
    monkeypatch.setattr(layers, "UNROLLED_LAYERS", 1)
    assert_close(quick_jit(lambda params: everything(params))(params), unrolled, 1e-12)


@pytest.mark.usefixtures("x64")
def test_texts_of_a_batch_do_not_meet() -> None:
    model = small_model()
    params = lively_params(model)
    tokens = random_tokens(model, 2, 3, T)
    mask = np.ones((2, 3, T), bool)
    mask[0, 1] = mask[1, 2, 2:] = False

    def read(tokens, mask, rows):
        text = segments_of(tokens[:, rows], mask[:, rows])
        return _read(model, params, text)

    state, hidden = read(tokens, mask, slice(0, 3))
    for row in range(3):
        alone_state, alone_hidden = read(tokens, mask, slice(row, row + 1))
        part = jax.tree.map(lambda leaf, row=row: leaf[:, row : row + 1], (state, hidden))
        assert_close((alone_state, alone_hidden), part, 1e-12)


@pytest.mark.usefixtures("x64")
def test_padding() -> None:
    """At the end of a segment it changes no real token; a segment of it leaves the memory alone."""
    model = small_model()
    params = lively_params(model)
    step = quick_jit(model.step)
    state, _ = step(params, model.init_state(1), segments_of(random_tokens(model, 1, T + 3)))
    tokens = random_tokens(model, 1, T + 3, seed=1)
    padded = segments_of(tokens, np.arange(T + 3)[None] < T)
    _, whole = step(params, state, segments_of(tokens))
    after, hidden = step(params, state, padded)
    np.testing.assert_allclose(hidden[:, :T], whole[:, :T], rtol=0, atol=1e-12)
    # What stands at the padding does not matter, to the memory either.
    other, other_hidden = step(params, state, padded._replace(tokens=tokens.at[:, T:].set(0)))
    assert_close((other, other_hidden[:, :T]), (after, hidden[:, :T]), 0)
    assert np.abs(after.A - state.A).max() > 1e-3
    nothing = padded._replace(mask=jnp.zeros((1, T + 3), bool))
    kept, _ = step(params, state, nothing)
    assert_close(kept, state, 0)
    # A text that starts with a segment of padding starts with the next one.
    first, _ = step(params, model.init_state(1), nothing)
    assert_close(step(params, first, padded), step(params, model.init_state(1), padded), 0)


def test_window_refuses_what_it_cannot_hold() -> None:
    model = small_model(n_layer=1)
    params = lively_params(model)
    state = model.init_state(1, window=2)
    with pytest.raises(ValueError, match="of 4 tokens: longer than the sliding window of 2"):
        jax.eval_shape(model.step, params, state, segments_of(random_tokens(model, 1, 4)))
    with pytest.raises(ValueError, match="no forked queries"):
        armt_jax.answer(model, params, state, segments_of(random_tokens(model, 1, 1, 4)))
