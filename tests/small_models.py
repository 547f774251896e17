"""Small models whose memory does something, and texts for them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax import ModelConfig, create_model
from armt_jax.models import ARMT, Params, Segment

SIZES: dict[str, Any] = {
    "n_layer": 2,
    "n_head": 2,
    "d_model": 16,
    "vocab_size": 23,
    "n_positions": 16,
    "num_mem_tokens": 2,
    "d_mem": 4,
    "d_ff": 16,
    "initializer_range": 0.4,
    "rotary_pct": 0.5,
}


def small_model(**changes: Any) -> ARMT:
    """A model of ``SIZES`` with ``changes``."""
    return create_model(ModelConfig(**{**SIZES, **changes}))


def lively_params(model: ARMT, seed: int = 0) -> Params:
    """Parameters at initialisation, but with a ``W_V`` that writes (it starts at zero)."""
    params = jax.jit(model.init)(jax.random.key(seed))
    memory = params["layers"]["memory"]
    kernel = memory["W_mv"]["kernel"]
    written = 0.3 * jax.random.normal(jax.random.key(seed + 1), kernel.shape, kernel.dtype)
    memory = {**memory, "W_mv": {"kernel": written}}
    return {**params, "layers": {**params["layers"], "memory": memory}}


def random_tokens(model: ARMT, *shape: int, seed: int = 0) -> jax.Array:
    """Token ids of any shape."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(0, model.config.vocab_size, shape), jnp.int32)


def segments_of(tokens: jax.Array, mask: Any = None) -> Segment:
    """A ``Segment`` (or a stack of them) of ``tokens``, nothing padded unless ``mask`` says so."""
    return Segment(tokens, jnp.ones(tokens.shape, bool) if mask is None else jnp.asarray(mask))


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    """Every leaf equal to ``tolerance`` of the largest entry of the expected one."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    leaves = zip(jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(found), strict=True)
    for (path, right), ours in leaves:
        assert ours.dtype == right.dtype, path
        scale = float(np.max(np.abs(right), initial=0.0))
        np.testing.assert_allclose(
            ours, right, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path)
        )
