"""Tokens handed out one at a time are those of ``generate``, and come before the next is made."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax import ConfigError
from armt_jax.generation import generate_stream
from armt_jax.models import SegmentModel
from tests.small_models import lively_params, random_tokens, small_model

SIZE, NEW = 4, 11


def _asked(settings: dict[str, Any]) -> dict[str, Any]:
    return {"segment_size": SIZE, "max_new_tokens": NEW, **settings}


def _stream(model: SegmentModel, tokens: jax.Array, **settings: Any) -> np.ndarray:
    """Ids ``[b, new]`` of the stream."""
    made = generate_stream(model, lively_params(model), tokens, **_asked(settings))
    return np.stack(list(made), axis=1)


def _both(model: SegmentModel, tokens: jax.Array, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """Ids ``[b, new]`` of the stream, and of ``generate``."""
    whole = armt_jax.generate(
        model, lively_params(model), tokens, new_segments=True, **_asked(settings)
    )
    return _stream(model, tokens, **settings), np.asarray(whole)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "family",
    [
        "armt",
        pytest.param("rmt", marks=pytest.mark.slow),
        pytest.param("prmt", marks=pytest.mark.slow),
        pytest.param("transformer", marks=pytest.mark.slow),
        pytest.param("mamba", marks=pytest.mark.slow),
        pytest.param("rwkv7", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("prompt", [pytest.param(1, marks=pytest.mark.slow), SIZE, 2 * SIZE + 3])
def test_the_ids_are_those_of_generate(family: str, prompt: int) -> None:
    model = small_model(n_layer=1, family=family, n_positions=32)
    found, whole = _both(model, random_tokens(model, 2, prompt))
    np.testing.assert_array_equal(found, whole)


def test_padded_prompts_and_drawn_tokens_are_too() -> None:
    model = small_model(n_layer=1)
    mask = jnp.asarray([[False, False, True], [True, True, True]])
    tokens = random_tokens(model, 2, SIZE - 1)
    drawn = {"temperature": 2.0, "top_k": 9, "rng": jax.random.key(3)}
    found, whole = _both(model, tokens, attention_mask=mask, **drawn)
    np.testing.assert_array_equal(found, whole)
    other = _stream(model, tokens, attention_mask=mask, **{**drawn, "rng": jax.random.key(4)})
    assert np.any(found != other)


def test_a_text_that_has_ended_waits_for_the_others() -> None:
    model = small_model(n_layer=1)
    tokens = random_tokens(model, 3, SIZE)
    drawn = {"temperature": 2.0, "rng": jax.random.key(0)}
    free = _stream(model, tokens, **drawn)
    stop = int(free[0, 2])
    found, whole = _both(model, tokens, stop_token=stop, **drawn)
    np.testing.assert_array_equal(found, whole[:, : found.shape[1]])
    assert stop in found[0]
    first = int(_stream(model, tokens[:1])[0, 0])
    alone = _stream(model, tokens[:1], stop_token=first)
    assert alone.shape == (1, 1)  # nothing behind the end of all


def test_a_token_is_there_before_the_next_one_is_made() -> None:
    """Of a billion tokens the first ones are taken, over two borders."""
    model = small_model(n_layer=1)
    params, tokens = lively_params(model), random_tokens(model, 1, 2)
    endless = generate_stream(model, params, tokens, segment_size=SIZE, max_new_tokens=10**9)
    found = np.stack(list(itertools.islice(endless, NEW)), axis=1)
    whole = armt_jax.generate(
        model, params, tokens, segment_size=SIZE, max_new_tokens=NEW, new_segments=True
    )
    np.testing.assert_array_equal(found, whole)
    jax.block_until_ready(params)  # and nothing of the caller's was given away


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens = 0: must be at least 1"),
        ({"temperature": -1.0}, "temperature = -1.0: must be 0"),
        ({"segment_size": 15}, "segment length = 15: must be at most 14"),
        ({"stop_token": 99}, "stop_token = 99: must be in"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_token(
    changes: dict[str, Any], message: str
) -> None:
    model = small_model(n_layer=1)
    params, tokens = lively_params(model), random_tokens(model, 1, 6)
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        generate_stream(
            model, params, tokens, **{"segment_size": SIZE, "max_new_tokens": NEW, **changes}
        )
