"""Generation: the cache against reading everything again, and what a request may be."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax import ConfigError
from armt_jax.generation import generate_with_scores
from armt_jax.models import ARMT
from tests.small_models import (
    lively_params,
    quick_jit,
    random_tokens,
    segments_of,
    small_model,
)

SIZE, NEW = 4, 6


@functools.lru_cache
def _generator(model: ARMT, **kwargs: Any):
    """``f(params, tokens, mask=None, rng=None)``, compiled once for every setting."""

    def run(params, tokens, mask=None, rng=None):
        settings = {"segment_size": SIZE, "max_new_tokens": NEW, **kwargs}
        return generate_with_scores(model, params, tokens, attention_mask=mask, rng=rng, **settings)

    return quick_jit(run)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("family", "backbone"),
    [
        ("armt", "gpt2"),
        ("armt", "gpt_neox"),
        pytest.param("prmt", "gpt_neox", marks=pytest.mark.slow),
        pytest.param("rmt_r", "gpt2", marks=pytest.mark.slow),
        ("transformer", "gpt2"),
        pytest.param("rmt", "gpt_neox", marks=pytest.mark.slow),
    ],
)
def test_greedy_text_equals_reading_the_last_segment_again_for_every_token(
    family: str, backbone: str
) -> None:
    """No cache here: the growing segment is read from its start, as a query of the memory."""
    model = small_model(family=family, backbone=backbone, n_positions=32)
    params = lively_params(model)
    tokens = random_tokens(model, 2, 2 * SIZE + 3)
    ids, scores = _generator(model)(params, tokens)
    context = tokens[:, : 2 * SIZE].reshape(2, 2, SIZE).swapaxes(0, 1)
    run = functools.partial(armt_jax.run_segments, model, need_hidden=False)
    state, _ = quick_jit(run)(params, model.init_state(2), segments_of(context))
    read = quick_jit(functools.partial(armt_jax.answer, model))
    text = np.zeros((2, 3 + NEW), np.int32)
    text[:, :3] = tokens[:, 2 * SIZE :]
    for step in range(NEW):
        # What stands after the last token is padding that no token sees.
        mask = np.broadcast_to(np.arange(3 + NEW) < 3 + step, text.shape)
        query = segments_of(jnp.asarray(text)[:, None], mask[:, None])
        logits = read(params, state, query)[:, 0, 2 + step]
        np.testing.assert_allclose(scores[:, step], logits, rtol=1e-11, atol=1e-11)
        text[:, 3 + step] = np.argmax(logits, axis=-1)
        np.testing.assert_array_equal(ids[:, step], text[:, 3 + step])
    assert ids.dtype == jnp.int32
    # The memory is read: without the earlier segments the text is another one.
    alone, _ = _generator(model)(params, tokens[:, 2 * SIZE :])
    assert np.any(alone != ids)


def test_generate_is_the_text_of_generate_with_scores() -> None:
    model = small_model(n_layer=1)
    params, tokens = lively_params(model), random_tokens(model, 2, SIZE)
    ids = armt_jax.generate(model, params, tokens, segment_size=SIZE, max_new_tokens=NEW)
    np.testing.assert_array_equal(ids, _generator(model)(params, tokens)[0])


def test_same_key_same_text() -> None:
    """Another key gives another text, and equal prompts of one batch are drawn apart."""
    model = small_model(n_layer=1)
    params = lively_params(model)
    tokens = jnp.broadcast_to(random_tokens(model, 1, SIZE), (4, SIZE))
    sample = _generator(model, temperature=1.5)
    first, again, other = (
        np.asarray(sample(params, tokens, rng=jax.random.key(seed))[0]) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    assert len({tuple(row) for row in first}) > 1
    # All tokens are equally likely here: only a draw of its own makes a step differ from another.
    flat = {**params, "embed": {**params["embed"], "wte": 0 * params["embed"]["wte"]}}
    drawn, scores = sample(flat, tokens, rng=jax.random.key(0))
    assert not np.any(scores)
    assert all(len(set(row)) > 1 for row in drawn.tolist())


def stopped_texts(generator: Callable[..., Any]) -> list[int]:
    """Places where three drawn texts end, which are checked, as are greedy ones that end at once.

    ``generator(model, **settings)`` is ``f(params, tokens, rng=None)``, ids and scores.
    """
    model = small_model(n_layer=1)
    params, tokens = lively_params(model), random_tokens(model, 3, SIZE)
    sample = functools.partial(generator(model, temperature=2.0), params, tokens)
    free = np.asarray(sample(rng=jax.random.key(0))[0])
    new = free.shape[1]
    stop = int(free[0, 2])
    stopping = generator(model, temperature=2.0, stop_token=stop)
    ids, _ = stopping(params, tokens, rng=jax.random.key(0))
    ends = [int(np.argmax(row == stop)) if stop in row else new for row in free]
    assert ends[0] <= 2
    assert max(ends) > ends[0]
    for row, end in enumerate(ends):
        np.testing.assert_array_equal(ids[row, :end], free[row, :end])
        np.testing.assert_array_equal(ids[row, end:], np.full(new - end, stop))
    # Where every text has ended nothing more is computed.
    greedy, _ = generator(model)(params, tokens[:1])
    last = int(greedy[0, 0])
    ids, scores = generator(model, stop_token=last)(params, tokens[:1])
    np.testing.assert_array_equal(ids, np.full((1, new), last))
    assert np.any(scores[:, 0])
    assert not np.any(scores[:, 1:])
    return ends


def test_text_ends_at_the_stop_token_and_is_filled_with_it() -> None:
    stopped_texts(_generator)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("family", "backbone"),
    [
        ("armt", "gpt2"),
        ("armt", "gpt_neox"),
        ("rmt", "gpt2"),
        pytest.param("prmt", "gpt_neox", marks=pytest.mark.slow),
        pytest.param("transformer", "gpt2", marks=pytest.mark.slow),
    ],
)
def test_left_padded_prompts_equal_unpadded_ones(family: str, backbone: str) -> None:
    """In the last segment padding takes no position; a segment of it is not read at all."""
    model = small_model(n_layer=1, family=family, backbone=backbone)
    params, generate = lively_params(model), _generator(model)
    tokens = random_tokens(model, 2, SIZE)
    mask = jnp.asarray([[False] * 2 + [True] * 2, [True] * SIZE])
    ids, scores = generate(params, tokens, mask)
    for row, start in ((0, 2), (1, 0)):
        alone, alone_scores = generate(params, tokens[row : row + 1, start:])
        np.testing.assert_array_equal(ids[row], alone[0])
        np.testing.assert_allclose(scores[row], alone_scores[0], rtol=1e-11, atol=1e-11)
    padded = jnp.pad(tokens, ((0, 0), (SIZE, 0)))
    segment_mask = jnp.pad(mask, ((0, 0), (SIZE, 0)))
    padded_ids, padded_scores = generate(params, padded, segment_mask)
    np.testing.assert_array_equal(padded_ids, ids)
    np.testing.assert_allclose(padded_scores, scores, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -1.0}, "temperature = -1.0: must be 0 (greedy) or positive"),
        ({"temperature": float("inf")}, "temperature = inf: must be 0 (greedy) or positive"),
        ({"temperature": float("nan")}, "temperature = nan: must be 0 (greedy) or positive"),
        ({"top_k": -1}, "top_k = -1: must be 0 (all) or more"),
        ({"top_p": 0.0}, "top_p = 0.0: must be in (0, 1]"),
        ({"top_p": 1.5}, "top_p = 1.5: must be in (0, 1]"),
        ({"temperature": 1.0}, "rng = None: sampling with a temperature needs a key"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0: must be at least 1"),
        (
            {"max_new_tokens": 15},
            "max_new_tokens = 15: must be at most 14, "
            "model.n_positions = 16 less a last segment of 2 tokens",
        ),
        ({"stop_token": 23}, "stop_token = 23: must be in [0, 23), the vocabulary"),
        ({"stop_token": -1}, "stop_token = -1: must be in [0, 23), the vocabulary"),
        ({"segment_size": 0}, "segment_size = 0: must be at least 1"),
        ({"alignment": "top"}, "alignment = 'top': must be one of left, right, center"),
        (
            {"tokens": np.zeros((1, 31), int), "segment_size": 15},
            "segment length = 15: must be at most 14 "
            "(model.n_positions = 16 less model.num_mem_tokens = 2)",
        ),
        ({"tokens": np.array([[1, 23]])}, "token id 23: must be in [0, 23), the vocabulary"),
        ({"tokens": np.array([[1, -2]])}, "token id -2: must be in [0, 23), the vocabulary"),
        (
            {"tokens": np.zeros((0, 4), int)},
            "tokens of shape (0, 4): must be [batch, length], neither of them 0",
        ),
        (
            {"tokens": np.zeros(4, int)},
            "tokens of shape (4,): must be [batch, length], neither of them 0",
        ),
        ({"tokens": np.zeros((1, 4))}, "tokens of dtype float64: must be integers"),
        (
            {"attention_mask": np.ones((1, 5), bool)},
            "attention_mask of shape (1, 5): must be (1, 6), the tokens'",
        ),
        (
            {"attention_mask": np.array([[True] * 5 + [False]])},
            "attention_mask[0, -1] = False: a prompt ends with a token, pad it on the left",
        ),
    ],
)
def test_impossible_request_is_refused(changes: dict[str, Any], message: str) -> None:
    model = small_model(n_layer=1)
    request: dict[str, Any] = {
        "tokens": np.ones((1, 6), int),
        "segment_size": SIZE,
        "max_new_tokens": NEW,
        **changes,
    }
    with pytest.raises(ConfigError) as error:
        armt_jax.generate(model, lively_params(model), request.pop("tokens"), **request)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            "rmt",
            {},
            "max_new_tokens = 12: must be at most 11, model.n_positions = 16 "
            "less a last segment of 3 tokens, 2 memory tokens",
        ),
        (
            "rmt_r",
            {},
            "max_new_tokens = 10: must be at most 9, model.n_positions = 16 "
            "less a last segment of 3 tokens, 4 memory tokens",
        ),
        (
            "prmt",
            {"wrap_pos": True},
            "max_new_tokens = 14: must be at most 13, model.n_positions = 16 "
            "less a last segment of 3 tokens",
        ),
        (
            "transformer",
            {},
            "text length = 17: must be at most model.n_positions = 16 "
            "for model.family = 'transformer'",
        ),
    ],
)
def test_room_to_continue_is_used_up_and_no_more(
    family: str, changes: dict[str, Any], message: str
) -> None:
    model = small_model(n_layer=1, family=family, **changes)
    params, tokens = lively_params(model), random_tokens(model, 1, SIZE + 3)
    asked = int(message.split(":")[0].split()[-1]) - (7 if family == "transformer" else 0)
    settings: dict[str, Any] = {"segment_size": SIZE, "max_new_tokens": asked - 1}
    _, scores = generate_with_scores(model, params, tokens, **settings)
    assert np.all(np.isfinite(scores))
    with pytest.raises(ConfigError) as error:
        armt_jax.generate(model, params, tokens, segment_size=SIZE, max_new_tokens=asked)
    assert str(error.value) == message


def test_rotary_positions_do_not_limit_the_text() -> None:
    model = small_model(n_layer=1, backbone="gpt_neox", n_positions=6)
    params, tokens = lively_params(model), random_tokens(model, 1, SIZE)
    ids, _ = _generator(model)(params, tokens)
    assert ids.shape == (1, NEW)
