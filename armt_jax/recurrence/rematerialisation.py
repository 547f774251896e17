"""Scanning with less kept for the backward pass: recomputing each step, or in two levels.

What a scan over S steps keeps for its backward pass, one carried state (for ARMT the memories of
all layers) being 1 and what else a step keeps (activations) being a:

    none      S (1 + a)            nothing is computed twice
    segment   S + a                every step's forward pass twice
    sqrt      about 2 sqrt(S) + a  three times (Chen et al. 2016, arXiv 1604.06174)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Body = Callable[[Any, Any], tuple[Any, Any]]


def remat_scan(body: Body, carry: Any, scanned: Any, *, remat: str) -> tuple[Any, Any]:
    """``lax.scan`` that keeps for its backward pass what ``remat`` says (see the module).

    Args:
      body: ``(carry, x) -> (carry, y)``.
      carry: before the first step.
      scanned: leaves ``[s, ...]``.
      remat: ``none``, ``segment`` or ``sqrt``.
    """
    if remat == "none":
        return lax.scan(body, carry, scanned)
    # Inside a scan nothing can be merged across the boundary that prevent_cse guards.
    body = jax.checkpoint(body, prevent_cse=False)
    return scan_blocks(body, carry, scanned) if remat == "sqrt" else lax.scan(body, carry, scanned)


def block_length(steps: int) -> int:
    """Steps of a block, for which the fewest carries are kept at any time: about ``sqrt(steps)``.

    Those are one for each whole block and, while a block is worked on, one for each of its steps.
    Steps left over are a second program to compile: worth no more than one carry.
    """

    def cost(length: int) -> tuple[int, bool, int]:
        rest = steps % length > 0
        return steps // length + length + rest, rest, -length

    return min(range(1, steps + 1), key=cost)


def scan_blocks(body: Body, carry: Any, scanned: Any) -> tuple[Any, Any]:
    """``lax.scan`` that keeps one carry per block of steps; a block's others are computed again.

    Args:
      body: ``(carry, x) -> (carry, y)``, which itself keeps little more than its carry.
      carry: before the first step.
      scanned: leaves ``[s, ...]``; what is left over by whole blocks is scanned behind them.
    """
    steps = jax.tree.leaves(scanned)[0].shape[0]
    length = block_length(steps)
    whole = steps - steps % length

    def block(carry: Any, scanned: Any) -> tuple[Any, Any]:
        return lax.scan(body, carry, scanned)

    blocks = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, length, *leaf.shape[1:]), scanned)
    carry, out = lax.scan(jax.checkpoint(block, prevent_cse=False), carry, blocks)
    out = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), out)
    if whole == steps:
        return carry, out
    # The backward pass begins with the rest and has let go of it when it comes to the blocks.
    carry, rest = block(carry, jax.tree.map(lambda leaf: leaf[whole:], scanned))
    return carry, jax.tree.map(lambda first, last: jnp.concatenate([first, last]), out, rest)
