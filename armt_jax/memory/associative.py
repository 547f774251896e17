"""The associative memory of one layer as pure functions: init, recall, update.

Source: ARMT (arXiv 2407.04841), Equations 1-4. Axis letters: ``b`` batch, ``n`` any number of
reading positions, ``m`` memory tokens, ``k`` features, ``d`` width. The paper writes
``A = v phi(k)^T``; here ``A`` is stored ``[k, d]``, so a read is ``phi(q) A``.

All functions take features (``phi``) and not projections, so that the one who owns ``W_Q, W_K,
W_V, W_beta`` decides when to compute them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.memory.feature_maps import FEATURE_MAPS
from armt_jax.memory.rules import MemoryRule

# Added to |phi|^2 under the root of unit features. Far below the smallest |phi|^2 that the
# official initialisation gives (8e-6), so unit features are unit.
NORM_EPS = 1e-12


class MemoryState(NamedTuple):
    """What one layer remembers.

    Attributes:
      A: associative matrix ``[b, k, d]``, float32 (float64 where the model computes in it).
      z: normalisation vector ``[b, k]``; ``[b, 0]`` for a rule without one.
      written: ``[b]``, 1 where something has been written, 0 where the memory is new.
    """

    A: jax.Array
    z: jax.Array
    written: jax.Array


def state_dtype(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """Dtype of a memory whose model computes in ``dtype``: never narrower than float32."""
    return jnp.promote_types(dtype, jnp.float32)


def init_state(
    rule: MemoryRule,
    batch_size: int,
    features: int,
    width: int,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> MemoryState:
    """An empty memory: ``A_0 = 0``, ``z_0 = 0`` (Eq. 1)."""
    dtype = state_dtype(dtype)
    return MemoryState(
        A=jnp.zeros((batch_size, features, width), dtype),
        z=jnp.zeros((batch_size, features if rule.has_normaliser else 0), dtype),
        written=jnp.zeros((batch_size,), dtype),
    )


def features(rule: MemoryRule, x: jax.Array, nu: int) -> jax.Array:
    """``phi(x)``, ``[..., d_mem] -> [..., k]``, in the dtype of the state."""
    phi = FEATURE_MAPS[rule.feature_map](x.astype(state_dtype(x.dtype)), nu)
    if rule.normalise_features:
        phi = phi * lax.rsqrt(jnp.sum(phi * phi, axis=-1, keepdims=True) + NORM_EPS)
    return phi


def gate(rule: MemoryRule, logits: jax.Array) -> jax.Array:
    """``beta`` of the gate's logits (same shape), in the dtype of the state.

    ``sigmoid(a)``, or for the hard gate ``clip(1.2 sigmoid(a) - 0.1, 0, 1)``.
    """
    beta = jax.nn.sigmoid(logits.astype(state_dtype(logits.dtype)))
    if rule.gate == "hard":
        beta = jnp.clip(1.2 * beta - 0.1, 0.0, 1.0)
    return beta


class Reads(NamedTuple):
    """What features read from a memory, before it is normalised.

    Attributes:
      values: ``phi A [b, n, d]``.
      weights: ``phi . z [b, n]``; None for a rule without ``z``.
    """

    values: jax.Array
    weights: jax.Array | None


def read(rule: MemoryRule, state: MemoryState, phi: jax.Array) -> Reads:
    """Read features ``phi [b, n, k]`` from one layer's memory."""
    values = jnp.einsum("bnk,bkd->bnd", phi, state.A)
    if not rule.has_normaliser:
        return Reads(values, None)
    return Reads(values, jnp.einsum("bnk,bk->bn", phi, state.z))


def normalised(rule: MemoryRule, reads: Reads) -> jax.Array:
    """Eq. 4 from what was read: ``values / (weights + eps)``, ``[b, n, d]``."""
    if reads.weights is None:
        return reads.values
    return reads.values / (reads.weights + rule.eps)[..., None]


def recall(rule: MemoryRule, state: MemoryState, phi_q: jax.Array) -> jax.Array:
    """Eq. 4: ``y = A^T phi(q) / (z . phi(q) + eps)``; without normaliser ``y = A^T phi(q)``.

    An empty memory answers exactly 0, so the paper's skipped read of segment 0 needs no case.

    Args:
      rule: the memory rule.
      state: of one layer.
      phi_q: ``[b, n, k]``.

    Returns:
      ``[b, n, d]`` in the dtype of the state.
    """
    return normalised(rule, read(rule, state, phi_q))


class MemoryWrite(NamedTuple):
    """The low-rank change of one segment: ``A += phi_k^T rows``, ``z += gamma phi_k``.

    Attributes:
      rows: ``U [b, m, d]``, ``u_i = beta_i (v_i - vbar_i)``.
      gamma: ``[b, m]``; None for a rule without ``z``.
    """

    rows: jax.Array
    gamma: jax.Array | None


def update(
    rule: MemoryRule,
    state: MemoryState,
    phi_k: jax.Array,
    v: jax.Array,
    beta: jax.Array,
    write: jax.Array | None = None,
) -> MemoryState:
    """Eqs. 1-3: the state after one segment's memory tokens are written.

    Args:
      rule: the memory rule.
      state: of one layer, before the segment.
      phi_k: ``[b, m, k]`` features of the keys.
      v: ``[b, m, d]`` values.
      beta: ``[b, m]`` gates.
      write: ``[b]`` bool; where False nothing is written (a segment of padding only).

    Returns:
      The new state. ``gamma`` carries no gradient (Appendix F.1).
    """
    return apply_write(state, phi_k, change(rule, state, phi_k, v, beta, write), write)


