"""Recurrent models against a loop over tokens; cut anywhere, padded, asked and continued."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import armt_jax
from armt_jax import ConfigError, ModelConfig, create_model
from armt_jax.generation import generate_with_scores
from armt_jax.models.protocol import AskedByLayer, CachedModel, Segment
from armt_jax.streaming import StreamReader
from tests import state_space_oracle as oracle
from tests.small_models import assert_close, lively_params, quick_jit, random_tokens, segments_of
from tests.state_space_cases import FAMILIES, old_state, recurrent_model

LENGTH = 8
# RWKV-7's layers differ from the first one.
DEPTH = {family: 2 if family == "rwkv7" else 1 for family in FAMILIES}
every_family = pytest.mark.parametrize("family", FAMILIES)
# What the frame does for all of them: quickly for a family of each kind.
_FAST = ("mamba", "rwkv7")
each_kind = pytest.mark.parametrize(
    "family", [f if f in _FAST else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES]
)


@each_kind
@pytest.mark.usefixtures("x64")
def test_equals_a_loop_over_tokens_in_gradients(family: str) -> None:
    """Of the parameters and of the state before; two segments, the second one shorter."""
    model = recurrent_model(family, chunk_size=2, n_layer=DEPTH[family])
    params, state = lively_params(model), tuple(old_state(model, 1))
    tokens = random_tokens(model, 1, 5)
    rng = np.random.default_rng(1)
    weights = [jnp.asarray(rng.normal(size=leaf.shape)) for leaf in state]
    counts = jnp.asarray(rng.normal(size=(5, model.config.vocab_size)))

    def loss(state: Any, logits: jax.Array) -> jax.Array:
        return sum(map(jnp.vdot, weights, state)) + jnp.vdot(counts, logits)

    def ours(params: Any, state: Any) -> jax.Array:
        after = type(model.init_state(1))(*state)
        hidden = []
        for start, stop in ((0, 3), (3, 5)):
            after, out = model.step(params, after, segments_of(tokens[:, start:stop]))
            hidden.append(out)
        return loss(after, model.readout(params, jnp.concatenate(hidden, axis=1))[0])

    def loop(params: Any, state: Any) -> jax.Array:
        def token(own: Any, token: jax.Array) -> Any:
            return oracle.read_token(jnp, model.config, params, own, token)

        own, logits = lax.scan(token, tuple(leaf[:, 0] for leaf in state), tokens[0])
        return loss(tuple(leaf[:, None] for leaf in own), logits)

    found, expected = (
        quick_jit(jax.value_and_grad(f, argnums=(0, 1)))(params, state) for f in (ours, loop)
    )
    assert_close(found, expected, 1e-9)
    unused = {"value"} if family == "rwkv7" else set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(found[1][0]["layers"]):
        size = np.abs(leaf).max(axis=tuple(range(1, leaf.ndim)))
        # RWKV-7's first layer has no value residual.
        first = 1 if unused & {getattr(key, "key", None) for key in path} else 0
        assert np.all(size[first:] > 0), path


@each_kind
@pytest.mark.usefixtures("x64")
def test_cuts_change_nothing(family: str) -> None:
    """A text in segments of any size, and fed in blocks of any size, is the text."""
    model = recurrent_model(family)
    params, tokens = lively_params(model), random_tokens(model, 2, 11)
    read = {
        size: quick_jit(functools.partial(armt_jax.forward, model, segment_size=size))(
            params, tokens
        )
        for size in (11, 4)
    }
    assert_close(read[4], read[11], 1e-10)
    reader = StreamReader(model, params, segment_size=4, block_segments=2)
    state, start = reader.start(2), 0
    for length in (1, 6, 2, 2):
        state = reader.feed(state, np.asarray(tokens[:, start : start + length]))
        start += length
    assert_close(reader.finish(state), read[11].state, 1e-10)


@every_family
@pytest.mark.usefixtures("x64")
def test_equals_a_loop_over_tokens_and_padding_is_not_there(family: str) -> None:
    """States and logits; of masked tokens, anywhere, those of the text without them.

    The convolution is longer than what is left of a segment, and the masked ids do not matter.
    """
    model = recurrent_model(family, d_conv=4, mixer_mlp="delta" in family, n_layer=DEPTH[family])
    params, state = lively_params(model), old_state(model, 5)
    mask = np.ones((5, LENGTH), bool)
    mask[1, :5] = mask[2, 2:6] = mask[3, [0, 3, 7]] = mask[4, 1:] = False
    tokens = random_tokens(model, 5, LENGTH)
    step = quick_jit(model.step)
    found, hidden = step(params, state, segments_of(tokens, mask))
    texts = [row[kept] for row, kept in zip(np.asarray(tokens), mask, strict=True)]
    expected, logits = oracle.read_texts(model.config, params, state, texts)
    assert_close(tuple(found), expected, 1e-10)
    ours = np.asarray(model.readout(params, hidden))
    for row, kept, right in zip(ours, mask, logits, strict=True):
        assert_close(row[kept], right, 1e-10)
    # Nothing is equal because nothing happens.
    for before, after in zip(*jax.device_get((tuple(state), tuple(found))), strict=True):
        assert np.all(np.max(np.abs(after - before), axis=tuple(range(2, after.ndim))) > 1e-3)
    others = jnp.where(mask, tokens, (tokens + 1) % model.config.vocab_size)
    again, hidden_again = step(params, state, segments_of(others, mask))
    jax.tree.map(np.testing.assert_array_equal, again, found)
    np.testing.assert_array_equal(hidden_again[mask], hidden[mask])


@every_family
def test_a_segment_of_padding_leaves_the_state_bit_identical(family: str) -> None:
    """In float32, in one chunk and in several; ``length`` says the same as the mask."""
    model = recurrent_model(family, n_layer=1)
    params, state = lively_params(model), old_state(model, 3)
    tokens = random_tokens(model, 3, LENGTH)
    mask = np.ones((3, LENGTH), bool)
    mask[0] = False
    mask[1, 4:] = False
    step = quick_jit(model.step)
    found, _ = step(params, state, segments_of(tokens, mask))
    for before, after in zip(state, found, strict=True):
        np.testing.assert_array_equal(after[:, 0], before[:, 0])
        assert np.any(np.asarray(after[:, 1:] != before[:, 1:]))
    full = jnp.ones((3, LENGTH), bool).at[0].set(False)
    by_length, _ = step(params, state, Segment(tokens, full, jnp.asarray([LENGTH, 4, LENGTH])))
    jax.tree.map(np.testing.assert_array_equal, by_length, found)


@each_kind
@pytest.mark.usefixtures("x64")
def test_a_query_goes_on_from_the_state(family: str) -> None:
    """Each of three queries, one padded in front, is the next segment of a text of its own."""
    model = recurrent_model(family)
    assert isinstance(model, AskedByLayer)
    params, state = lively_params(model), old_state(model, 2)
    queries = segments_of(random_tokens(model, 2, 3, 4), np.ones((2, 3, 4), bool))
    queries = queries._replace(mask=queries.mask.at[1, 2, :2].set(False))
    found = quick_jit(model.ask)(params, state, queries)
    step = quick_jit(model.step)
    for q in range(3):
        query = Segment(queries.tokens[:, q], queries.mask[:, q])
        _, hidden = step(params, state, query)
        kept = np.asarray(query.mask)
        assert_close(np.asarray(found[:, q])[kept], np.asarray(hidden)[kept], 1e-10)


@each_kind
@pytest.mark.usefixtures("x64")
def test_greedy_text_equals_reading_everything_again(family: str) -> None:
    model = recurrent_model(family)
    assert isinstance(model, CachedModel)
    params, tokens = lively_params(model), random_tokens(model, 2, 7)
    mask = np.ones((2, 7), bool)
    mask[1, :5] = False

    @quick_jit
    def generate(params: Any, tokens: jax.Array, mask: jax.Array) -> Any:
        return generate_with_scores(
            model, params, tokens, segment_size=3, max_new_tokens=4, attention_mask=mask
        )

    ids, scores = generate(params, tokens, jnp.asarray(mask))
    text, read = tokens, quick_jit(functools.partial(armt_jax.forward, model, segment_size=11))
    padded = np.ones((2, 11), bool)
    padded[:, :7] = mask
    for step in range(4):
        rest = jnp.zeros((2, 4 - step), jnp.int32)
        seen = padded & (np.arange(11) < 7 + step)
        out = read(params, jnp.concatenate([text, rest], axis=1), attention_mask=jnp.asarray(seen))
        logits = out.logits[:, 6 + step]
        assert_close(np.asarray(scores[:, step]), np.asarray(logits), 1e-10)
        text = jnp.concatenate([text, jnp.argmax(logits, axis=-1)[:, None]], axis=1)
    np.testing.assert_array_equal(ids, text[:, 7:])


@pytest.mark.slow
@each_kind
@pytest.mark.parametrize("remat", ["none", pytest.param("segment", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("x64")
def test_diagonal_equals_sequential(family: str, remat: str) -> None:
    """Values and gradients, with padding and with rows that forget."""
    model = recurrent_model(family)
    params, state = lively_params(model), old_state(model, 3)
    mask = np.ones((3, 3, 4), bool)
    mask[1, 0] = mask[2, 1, :2] = mask[0, 2, 3:] = False
    text = segments_of(random_tokens(model, 3, 3, 4), mask)
    reset = np.zeros((3, 3), bool)
    reset[1, 2] = reset[0, 0] = True

    def loss(params: Any, state: Any, schedule: str) -> Any:
        options = {"schedule": schedule, "reset": jnp.asarray(reset), "remat": remat}
        after, hidden = armt_jax.run_segments(model, params, state, text, **options)
        assert hidden is not None
        hidden = jnp.where(text.mask[..., None], hidden, 0)
        total = sum(jnp.sum(jnp.sin(leaf)) for leaf in after) + jnp.sum(jnp.sin(hidden))
        return total, (after, hidden)

    run = functools.partial(quick_jit, static_argnames="schedule")
    run = run(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    assert_close(run(params, state, "diagonal"), run(params, state, "sequential"), 1e-10)


@each_kind
def test_states_and_logits_stay_float32_in_bfloat16(family: str) -> None:
    model = recurrent_model(family, dtype="bfloat16")
    params, tokens = lively_params(model), random_tokens(model, 2, LENGTH)
    state, hidden = quick_jit(model.step)(params, model.init_state(2), segments_of(tokens))
    assert hidden.dtype == jnp.bfloat16
    assert {leaf.dtype.name for leaf in state} == {"float32"}
    logits = model.readout(params, hidden)
    exact, wide = quick_jit(recurrent_model(family).step)(
        params, model.init_state(2), segments_of(tokens)
    )
    right = model.readout(params, wide)
    assert logits.dtype == jnp.float32
    assert np.abs(logits - right).max() < 0.1 * np.abs(right).max()
    for found, expected in zip(state, exact, strict=True):
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.slow
@each_kind
def test_a_fresh_model_reads_and_has_a_gradient(family: str) -> None:
    """As initialised, a long segment in chunks of the usual size."""
    model = create_model(ModelConfig(family=family, n_layer=2, d_model=16, n_head=2, d_ff=16))
    params, tokens = model.init(jax.random.key(0)), random_tokens(model, 1, 40)
    out = functools.partial(armt_jax.forward, model, segment_size=40)
    grads = quick_jit(jax.grad(lambda p: armt_jax.next_token_loss(out(p, tokens).logits, tokens)))(
        params
    )
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(grads)) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_conv": 1}, "model.d_conv = 1: must be at least 2"),
        ({"d_state": 0}, "model.d_state = 0: must be at least 1"),
        ({"chunk_size": 0}, "model.chunk_size = 0: must be at least 1"),
        ({"dt_rank": -1}, r"model.dt_rank = -1: must be 0 \(d_model / 16\) or more"),
        ({"family": "rwkv7", "mixer_mlp": True}, "model.mixer_mlp = True: must be False, RWKV"),
        ({"family": "rnn"}, "model.family = 'rnn': must be one of armt, .*mamba2"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**{"family": "mamba", **changes})


def test_what_these_models_do_not_have_is_refused_by_name() -> None:
    model = recurrent_model("mamba")
    params, tokens = lively_params(model), random_tokens(model, 1, 4)
    with pytest.raises(ConfigError, match=r"sliding_window = True: must be False for .* 'mamba'"):
        armt_jax.forward(model, params, tokens, segment_size=2, sliding_window=True)
    text = segments_of(tokens.reshape(2, 1, 2))
    with pytest.raises(ConfigError, match=r"schedule = 'chunked': needs .*low-rank"):
        armt_jax.run_segments(model, params, model.init_state(1), text, schedule="chunked")
    # No positions: a segment of any length.
    model.config.check_segment(10**6)
