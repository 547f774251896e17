"""The bare transformer: one long text, whatever its segments, seen whole or through a window."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax import ConfigError
from armt_jax.models.attention import SegmentContext
from armt_jax.streaming import StreamReader
from tests.bare_gpt2 import read_alone
from tests.small_models import (
    assert_close,
    lively_params,
    quick_jit,
    random_tokens,
    segments_of,
    small_model,
)

N, W = 14, 4
BOTH = pytest.mark.parametrize(
    ("backbone", "window"), [("gpt_neox", W), pytest.param("gpt2", 0, marks=pytest.mark.slow)]
)


@functools.cache
def _model(backbone: str = "gpt2", window: int = 0, **changes: Any) -> Any:
    sizes = {"n_positions": 40, "context_tokens": 40, "attention_window": window, **changes}
    return small_model(family="transformer", backbone=backbone, **sizes)


def _forward(model: Any, params: Any, tokens: Any, size: int, mask: Any = None) -> Any:
    read = functools.partial(armt_jax.forward, model, segment_size=size, attention_mask=mask)
    return quick_jit(read)(params, tokens)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", [5, *(pytest.param(n, marks=pytest.mark.slow) for n in (N, 1))])
def test_full_attention_is_a_bare_gpt2_whatever_the_segments(size: int) -> None:
    model = _model()
    params = lively_params(model)
    assert "memory" not in params["embed"]
    tokens = random_tokens(model, 2, N)
    logits = _forward(model, params, tokens, size).logits
    for row in range(2):
        alone = read_alone(model.config, params, np.asarray(tokens[row]))
        np.testing.assert_allclose(logits[row], alone, rtol=0, atol=1e-11)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("gpt_neox", 5),
        *(pytest.param("gpt2", size, marks=pytest.mark.slow) for size in (N, 5, 3)),
        pytest.param("gpt_neox", N, marks=pytest.mark.slow),
    ],
)
def test_window_is_full_attention_masked(backbone: str, size: int) -> None:
    """Every layer alone sees the last tokens; blocks of the whole text with that mask."""
    model = _model(backbone, W)
    params = lively_params(model)
    tokens = random_tokens(model, 2, N)
    near = np.tril(np.ones((N, N), bool)) & ~np.tril(np.ones((N, N), bool), -W)
    context = SegmentContext(jnp.arange(N, dtype=jnp.int32)[None], jnp.asarray(near)[None])

    def masked(params):
        x = model.embed_tokens(params, tokens, context.positions)
        for l in range(model.config.n_layer):
            x, _ = model.apply_block(
                jax.tree.map(lambda w, l=l: w[l], params["layers"]), x, context
            )
        return model.readout(params, x)

    out = _forward(model, params, tokens, size)
    np.testing.assert_allclose(out.logits, quick_jit(masked)(params), rtol=0, atol=1e-11)
    full = _forward(_model(backbone), params, tokens, size).logits
    assert np.abs(full[:, W:] - out.logits[:, W:]).max() > 1e-2
    assert out.state.k.shape == (2, 2, W, 2, 8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("window", [0, W])
def test_tokens_see_earlier_tokens_only(window: int) -> None:
    """By the gradient; within a window of one layer, exactly its tokens."""
    model = _model(window=window, n_layer=1)
    params = lively_params(model)
    tokens = jnp.arange(12, dtype=jnp.int32).reshape(4, 1, 3)

    def hidden(table):
        changed = {**params, "embed": {**params["embed"], "wte": table}}
        state = model.init_state(1)
        _, out = armt_jax.run_segments(model, changed, state, segments_of(tokens))
        return jnp.einsum("sbtd,d->sbt", out, jnp.arange(1.0, 17.0)).reshape(12)

    table = params["embed"]["wte"]
    seen = quick_jit(jax.vmap(lambda one: jax.vjp(hidden, table)[1](one)[0]))(jnp.eye(12))
    seen = np.abs(seen).max(axis=-1)[:, :12] > 0
    expected = np.tril(np.ones((12, 12), bool))
    if window:
        expected &= ~np.tril(expected, -window)
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.usefixtures("x64")
@BOTH
def test_padding_takes_no_place(backbone: str, window: int) -> None:
    """A text with padding anywhere, segments of it included, is the text without it."""
    model = _model(backbone, window)
    params = lively_params(model)
    tokens = random_tokens(model, 1, N)
    mask = np.array([[1, 1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1]], bool)
    out = _forward(model, params, tokens, 4, mask)
    alone = _forward(model, params, tokens[mask][None], N)
    np.testing.assert_allclose(out.logits[mask], alone.logits[0], rtol=0, atol=1e-11)
    np.testing.assert_array_equal(out.state.read, [9])
    assert_close(out.state, alone.state, 1e-11)


@pytest.mark.usefixtures("x64")
@BOTH
def test_whole_equals_sequential_both_ways(backbone: str, window: int) -> None:
    """With segments of padding; hidden states, state and gradients."""
    model = _model(backbone, window)
    params = lively_params(model)
    mask = np.ones((4, 2, 3), bool)
    mask[1, 0] = mask[3, 1] = False
    text = segments_of(random_tokens(model, 4, 2, 3), mask)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 3, 16)) * mask[..., None])

    def loss(params, schedule, need_hidden):
        state, hidden = armt_jax.run_segments(
            model, params, model.init_state(2), text, schedule=schedule, need_hidden=need_hidden
        )
        total = jnp.sum(jnp.sin(state.k)) + jnp.sum(jnp.cos(state.v))
        if hidden is not None:
            total, hidden = total + jnp.sum(weights * hidden), weights * hidden
        return total, (state, hidden)

    for need_hidden in (True, False):
        found, expected = (
            quick_jit(
                jax.value_and_grad(
                    functools.partial(loss, schedule=s, need_hidden=need_hidden), has_aux=True
                )
            )(params)
            for s in ("whole", "sequential")
        )
        assert_close(found, expected, 1e-11)


@pytest.mark.usefixtures("x64")
@BOTH
def test_answer_is_each_query_read_on_its_own(backbone: str, window: int) -> None:
    model = _model(backbone, window)
    params = lively_params(model)
    state, _ = quick_jit(functools.partial(armt_jax.run_segments, model))(
        params, model.init_state(2), segments_of(random_tokens(model, 3, 2, 3))
    )
    mask = np.ones((2, 3, 5), bool)
    mask[1, 2, :2] = False
    queries = segments_of(random_tokens(model, 2, 3, 5, seed=1), mask)
    found = quick_jit(functools.partial(armt_jax.answer, model))(params, state, queries)
    step = quick_jit(model.step)
    for q in range(3):
        _, hidden = step(params, state, jax.tree.map(lambda x, q=q: x[:, q], queries))
        expected = model.readout(params, hidden)
        np.testing.assert_allclose(
            found[:, q][mask[:, q]], expected[mask[:, q]], rtol=0, atol=1e-11
        )


@pytest.mark.usefixtures("x64")
def test_stream_of_any_length_through_a_window() -> None:
    model = _model("gpt_neox", W)
    params = lively_params(model)
    tokens = np.asarray(random_tokens(model, 2, 100))
    whole = _forward(model, params, tokens, 50).state
    reader = StreamReader(model, params, segment_size=3, block_segments=4)
    state = reader.start(2)
    for start, stop in ((0, 1), (1, 60), (60, 100)):
        state = reader.feed(state, tokens[:, start:stop])
    assert_close(reader.finish(state), whole, 1e-11)


def test_text_that_outgrows_the_model_is_refused() -> None:
    model = _model(context_tokens=N)
    params = lively_params(model)
    long = random_tokens(model, 1, N + 1)
    limit = f"must be at most model.context_tokens = {N} for model.family = 'transformer'"
    message = f"text length = {N + 1}: {limit}"
    reader = StreamReader(model, params, segment_size=2)
    started = reader.feed(reader.start(1), np.asarray(long[:, 1:]))
    calls = [
        lambda: armt_jax.forward(model, params, long, segment_size=5),
        lambda: armt_jax.generate(model, params, long[:, 1:], segment_size=5, max_new_tokens=1),
        lambda: reader.feed(started, np.asarray(long[:, :1])),
        lambda: armt_jax.run_segments(
            model, params, model.init_state(1), segments_of(long.reshape(N + 1, 1, 1))
        ),
    ]
    for call in calls:
        with pytest.raises(ConfigError) as error:
            call()
        assert str(error.value) == message
    positions = _model(n_positions=N)
    with pytest.raises(ConfigError, match=f"must be at most model.n_positions = {N} for"):
        armt_jax.forward(positions, params, long, segment_size=5)


def test_text_that_outgrows_the_cache_unseen_says_nothing_wrong() -> None:
    """Step by step nobody knows how long the text will be: NaN from there on, in queries too."""
    model = _model("gpt_neox", context_tokens=5)
    params = lively_params(model)
    step, state = quick_jit(model.step), model.init_state(1)
    state, first = step(params, state, segments_of(random_tokens(model, 1, 4)))
    state, second = step(params, state, segments_of(random_tokens(model, 1, 4)))
    assert np.all(np.isfinite(first))
    assert np.all(np.isfinite(second[:, :1]))
    assert np.all(np.isnan(second[:, 1:]))
    asked = model.ask(params, state, segments_of(random_tokens(model, 1, 1, 2)))
    assert np.all(np.isnan(asked))


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        ("diagonal", {}, "needs layers that know nothing of each other; Transformer's share"),
        ("chunked", {}, "needs a memory of low-rank updates"),
        ("whole", {"bptt": 1}, "reads all segments as one, so bptt must be 0"),
        ("whole", {"remat": "sqrt"}, "reads all segments as one, so remat must be 'none'"),
        ("whole", {"reset": jnp.zeros((2, 1), bool)}, "reads all segments as one, so reset must"),
    ],
)
def test_schedules_that_cannot_be(schedule: str, options: dict[str, Any], message: str) -> None:
    model = _model()
    params = jax.eval_shape(model.init, jax.random.key(0))
    text = segments_of(random_tokens(model, 2, 1, 3))
    with pytest.raises(ConfigError) as error:
        armt_jax.run_segments(
            model, params, model.init_state(1), text, schedule=schedule, **options
        )
    assert str(error.value).startswith(f"schedule = {schedule!r}: {message}")