def change(
    rule: MemoryRule,
    state: MemoryState,
    phi_k: jax.Array,
    v: jax.Array,
    beta: jax.Array,
    write: jax.Array | None = None,
) -> MemoryWrite:
    """What ``update`` writes, for ``apply_write``; arguments as there."""
    old = read(rule, state, phi_k)
    return memory_write(rule, old, state.written, phi_k, v, beta, write)


def apply_write(
    state: MemoryState, phi_k: jax.Array, written: MemoryWrite, write: jax.Array | None
) -> MemoryState:
    """``A += phi_k^T rows``, ``z += gamma phi_k`` (Eq. 3)."""
    A = state.A + jnp.einsum("bmk,bmd->bkd", phi_k, written.rows)
    z = state.z
    if written.gamma is not None:
        z = z + jnp.einsum("bm,bmk->bk", written.gamma, phi_k)
    return MemoryState(A, z, mark_written(state.written, write))


def mark_written(written: jax.Array, write: jax.Array | None) -> jax.Array:
    """``written`` after a segment that writes where ``write`` (everywhere if None)."""
    if write is None:
        return jnp.ones_like(written)
    return jnp.maximum(written, write.astype(written.dtype))


def memory_write(
    rule: MemoryRule,
    old: Reads,
    written: jax.Array,
    phi_k: jax.Array,
    v: jax.Array,
    beta: jax.Array,
    write: jax.Array | None = None,
) -> MemoryWrite:
    """The rows and gammas that a segment adds, from what its keys read before it.

    With ``G = phi_k phi_k^T`` the sequential order needs no loop that touches ``A``: token i's
    denominator is ``s_i = z . k_i + sum_{j<i} gamma_j G_ij + eps`` and the rows solve
    ``(I + diag(beta/s) tril(G, -1)) U = diag(beta) V - diag(beta/s) phi_k A``.
    The parallel order is the same with ``tril(G, -1) -> 0``.

    Args:
      rule: the memory rule.
      old: what ``phi_k`` reads before the segment.
      written: ``[b]``, see ``MemoryState``.
      phi_k, v, beta, write: as in ``update``.
    """
    dtype = old.values.dtype
    beta = beta.astype(dtype)
    if write is not None:
        beta = beta * write.astype(dtype)[:, None]
    sequential = rule.order == "sequential"
    below = jnp.tril(jnp.einsum("bik,bjk->bij", phi_k, phi_k), -1) if sequential else None

    gamma, s = None, None
    if old.weights is not None:
        gamma = _gammas(rule, old.weights, below, phi_k, written)
        if write is not None:
            gamma = gamma * write.astype(dtype)[:, None]
        s = old.weights + rule.eps
        if below is not None:
            s = s + jnp.einsum("bij,bj->bi", below, gamma)

    target = beta[..., None] * v.astype(dtype)
    if not rule.erase:
        return MemoryWrite(target, gamma)
    erase = beta if s is None else beta / s
    rows = target - erase[..., None] * old.values
    if below is not None:
        rows = _solve_unit_lower(erase[..., None] * below, rows)
    return MemoryWrite(rows, gamma)


def _gammas(
    rule: MemoryRule,
    z_dot_k: jax.Array,
    below: jax.Array | None,
    phi_k: jax.Array,
    written: jax.Array,
) -> jax.Array:
    if rule.normaliser == "sum":
        return jnp.ones_like(z_dot_k)
    norm = jnp.sum(phi_k * phi_k, axis=-1) + rule.eps
    new = (written == 0)[:, None]
    if below is None:
        gamma = jnp.clip(1.0 - (z_dot_k + rule.eps) / norm, 0.0, 1.0)
        return lax.stop_gradient(jnp.where(new, jnp.ones_like(gamma), gamma))
    # Only the very first token of a text meets an empty memory here: the rest of its segment
    # already sees what that token wrote.
    gammas: list[jax.Array] = []
    for i in range(z_dot_k.shape[1]):
        s = z_dot_k[:, i] + rule.eps
        for j, gamma_j in enumerate(gammas):
            s = s + below[:, i, j] * gamma_j
        gamma = jnp.clip(1.0 - s / norm[:, i], 0.0, 1.0)
        gammas.append(jnp.where(new[:, 0], jnp.ones_like(gamma), gamma) if i == 0 else gamma)
    return lax.stop_gradient(jnp.stack(gammas, axis=1))


def _solve_unit_lower(strict: jax.Array, rhs: jax.Array) -> jax.Array:
    """``(I + L)^-1 rhs`` for strictly lower ``L [b, m, m]``, ``rhs [b, m, d]``.

    L is nilpotent, so the inverse is the finite product ``(I - L)(I + L^2)(I + L^4)...``: log2(m)
    small matrix products instead of a substitution loop. (M is 4 to 16 memory tokens.)
    """
    m = strict.shape[-1]
    power, order = -strict, 1
    out = rhs + power @ rhs
    while 2 * order < m:
        power = power @ power
        order *= 2
        out = out + power @ out
    return out
