"""RWKV-5's memory (Eagle; Peng et al. 2024, arXiv 2404.05892): a decay for every channel."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from armt_jax.state_space.chunks import scan_chunks
from armt_jax.state_space.decay import decay_between


def wkv5(
    r: jax.Array,
    k: jax.Array,
    v: jax.Array,
    log_decay: jax.Array,
    bonus: jax.Array,
    state: jax.Array,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    """``y_t = (S_(t-1) + diag(u) k_t v_t^T)^T r_t``, ``S_t = diag(w_t) S_(t-1) + k_t v_t^T``.

    With ``g_t = sum_(j <= t) log w_j`` by channel, in a chunk

        y_t = S_0^T (r_t exp(g_(t-1))) + sum_(j < t) (r_t . exp(g_(t-1) - g_j) k_j) v_j
              + (r_t . u k_t) v_t

    The decays between all pairs of tokens are held, ``[b, chunk, chunk, h, n]``: a channel may
    forget within a token, and a quotient of its decays would be 0 / 0.

    Args:
      r, k: ``[b, t, h, n]``; ``k`` 0 at padding.
      v: ``[b, t, h, p]``.
      log_decay: ``[b, t, h, n]``, below 0; 0 at padding.
      bonus: ``u [h, n]``, the weight of a token for itself.
      state: ``S [b, h, n, p]``.
      chunk: tokens per chunk.

    Returns:
      The state after the last token, and ``y [b, t, h, p]``.
    """

    def body(S: jax.Array, piece: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        r, k, v, log_decay = piece
        g = jnp.cumsum(log_decay, axis=1)
        before = g - log_decay
        between = decay_between(g, before)
        weights = jnp.einsum("bthn,bjhn,btjhn->bhtj", r, k, between)
        own = jnp.einsum("bthn,hn,bthn->bth", r, bonus, k)
        y = jnp.einsum("bhtj,bjhp->bthp", weights, v) + own[..., None] * v
        y = y + jnp.einsum("bthn,bhnp->bthp", r * jnp.exp(before), S)
        left = k * jnp.exp(g[:, -1:] - g)
        S = jnp.exp(g[:, -1])[..., None] * S + jnp.einsum("bthn,bthp->bhnp", left, v)
        return S, y

    return scan_chunks(body, state, (r, k, v, log_decay), chunk)
