"""Mamba's selective state space (Gu & Dao 2023, arXiv 2312.00752, Algorithm 2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.state_space.chunks import scan_chunks
from armt_jax.state_space.selective_steps import selective_steps

# So few tokens are read one by one, where every step is one loop over the state.
ONE_BY_ONE = 8


def selective_scan(
    x: jax.Array,
    dt: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    state: jax.Array,
    chunk: int,
    parallel: bool | None = None,
) -> tuple[jax.Array, jax.Array]:
    """``h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t``, ``y_t = C_t . h_t``.

    Parallel, a chunk is one ``associative_scan`` of pairs (decay, input): ``(a, b)`` then
    ``(a', b')`` is ``(a' a, a' b + b')``. It holds ``[b, chunk, i, n]`` floats, for one chunk at a
    time: the backward pass computes them again. Else ``ONE_BY_ONE`` tokens are read one after
    another at a time, as a few tokens always are; on a CPU that is a sixth of the time
    (``BUILD_NOTES.md``, "Recurrent families").

    Args:
      x: ``[b, t, i]``.
      dt: ``[b, t, i]``, positive; 0 at padding.
      A: ``[i, n]``, negative.
      B, C: ``[b, t, n]``.
      state: ``h [b, i, n]``.
      chunk: tokens per associative scan.
      parallel: False: token by token; None: that on a CPU.

    Returns:
      The state after the last token, and ``y [b, t, i]`` (the skip ``D x`` is the caller's).
    """
    if parallel is None:
        parallel = jax.default_backend() != "cpu"

    def by_token(h: jax.Array, piece: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        x, dt, B, C = piece
        return selective_steps(x, dt, A, B, C, h)

    def side_by_side(h: jax.Array, piece: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        x, dt, B, C = piece
        decay = jnp.exp(dt[..., None] * A[None, None])
        drive = (dt * x)[..., None] * B[:, :, None, :]
        # The state before is part of what the first token adds.
        drive = drive.at[:, 0].add(decay[:, 0] * h)
        _, states = lax.associative_scan(_then, (decay, drive), axis=1)
        return states[:, -1], jnp.einsum("btin,btn->bti", states, C)

    inputs = (x, dt, B, C)
    if parallel and min(chunk, x.shape[1]) > ONE_BY_ONE:
        return scan_chunks(side_by_side, state, inputs, chunk, recompute=True)
    return scan_chunks(by_token, state, inputs, min(chunk, ONE_BY_ONE))


def _then(
    first: tuple[jax.Array, jax.Array], second: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (a, b), (c, d) = first, second
    return c * a, c * b + d
