"""Text without end: every token is the one that reading all before it anew predicts."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax import ConfigError
from armt_jax.generation import generate_with_scores
from armt_jax.models import SegmentModel
from tests.generation_test import stopped_texts
from tests.small_models import lively_params, quick_jit, random_tokens, small_model

SIZE, NEW = 4, 11


@functools.lru_cache
def _generator(model: SegmentModel, size: int = SIZE, **kwargs: Any):
    """``f(params, tokens, mask=None, rng=None)``, compiled once for every setting."""
    settings = {"segment_size": size, "max_new_tokens": NEW, "new_segments": True, **kwargs}

    def run(params, tokens, mask=None, rng=None):
        return generate_with_scores(model, params, tokens, attention_mask=mask, rng=rng, **settings)

    return quick_jit(run)


def _reader(model: SegmentModel, size: int, alignment: str):
    def logits(params: Any, tokens: jax.Array) -> jax.Array:
        return armt_jax.forward(
            model, params, tokens, segment_size=size, alignment=alignment
        ).logits

    return quick_jit(logits)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("prompt", [1, SIZE, pytest.param(2 * SIZE + 3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("family", "backbone"),
    [
        ("armt", "gpt2"),
        pytest.param("armt", "llama", marks=pytest.mark.slow),
        pytest.param("rmt", "gpt_neox", marks=pytest.mark.slow),
        pytest.param("prmt", "gpt2", marks=pytest.mark.slow),
        pytest.param("rmt_r", "gpt2", marks=pytest.mark.slow),
        pytest.param("transformer", "gpt2", marks=pytest.mark.slow),
        pytest.param("mamba", "gpt2", marks=pytest.mark.slow),
        pytest.param("rwkv7", "gpt2", marks=pytest.mark.slow),
    ],
)
def test_every_token_is_predicted_by_the_whole_text_before_it(
    family: str, backbone: str, prompt: int
) -> None:
    """Eleven tokens go on over two or three borders, of which the last segment is not full."""
    model = small_model(family=family, backbone=backbone, n_positions=32)
    params, tokens = lively_params(model), random_tokens(model, 2, prompt)
    ids, scores = _generator(model)(params, tokens)
    text = jnp.concatenate([tokens, ids], axis=1)
    logits = _reader(model, SIZE, "left")(params, text)[:, prompt - 1 : -1]
    np.testing.assert_allclose(scores, logits, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(ids, jnp.argmax(logits, axis=-1))
    if family == "armt":  # what was written is read: a segment that grows says something else
        _, grown = _generator(model, new_segments=False)(params, tokens)
        first = SIZE - (prompt - 1) % SIZE  # tokens up to the first border
        np.testing.assert_allclose(grown[:, :first], scores[:, :first], rtol=1e-11, atol=1e-11)
        assert np.all(np.abs(grown - scores)[:, first:].max(axis=-1) > 1e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("family", "backbone"), [("armt", "gpt2"), pytest.param("rmt", "gpt2", marks=pytest.mark.slow)]
)
def test_a_shorter_prompt_is_as_it_is_alone_in_a_shorter_first_segment(
    family: str, backbone: str
) -> None:
    model = small_model(n_layer=1, family=family, backbone=backbone)
    params, tokens = lively_params(model), random_tokens(model, 2, SIZE - 1)
    mask = jnp.asarray([[False, False, True], [True, True, True]])
    ids, scores = _generator(model)(params, tokens, mask)
    # Of the first row SIZE - 2 tokens come before the first border, one of them the prompt.
    text = jnp.concatenate([tokens[:1, 2:], ids[:1]], axis=1)[:, : SIZE - 2 + 2 * SIZE]
    logits = _reader(model, SIZE, "right")(params, text)
    np.testing.assert_allclose(scores[:1, : text.shape[1]], logits, rtol=1e-11, atol=1e-11)
    alone, _ = _generator(model)(params, tokens[1:])
    np.testing.assert_array_equal(ids[1], alone[0])


def test_keys_count_tokens_and_not_segments() -> None:
    """A segment with room for all is the one that grows, sampled tokens included."""
    model = small_model(n_layer=1, n_positions=32)
    params, tokens = lively_params(model), random_tokens(model, 2, 2)
    one = _generator(model, size=2 + NEW, temperature=1.5)
    grown = _generator(model, size=2 + NEW, temperature=1.5, new_segments=False)
    keys = jax.random.key(3), jax.random.key(4)
    drawn, _ = one(params, tokens, rng=keys[0])
    np.testing.assert_array_equal(drawn, grown(params, tokens, rng=keys[0])[0])
    # Without logits that tell them apart, tokens of all segments are draws of their own.
    flat = jax.tree.map(jnp.zeros_like, params)
    many = _generator(model, temperature=1.0)
    rows = np.asarray(many(flat, tokens, rng=keys[0])[0])
    assert len({tuple(rows[0, i : i + 3]) for i in range(NEW - 2)}) == NEW - 2
    assert np.any(rows != many(flat, tokens, rng=keys[1])[0])


def test_text_ends_at_the_stop_token_in_whichever_segment() -> None:
    assert max(stopped_texts(_generator)) > SIZE


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            "armt",
            {"alignment": "right"},
            "alignment = 'right': must be 'left' with new_segments, where a longer text has the "
            "same segments",
        ),
        (
            "armt",
            {"segment_size": 15},
            "segment length = 15: must be at most 14 (model.n_positions = 16 less "
            "model.num_mem_tokens = 2)",
        ),
        (
            "transformer",
            {},
            "text length = 17: must be at most model.n_positions = 16 for model.family = "
            "'transformer'",
        ),
    ],
)
def test_impossible_request_is_refused(family: str, changes: dict[str, Any], message: str) -> None:
    model = small_model(n_layer=1, family=family)
    request: dict[str, Any] = {"segment_size": SIZE, "max_new_tokens": NEW, **changes}
    params, tokens = lively_params(model), random_tokens(model, 1, 6)
    with pytest.raises(ConfigError) as error:
        armt_jax.generate(model, params, tokens, new_segments=True, **request)
    assert str(error.value) == message


def test_learned_positions_do_not_limit_the_text() -> None:
    model = small_model(n_layer=1, n_positions=6)
    params, tokens = lively_params(model), random_tokens(model, 1, SIZE)
    ids, _ = _generator(model)(params, tokens)
    assert ids.shape == (1, NEW)
