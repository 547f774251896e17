"""RWKV-7's memory (Goose; Peng et al. 2025, arXiv 2503.14456): a generalised delta rule.

A decay for every channel and a removal whose direction and strength differ, so that the delta
rule's triangular system has other keys on its two sides.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.state_space.chunks import scan_chunks

# exp(-16 exp(-1/2)) = 6e-5 is the least that a channel keeps over so many tokens: one can divide.
LONGEST_CHUNK = 16


def wkv7(
    r: jax.Array,
    log_decay: jax.Array,
    k: jax.Array,
    v: jax.Array,
    a: jax.Array,
    b: jax.Array,
    state: jax.Array,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    """``S_t = diag(w_t) S_(t-1) + b_t u_t^T + k_t v_t^T``, ``u_t = S_(t-1)^T a_t``, ``y = S^T r``.

    (The paper writes the transpose; ``a = -kappa``, ``b = kappa * strength``.) In a chunk, with
    ``D_t = prod_(j <= t) w_j`` by channel, ``S_t / D_t`` only adds, and the rows u solve

        u_t - sum_(j < t) (D_(t-1) a_t . b_j / D_j) u_j
            = S_0^T (D_(t-1) a_t) + sum_(j < t) (D_(t-1) a_t . k_j / D_j) v_j
        y_t = S_0^T (D_t r_t) + sum_(j <= t) (D_t r_t . b_j / D_j) u_j + (D_t r_t . k_j / D_j) v_j

    Args:
      r, k, a, b: ``[b, t, h, n]``; ``k``, ``b`` 0 at padding.
      log_decay: ``[b, t, h, n]``, in [-exp(-1/2), 0] as RWKV-7 has it; 0 at padding.
      v: ``[b, t, h, p]``.
      state: ``S [b, h, n, p]``.
      chunk: tokens per chunk; ``LONGEST_CHUNK`` at most are taken.

    Returns:
      The state after the last token, and ``y [b, t, h, p]``.
    """

    def body(S: jax.Array, piece: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        r, log_decay, k, v, a, b = piece
        g = jnp.cumsum(log_decay, axis=1)
        kept = jnp.exp(g)
        r, a = r * kept, a * jnp.exp(g - log_decay)
        k, b = k / kept, b / kept

        def upto(left: jax.Array, right: jax.Array) -> jax.Array:
            return jnp.tril(jnp.einsum("bthn,bjhn->bhtj", left, right))

        def below(left: jax.Array, right: jax.Array) -> jax.Array:
            return jnp.tril(jnp.einsum("bthn,bjhn->bhtj", left, right), -1)

        rows = jnp.einsum("bthn,bhnp->bhtp", a, S)
        rows = rows + jnp.einsum("bhtj,bjhp->bhtp", below(a, k), v)
        u = lax.linalg.triangular_solve(
            -below(a, b), rows, left_side=True, lower=True, unit_diagonal=True
        )
        y = jnp.einsum("bthn,bhnp->bthp", r, S)
        y = y + jnp.einsum("bhtj,bhjp->bthp", upto(r, b), u)
        y = y + jnp.einsum("bhtj,bjhp->bthp", upto(r, k), v)
        S = S + jnp.einsum("bthn,bhtp->bhnp", b, u) + jnp.einsum("bthn,bthp->bhnp", k, v)
        return kept[:, -1][..., None] * S, y

    return scan_chunks(body, state, (r, log_decay, k, v, a, b), min(chunk, LONGEST_CHUNK))
