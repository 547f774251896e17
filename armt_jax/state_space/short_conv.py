"""What looks a few tokens back: the causal depthwise convolution, the token shift, and padding.

Padding is not there: the token before a token is the last real one, however much padding stands
between them and in whichever segment it was. So the tokens of a segment are packed first, padding
behind them, in their order; then a window is a window, and the last inputs are those before the
padding.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Packing(NamedTuple):
    """How the tokens of a segment are moved in front of its padding.

    Attributes:
      order: ``[b, t]`` int32, the place that each packed token comes from.
      inverse: ``[b, t]`` int32, the packed place of each token.
      mask: ``[b, t]`` bool, of packed tokens: True up to the number of real ones.
    """

    order: jax.Array
    inverse: jax.Array
    mask: jax.Array

    def pack(self, x: jax.Array) -> jax.Array:
        """``x [b, t, ...]``, tokens first."""
        return x if x.shape[1] == 1 else _permute(x, self.order, self.inverse)

    def unpack(self, x: jax.Array) -> jax.Array:
        """The inverse of ``pack``."""
        return x if x.shape[1] == 1 else _permute(x, self.inverse, self.order)


def packing(mask: jax.Array) -> Packing:
    """The packing of segments of which ``mask [b, t]`` says what is no padding."""
    order = jnp.argsort(~mask, axis=1, stable=True)
    inverse = jnp.argsort(order, axis=1)
    packed = jnp.arange(mask.shape[1])[None] < jnp.sum(mask, axis=1, keepdims=True)
    return Packing(order.astype(jnp.int32), inverse.astype(jnp.int32), packed)


@jax.custom_vjp
def _permute(x: jax.Array, order: jax.Array, inverse: jax.Array) -> jax.Array:
    """``x[b, order[b, t]]``; its derivative gathers by the inverse and does not scatter."""
    del inverse
    index = order.reshape(*order.shape, *(1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, index, axis=1)


def _permute_forward(
    x: jax.Array, order: jax.Array, inverse: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _permute(x, order, inverse), (order, inverse)


def _permute_backward(
    residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, None, None]:
    order, inverse = residuals
    return _permute(cotangent, inverse, order), None, None


_permute.defvjp(_permute_forward, _permute_backward)


def short_conv(
    x: jax.Array, taps: jax.Array, bias: jax.Array | None, before: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Causal depthwise convolution: ``y_t = sum_j taps_j x_(t - w + 1 + j) + bias``.

    Args:
      x: ``[b, t, i]``, packed.
      taps: ``[w, i]``, the last of which is the token's own.
      bias: ``[i]``, or None.
      before: ``[b, w - 1, i]``, the inputs of the last tokens before these.
      mask: ``[b, t]`` bool, ``Packing.mask``.

    Returns:
      The inputs of the last ``w - 1`` tokens after these, in the dtype of ``before``, and ``y``.
    """
    width, length = taps.shape[0], x.shape[1]
    line = jnp.concatenate([before.astype(x.dtype), x], axis=1)
    y = jnp.zeros_like(x) if bias is None else jnp.broadcast_to(bias.astype(x.dtype), x.shape)
    for j in range(width):
        y = y + taps[None, None, j].astype(x.dtype) * line[:, j : j + length]
    return last_inputs(before, x, mask), y


def previous_token(x: jax.Array, before: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The token shift: ``x_(t - 1)`` for every token.

    Args:
      x: ``[b, t, d]``, packed.
      before: ``[b, 1, d]``, the last token before these.
      mask: ``[b, t]`` bool, ``Packing.mask``.

    Returns:
      The last token after these ``[b, 1, d]``, and the shifted tokens ``[b, t, d]``.
    """
    shifted = jnp.concatenate([before.astype(x.dtype), x[:, :-1]], axis=1)
    return last_inputs(before, x, mask), shifted


def last_inputs(before: jax.Array, x: jax.Array, mask: jax.Array) -> jax.Array:
    """The last of ``before [b, w, i]`` followed by the real ones of ``x``: ``[b, w, i]``."""
    width = before.shape[1]
    line = jnp.concatenate([before, x.astype(before.dtype)], axis=1)
    # One of the line's places for each that is kept: a product of 0s and 1s is exact.
    places = jnp.sum(mask, axis=1)[:, None] + jnp.arange(width)[None]
    chosen = places[:, :, None] == jnp.arange(line.shape[1])[None, None]
    return jnp.einsum("bwl,bli->bwi", chosen.astype(line.dtype), line, precision="highest")
