"""The (gated) delta rule in chunks: DeltaNet and Gated DeltaNet.

Schlag et al. 2021 (arXiv 2102.11174); the chunkwise form of Yang et al. 2024 (arXiv 2406.06484);
the gate of Yang, Kautz & Hatamizadeh 2024 (arXiv 2412.06464).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.state_space.chunks import scan_chunks
from armt_jax.state_space.decay import decay_between


def gated_delta_rule(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    beta: jax.Array,
    log_decay: jax.Array | None,
    state: jax.Array,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    """``S_t = a_t S_(t-1) + k_t u_t^T``, ``u_t = beta_t (v_t - a_t S_(t-1)^T k_t)``, ``y = S^T q``.

    That is ``S_t = a_t (I - beta_t k_t k_t^T) S_(t-1) + beta_t k_t v_t^T``. In a chunk, with
    ``g_t = sum_(j <= t) log a_j``, the rows ``u`` solve one unit lower triangular system (the WY
    form), a product of which with keys and queries is all that is left:

        u_t + beta_t sum_(j < t) exp(g_t - g_j) (k_t . k_j) u_j = beta_t (v_t - exp(g_t) S_0^T k_t)
        y_t = exp(g_t) S_0^T q_t + sum_(j <= t) exp(g_t - g_j) (q_t . k_j) u_j

    Args:
      q, k: ``[b, t, h, n]``; keys of length 1 (0 at padding), or the rule diverges.
      v: ``[b, t, h, p]``.
      beta: ``[b, t, h]``, in [0, 1]; 0 at padding.
      log_decay: ``[b, t, h]``, at most 0; None: DeltaNet, which forgets nothing by itself.
      state: ``S [b, h, n, p]``.
      chunk: tokens per chunk.

    Returns:
      The state after the last token, and ``y [b, t, h, p]``.
    """
    g = jnp.zeros_like(beta) if log_decay is None else log_decay

    def body(S: jax.Array, piece: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        q, k, v, beta, g = piece
        g = jnp.cumsum(g, axis=1)
        # [b, h, t, j]: heads in front, as the solve wants them.
        ratio = jnp.moveaxis(decay_between(g), 3, 1)
        grown = jnp.exp(g)[..., None]
        gate = beta.swapaxes(1, 2)[..., None]
        known = jnp.einsum("bthn,bhnp->bhtp", grown * k, S)
        system = gate * ratio * jnp.einsum("bthn,bjhn->bhtj", k, k)
        rows = gate * (v.swapaxes(1, 2) - known)
        # Unit lower triangular: what stands on the diagonal and above is not looked at.
        u = lax.linalg.triangular_solve(
            system, rows, left_side=True, lower=True, unit_diagonal=True
        )
        weights = ratio * jnp.einsum("bthn,bjhn->bhtj", q, k)
        y = jnp.einsum("bhtj,bhjp->bthp", weights, u)
        y = y + jnp.einsum("bthn,bhnp->bthp", grown * q, S)
        left = jnp.exp(g[:, -1:] - g)[..., None] * k
        S = jnp.exp(g[:, -1])[..., None, None] * S + jnp.einsum("bthn,bhtp->bhnp", left, u)
        return S, y

    return scan_chunks(body, state, (q, k, v, beta, g), chunk)
