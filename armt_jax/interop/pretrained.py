"""A backbone's named arrays as the parameters of a model with a memory, and back.

The backbone's parameters come from the arrays, the memory's are fresh: ``W_V = 0``, so nothing is
ever recalled, and as no token sees a memory token the model starts as its backbone, in every
segment.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.interop.names import MEMORY, Piece, is_buffer, leaf_paths, pieces, tied_head
from armt_jax.interop.weights import Weights
from armt_jax.models import create_model
from armt_jax.models.backbones import BACKBONES, init_memory_tokens
from armt_jax.models.protocol import Params


def import_params(
    weights: Weights,
    config: ModelConfig,
    *,
    what: str,
    rng: jax.Array | None = None,
    dtype: jax.typing.DTypeLike | None = None,
) -> Params:
    """Parameters of ``config``, from ``weights``; a memory that is not among them is fresh.

    Args:
      weights: under Hugging Face's names, a memory's as ``pieces`` names them.
      config: of the model.
      what: whose weights they are, for messages.
      rng: for a fresh memory; ``jax.random.key(0)`` by default.
      dtype: of the result; by default JAX's float (float32 unless x64 is enabled).

    Raises:
      ConfigError: names missing or left over, or arrays of another shape, all listed at once.
    """
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    template = _shapes(config)
    backbone, memory = pieces(config, template)
    is_fresh = not any(name.startswith(MEMORY) for name in weights.shapes)
    wanted = backbone if is_fresh else backbone | memory
    _check(weights, config, wanted, what)
    arrays = {path: np.empty(leaf.shape, dtype) for path, leaf in leaf_paths(template)}
    for name, piece in wanted.items():
        piece.cut(arrays[piece.path])[...] = weights.read(name)
    if is_fresh:
        rng = jax.random.key(0) if rng is None else rng
        embedding = arrays["embed", BACKBONES[config.backbone].embedding]
        fresh = fresh_memory(config, rng, jnp.asarray(embedding))
        for name, piece in memory.items():
            piece.cut(arrays[piece.path])[...] = fresh[name]
    return jax.tree.unflatten(
        jax.tree.structure(template), [jnp.asarray(array) for array in arrays.values()]
    )


def fresh_memory(config: ModelConfig, rng: jax.Array, embedding: jax.Array) -> dict[str, jax.Array]:
    """What the memory adds to a backbone, as at initialisation, by name.

    Memory tokens have the standard deviation of ``embedding [v, d]``, whatever the model's own
    initialisation would have given.
    """
    all_rng, tokens_rng = jax.random.split(rng)
    drawn = _draw_memory(config, embedding.dtype, all_rng)
    return drawn | {f"{MEMORY}embed.memory": init_memory_tokens(config, tokens_rng, embedding)}


@functools.lru_cache(maxsize=32)
def _shapes(config: ModelConfig) -> Params:
    return jax.eval_shape(lambda: create_model(config).init(jax.random.key(0)))


# Compiled, so that the backbone's parameters, which nobody asks for, are never drawn.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _draw_memory(config: ModelConfig, dtype: jnp.dtype, rng: jax.Array) -> dict[str, jax.Array]:
    params = create_model(config).init(rng, dtype)
    leaves = dict(leaf_paths(params))
    memory = pieces(config, params)[1]
    return {name: piece.cut(leaves[piece.path]) for name, piece in memory.items()}


def export_arrays(
    params: Params, config: ModelConfig
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The backbone's arrays under Hugging Face's names, and the memory's; dtypes kept."""
    leaves = {path: np.asarray(leaf) for path, leaf in leaf_paths(params)}

    def cut(named: Mapping[str, Piece]) -> dict[str, np.ndarray]:
        return {name: piece.cut(leaves[piece.path]) for name, piece in named.items()}

    backbone, memory = pieces(config, params)
    return cut(backbone), cut(memory)


def _check(weights: Weights, config: ModelConfig, wanted: Mapping[str, Piece], what: str) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in weights.shapes]
    for name, shape in weights.shapes.items():
        if name in wanted:
            if shape != wanted[name].shape:
                problems.append(f"{name} has shape {shape}, must be {wanted[name].shape}")
        elif (alias := tied_head(config)) is not None and name == alias[0]:
            if alias[1] in weights.shapes and not _are_equal(weights, *alias):
                problems.append(f"{name} is not {alias[1]}, which is the tied head")
        elif not is_buffer(config, name):
            problems.append(f"{name} is not a parameter of this model")
    if problems:
        raise ConfigError(f"{what} does not fit: " + "; ".join(sorted(problems)))


def _are_equal(weights: Weights, one: str, other: str) -> bool:
    return np.array_equal(weights.read(one), weights.read(other))
