"""Llama blocks under ARMT: shared heads of keys in everything that reads, writes and caches.

That the block computes what transformers does is in ``hugging_face_test.py``.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax import ConfigError, sharding
from armt_jax.generation import generate_with_scores
from armt_jax.models import ARMT, Params
from armt_jax.models.attention import frequency_divisors, rotary
from armt_jax.streaming import StreamReader
from tests.small_models import (
    assert_close,
    lively_params,
    quick_jit,
    random_tokens,
    segments_of,
    small_model,
)

SIZE = 5
POSITIONS = jnp.arange(6)[None]
X = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 2, 8)), jnp.float32)
HEADS = {"backbone": "llama", "n_head": 4, "n_layer": 3}


def two_models(**changes: Any) -> tuple[tuple[ARMT, Params], tuple[ARMT, Params]]:
    """A model whose four heads share two of keys, and one that has these keys twice each."""
    shared = small_model(**{**HEADS, "n_kv_head": 2, **changes})
    params = lively_params(shared)

    def twice(kernel: jax.Array) -> jax.Array:
        by_head = kernel.reshape(*kernel.shape[:2], 2, shared.config.head_dim)
        return jnp.repeat(by_head, 2, axis=2).reshape(*kernel.shape[:2], -1)

    attention = dict(params["layers"]["block"]["self_attn"])
    for name in ("k_proj", "v_proj"):
        attention[name] = {"kernel": twice(attention[name]["kernel"])}
    block = {**params["layers"]["block"], "self_attn": attention}
    apart = {**params, "layers": {**params["layers"], "block": block}}
    return (shared, params), (small_model(**{**HEADS, **changes}), apart)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sliding_window", [False, True])
def test_shared_keys_are_the_same_keys_for_several_heads(sliding_window: bool) -> None:
    (model, params), (other, apart) = two_models()
    tokens = random_tokens(model, 2, 3 * SIZE + 2)

    def read(model: ARMT, params: Params) -> Any:
        def run(params: Params) -> Any:
            out = armt_jax.forward(
                model, params, tokens, segment_size=SIZE, sliding_window=sliding_window
            )
            return out.logits, out.state.A

        return quick_jit(run)(params)

    logits, A = read(model, params)
    expected_logits, expected_A = read(other, apart)
    np.testing.assert_allclose(logits, expected_logits, rtol=0, atol=1e-11)
    np.testing.assert_allclose(A, expected_A, rtol=0, atol=1e-11 * np.abs(expected_A).max())
    assert np.abs(A).max() > 1e-3, "the memory should hold something"


@pytest.mark.usefixtures("x64")
def test_generation_caches_shared_keys() -> None:
    (model, params), (other, apart) = two_models(n_layer=2)
    tokens = random_tokens(model, 2, 2 * SIZE + 3)

    def run(model: ARMT, params: Params) -> tuple[jax.Array, jax.Array]:
        settings: dict[str, Any] = {"segment_size": SIZE, "max_new_tokens": 6}
        return quick_jit(lambda p: generate_with_scores(model, p, tokens, **settings))(params)

    ids, scores = run(model, params)
    expected_ids, expected = run(other, apart)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("schedule", [pytest.param("chunked", marks=pytest.mark.slow), "diagonal"])
def test_schedules_agree_in_value_and_gradient(schedule: str) -> None:
    (model, params), _ = two_models(n_layer=2)
    segments = segments_of(random_tokens(model, 4, 2, SIZE))
    target = np.random.default_rng(1).normal(size=model.init_state(2).A.shape)

    def loss(params: Params, schedule: str) -> jax.Array:
        state, _ = armt_jax.run_segments(
            model, params, model.init_state(2), segments, schedule=schedule, need_hidden=False
        )
        return jnp.sum(state.A * target)

    run = quick_jit(jax.value_and_grad(loss), static_argnums=1)
    assert_close(run(params, schedule), run(params, "sequential"), 1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_two_devices_hand_on_shared_keys() -> None:
    (model, params), _ = two_models()
    tokens = np.asarray(random_tokens(model, 2, 4 * SIZE + 2))
    memories = []
    for mesh in (None, sharding.context_mesh(2)):
        reader = StreamReader(model, params, segment_size=SIZE, block_segments=3, mesh=mesh)
        memories.append(jax.device_get(reader.finish(reader.feed(reader.start(2), tokens))))
    assert_close(memories[1], memories[0], 1e-10)


@pytest.mark.usefixtures("x64")
def test_memory_tokens_take_the_positions_behind_the_tokens() -> None:
    """With a short last segment they move up: positions of a value, not of the padded shape."""
    (model, params), _ = two_models(n_layer=1)
    tokens = random_tokens(model, 1, 3)
    short = model.write(params, model.init_state(1), segments_of(tokens))
    padded = segments_of(jnp.pad(tokens, ((0, 0), (0, 2))), [[True] * 3 + [False] * 2])
    length = jnp.full((1,), 3, jnp.int32)
    found = model.write(params, model.init_state(1), padded._replace(length=length))
    assert_close(found, short, 1e-11)
    unmoved = model.write(params, model.init_state(1), padded)
    assert np.abs(unmoved.A - short.A).max() > 1e-6 * np.abs(short.A).max()


def test_initialisation_and_names() -> None:
    model = small_model(**HEADS, n_kv_head=2, d_model=64, initializer_range=0.02)
    params = quick_jit(model.init)(jax.random.key(0))
    block = params["layers"]["block"]
    shapes = jax.tree.map(lambda leaf: leaf.shape[1:], block["self_attn"])
    assert {name: shape["kernel"] for name, shape in shapes.items()} == {
        "q_proj": (64, 64),
        "k_proj": (64, 32),
        "v_proj": (64, 32),
        "o_proj": (64, 64),
    }
    assert block["mlp"].keys() == {"gate_proj", "up_proj", "down_proj"}
    assert params["head"].keys() == {"norm", "lm_head"}
    assert params["head"]["norm"].keys() == {"scale"}
    # As Hugging Face initialises them: no matrix is scaled by the depth.
    for path in (("self_attn", "o_proj"), ("mlp", "down_proj")):
        kernel = block[path[0]][path[1]]["kernel"]
        assert float(jnp.std(kernel)) == pytest.approx(0.02, rel=0.1)
    tied = small_model(**HEADS, tie_embeddings=True)
    assert jax.eval_shape(tied.init, jax.random.key(0))["head"].keys() == {"norm"}


def test_llama_3_slows_the_slow_frequencies_down() -> None:
    """Each frequency by itself: by its turns within the first pretraining's texts."""
    factor, low, high, positions = scaling = (8.0, 1.0, 4.0, 8192.0)
    found = frequency_divisors(128, 5e5, scaling)
    kept = 0
    for pair in range(64):
        wavelength = 2 * math.pi * 5e5 ** (2 * pair / 128)
        if wavelength < positions / high:
            expected, kept = 1.0, kept + 1
        elif wavelength > positions / low:
            expected = factor
        else:
            smooth = (positions / wavelength - low) / (high - low)
            expected = 1 / ((1 - smooth) / factor + smooth)
        np.testing.assert_allclose(found[pair], expected, rtol=1e-12)
    assert 20 < kept < 40
    assert len(set(found)) > 3
    plain = rotary(X, POSITIONS, dims=8, base=5e5)
    np.testing.assert_array_equal(rotary(X, POSITIONS, dims=8, base=5e5, scaling=()), plain)
    slower = rotary(X, POSITIONS, dims=8, base=5e5, scaling=(8.0, 1.0, 4.0, 8192.0))
    whole = frequency_divisors(8, 5e5, scaling)
    np.testing.assert_array_equal(slower[..., 0], plain[..., 0])  # the fastest pair is kept
    assert whole[-1] == 8
    distant = rotary(X, 8 * POSITIONS, dims=8, base=5e5, scaling=scaling)
    np.testing.assert_allclose(distant[..., 3], plain[..., 3], rtol=1e-5)  # the slowest is not


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "gpt_neox", "rotary_scaling": (8.0, 1.0, 4.0, 64.0)}, "must be empty with"),
        ({"rotary_scaling": (8.0, 1.0, 4.0)}, "must be empty or .factor, low_freq_factor"),
        ({"rotary_scaling": (8.0, 4.0, 1.0, 64.0)}, "factor >= 1, 0 < low < high, positions > 0"),
        ({"rotary_scaling": (0.5, 1.0, 4.0, 64.0)}, "factor >= 1, 0 < low < high, positions > 0"),
        ({"rotary_scaling": (8.0, 0.0, 4.0, 64.0)}, "factor >= 1, 0 < low < high, positions > 0"),
        ({"rotary_scaling": (8.0, 1.0, 4.0, 0.0)}, "factor >= 1, 0 < low < high, positions > 0"),
    ],
)
def test_impossible_changes_of_frequencies_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"model.rotary_scaling = .*: {message}"):
        small_model(**{**HEADS, **changes})
