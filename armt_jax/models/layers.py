"""Layers stacked along axis 0, as ``init`` gives them, or apart in a tuple, one after the other.

A program that reads one segment after another cuts each layer's matrices out of a stack in every
segment, which for GPT-2 small is 340 MB of copying. From layers apart it copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.models.protocol import Params

# Layers are unrolled up to this depth: a scan over layers copies their parameters in every segment.
UNROLLED_LAYERS = 6


def unstack_layers(params: Params) -> Params:
    """``params`` with a tuple of layers for stacked ones."""
    layers = params["layers"]
    if isinstance(layers, tuple):
        return params
    count = jax.tree.leaves(layers)[0].shape[0]
    return {**params, "layers": tuple(layer_params(layers, index) for index in range(count))}


def apart_if_few(params: Params) -> Params:
    """``params`` with layers apart where ``run_layers`` unrolls them in any case."""
    layers = params["layers"]
    if isinstance(layers, tuple) or jax.tree.leaves(layers)[0].shape[0] > UNROLLED_LAYERS:
        return params
    return unstack_layers(params)


def layer_params(layers: Params, index: int) -> Params:
    """Parameters of one layer."""
    if isinstance(layers, tuple):
        return layers[index]
    return jax.tree.map(lambda leaf: leaf[index], layers)


def split_top(tree: Any) -> tuple[Any, Any]:
    """Leaves ``[l, ...]`` (or layers apart) of all but the top layer, and of that.

    Without a layer below it, the first is empty: None.
    """
    if isinstance(tree, tuple) and not hasattr(tree, "_fields"):
        return tree[:-1], tree[-1]
    top = jax.tree.map(lambda leaf: leaf[-1], tree)
    if jax.tree.leaves(tree)[0].shape[0] == 1:
        return None, top
    return jax.tree.map(lambda leaf: leaf[:-1], tree), top


def run_layers(
    layer: Callable[[Any, Any, int | None], tuple[Any, Any]],
    x: Any,
    layers: Params,
    rest: Any,
    last: int | None = None,
) -> tuple[Any, Any]:
    """``x`` through all layers.

    Args:
      layer: ``(x, (params_l, rest_l), last) -> (x, out)``.
      x: what goes from one layer to the next.
      layers: parameters, stacked or apart.
      rest: leaves ``[l, ...]`` that belong to the layers.
      last: given to the top layer, which may then output something of another shape; None, which
        the others get: the top layer is as the others.

    Returns:
      The top layer's ``x``, and ``out`` of all, stacked; None where there is no layer.
    """
    if not jax.tree.leaves(layers):
        return x, None
    depth = len(layers) if isinstance(layers, tuple) else jax.tree.leaves(layers)[0].shape[0]
    if isinstance(layers, tuple) or depth <= UNROLLED_LAYERS:
        outputs = []
        for index in range(depth):
            own = jax.tree.map(lambda leaf, i=index: leaf[i], rest)
            is_last = index == depth - 1
            x, out = layer(x, (layer_params(layers, index), own), last if is_last else None)
            outputs.append(out)
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)

    def body(x: Any, scanned: Any) -> tuple[Any, Any]:
        return layer(x, scanned, None)

    stacked = (layers, rest)
    if last is None:
        return lax.scan(body, x, stacked)
    x, most = lax.scan(body, x, jax.tree.map(lambda leaf: leaf[:-1], stacked))
    x, out = layer(x, jax.tree.map(lambda leaf: leaf[-1], stacked), last)
    return x, jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), most, out)
