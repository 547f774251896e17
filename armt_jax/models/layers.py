"""Parameters of layers: stacked along axis 0, as ``init`` gives them, or apart in a tuple.

A program that reads one segment after another cuts each layer's matrices out of a stack in every
segment, which for GPT-2 small is 340 MB of copying. From layers apart it copies nothing.
"""

from __future__ import annotations

import jax

from armt_jax.models.protocol import Params


def unstack_layers(params: Params) -> Params:
    """``params`` with a tuple of layers for stacked ones."""
    layers = params["layers"]
    if isinstance(layers, tuple):
        return params
    count = jax.tree.leaves(layers)[0].shape[0]
    return {**params, "layers": tuple(layer_params(layers, index) for index in range(count))}


def layer_params(layers: Params, index: int) -> Params:
    """Parameters of one layer."""
    if isinstance(layers, tuple):
        return layers[index]
    return jax.tree.map(lambda leaf: leaf[index], layers)
