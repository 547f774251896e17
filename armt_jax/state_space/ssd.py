"""Mamba-2's state space duality (Dao & Gu 2024, arXiv 2405.21060): chunks of matrix products."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from armt_jax.state_space.chunks import scan_chunks
from armt_jax.state_space.decay import decay_between


def state_space_dual(
    x: jax.Array,
    dt: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    state: jax.Array,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    """``H_t = exp(dt_t A) H_(t-1) + dt_t x_t B_t^T``, ``y_t = H_t C_t``, in every head.

    One scalar decay a head makes the chunk a masked attention: with ``g_t = sum_(j <= t) dt_j A``,

        y_t = exp(g_t) H_0 C_t + sum_(j <= t) exp(g_t - g_j) (C_t . B_j) dt_j x_j

    Args:
      x: ``[b, t, h, p]``.
      dt: ``[b, t, h]``, positive; 0 at padding.
      A: ``[h]``, negative.
      B, C: ``[b, t, n]``, of all heads.
      state: ``H [b, h, p, n]``.
      chunk: tokens per chunk.

    Returns:
      The state after the last token, and ``y [b, t, h, p]`` (the skip ``D x`` is the caller's).
    """

    def body(H: jax.Array, piece: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        x, dt, B, C = piece
        g = jnp.cumsum(dt * A[None, None], axis=1)
        dx = dt[..., None] * x
        weights = jnp.einsum("btn,bjn->btj", C, B)[..., None] * decay_between(g)
        y = jnp.einsum("btjh,bjhp->bthp", weights, dx)
        y = y + jnp.exp(g)[..., None] * jnp.einsum("bhpn,btn->bthp", H, C)
        left = jnp.exp(g[:, -1:] - g)[..., None] * dx
        H = jnp.exp(g[:, -1])[..., None, None] * H + jnp.einsum("bthp,btn->bhpn", left, B)
        return H, y

    return scan_chunks(body, state, (x, dt, B, C), chunk)
