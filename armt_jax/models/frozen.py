"""Parameters that stay as they start: ``W_V`` of ARMT's layers without a memory.

``W_V`` starts at zero. Where it stays there, ``v = 0`` and so ``A = 0`` for ever: the layer stores
nothing and recalls exactly nothing, under every rule and schedule, and no program is another one
for it. Memory and time of such a layer's zeros are not saved.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.models.protocol import Params


def without_frozen(config: ModelConfig, grads: Params) -> Params:
    """``grads`` with zeros for what is not learnt, and so neither clipped nor decayed by it."""
    if not config.memory_layers:
        return grads
    learnt = np.isin(np.arange(config.n_layer), config.memory_layers)

    def mask(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        if not _is_value_matrix(path):
            return leaf
        return leaf * jnp.asarray(learnt, leaf.dtype)[:, None, None]

    return jax.tree_util.tree_map_with_path(mask, grads)


def check_frozen(config: ModelConfig, params: Params) -> None:
    """Refuse parameters that have a memory where ``config`` says there is none.

    Raises:
      ConfigError: ``W_V`` of a layer that is not in ``config.memory_layers`` is not zero.
    """
    if not config.memory_layers:
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not _is_value_matrix(path):
            continue
        for layer in set(range(config.n_layer)) - set(config.memory_layers):
            if np.any(np.asarray(leaf[layer])):
                raise ConfigError(
                    f"model.memory_layers = {config.memory_layers}: these parameters have a memory "
                    f"in layer {layer}, too"
                )


def _is_value_matrix(path: tuple[Any, ...]) -> bool:
    return [getattr(key, "key", None) for key in path[-3:-1]] == ["memory", "W_mv"]
