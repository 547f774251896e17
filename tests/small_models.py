"""Small models whose memory does something, and texts for them."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax import ModelConfig, create_model
from armt_jax.models import ARMT, Params, Segment, SegmentModel

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


# Values are compared here and no speeds: LLVM's optimisations would double the compile time.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def small_model(**changes: Any) -> ARMT:
    """A model of ``SIZES`` with ``changes``."""
    return create_model(ModelConfig(**{**SIZES, **changes}))


def lively_params(model: SegmentModel, seed: int = 0) -> Params:
    """Random parameters in JAX's float: nothing is 0 or 1 as at initialisation, ``W_V`` writes."""
    rng = np.random.default_rng(seed)
    dtype = jnp.result_type(float)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = jax.tree_util.keystr(path)
        centre = 1.0 if "scale" in name else 0.0
        return jnp.asarray(centre + 0.3 * rng.normal(size=leaf.shape), dtype)

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def random_tokens(model: SegmentModel, *shape: int, seed: int = 0) -> jax.Array:
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
