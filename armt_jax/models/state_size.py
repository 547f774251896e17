"""How much a model remembers of one text: what comparisons at equal state are about."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from armt_jax.models.protocol import SegmentModel


def state_size(model: SegmentModel) -> int:
    """Floats that ``model`` carries from one segment to the next, for one text.

    Flags and counters are not counted: integers, bools, and floats of which a text (or each of its
    layers) has a single one. Nor are layers without a memory (``model.memory_layers``).
    """
    one, two = (jax.eval_shape(lambda n=n: model.init_state(n)) for n in (1, 2))
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    single = ((), (model.config.n_layer,))
    total = 0
    for leaf, wider in leaves:
        sizes = zip(leaf.shape, wider.shape, strict=True)
        own = tuple(size for size, other in sizes if size == other)
        if jnp.issubdtype(leaf.dtype, jnp.floating) and own not in single:
            total += math.prod(own)
    if not model.config.memory_layers:
        return total
    return total * len(model.config.memory_layers) // model.config.n_layer
