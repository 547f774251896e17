"""Truncated backpropagation through time: gradients end at the borders of windows of segments.

The first window starts with the first segment, the last one may be shorter. The memory goes on
across a border as a value; its cotangent does not (Williams & Peng 1990).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes


@jax.custom_vjp
def gradient_if(live: jax.Array, tree: Any) -> Any:
    """``tree``, whose cotangent counts only if ``live`` (bool scalar).

    Not ``where(live, x, stop_gradient(x))``: that is a new value in every step, and a scan would
    keep all of them for its backward pass.
    """
    del live
    return tree


def _gradient_if_forward(live: jax.Array, tree: Any) -> tuple[Any, jax.Array]:
    return tree, live


def _gradient_if_backward(live: jax.Array, cotangent: Any) -> tuple[None, Any]:
    def choose(leaf: Any) -> Any:
        # Integers and masks have no cotangent to choose.
        return leaf if leaf.dtype == dtypes.float0 else jnp.where(live, leaf, 0)

    return None, jax.tree.map(choose, cotangent)


gradient_if.defvjp(_gradient_if_forward, _gradient_if_backward)


def goes_on(count: int, bptt: int) -> np.ndarray | None:
    """``[count]`` bool: whether gradients go from a segment to the one before it; None: all do.

    The first segment's go to the state that was given. ``bptt = 0`` is one window.
    """
    if bptt == 0 or count <= bptt:
        return None
    index = np.arange(count)
    return (index % bptt != 0) | (index == 0)


def last_window(count: int, bptt: int) -> int:
    """The first segment of the last window: where gradients of the final state end."""
    return 0 if bptt == 0 else (count - 1) // bptt * bptt
