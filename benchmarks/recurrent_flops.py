"""Operations of the recurrent families, for each token: matrices, convolutions, the state.

Matrices are those of the parameters, so a new one is counted without being named here. A product
with the state is 2 operations for each of its floats; how many there are is the recurrence's.
"""

from __future__ import annotations

import math
from typing import Any

import jax

from armt_jax.config import ModelConfig
from armt_jax.models import create_model

# Products with the state: what is added (a key and a value) and what is read are two; a delta rule
# reads what the key recalls first; RWKV-7 also adds what that reading takes away, by another key.
STATE_PRODUCTS = {
    "mamba": 2,
    "mamba2": 2,
    "rwkv5": 2,
    "delta_net": 3,
    "gated_delta_net": 3,
    "rwkv7": 4,
}
# Leaves of the state that are the memory, and not the last inputs of a convolution or token shift.
_MEMORY = ("h", "H", "S")


def recurrent_flops(config: ModelConfig) -> float:
    """One token through all layers, without the head."""
    model = create_model(config)
    layers = jax.eval_shape(model.init, jax.random.key(0))["layers"]
    work = sum(_leaf(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(layers))
    state = jax.eval_shape(lambda: model.init_state(1))
    floats = sum(math.prod(getattr(state, name).shape) for name in _MEMORY if hasattr(state, name))
    return work + 2.0 * STATE_PRODUCTS[config.family] * floats


def _leaf(path: tuple[Any, ...], leaf: Any) -> float:
    """Stacked matrices ``[l, rows, columns]`` and taps of short convolutions ``[l, width, i]``."""
    name = getattr(path[-1], "key", None)
    return 2.0 * math.prod(leaf.shape) if name in ("kernel", "taps") else 0.0
