"""A memory that is not updated yet: the matrix as it was, and the log of what was written since.

Axis letters: ``b`` batch, ``n`` reading positions, ``m`` memory tokens of a segment, ``r`` rows of
a log, ``k`` features, ``d`` width.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.memory import associative
from armt_jax.memory.associative import MemoryState, Reads
from armt_jax.models.armt import ARMT
from armt_jax.models.protocol import Params, Segment


class Log(NamedTuple):
    """One layer's writes; rows not yet written are 0.

    Attributes:
      phi: features of keys ``[b, r, k]``.
      U: ``[b, r, d]``, see ``MemoryWrite``.
      gamma: ``[b, r]``; None for a rule without ``z``. No gradient flows through it.
    """

    phi: jax.Array
    U: jax.Array
    gamma: jax.Array | None

    @classmethod
    def empty(cls, model: ARMT, segments: int, memory: MemoryState) -> Log:
        """Room for ``segments`` segments."""
        batch, k, d = memory.A.shape
        rows, dtype = segments * model.config.num_mem_tokens, memory.A.dtype
        gamma = jnp.zeros((batch, rows), dtype) if model.rule.has_normaliser else None
        return cls(jnp.zeros((batch, rows, k), dtype), jnp.zeros((batch, rows, d), dtype), gamma)

    def put(self, index: jax.Array, new: Log) -> Log:
        """With the rows of segment ``index``."""
        start = index * new.phi.shape[1]
        put = functools.partial(lax.dynamic_update_slice_in_dim, start_index=start, axis=1)
        return jax.tree.map(put, self, new)

    def take(self, index: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
        """``phi`` and ``U`` of segment ``index``."""
        take = functools.partial(
            lax.dynamic_slice_in_dim, start_index=index * rows, slice_size=rows, axis=1
        )
        return take(self.phi), take(self.U)

    def cotangent(self, d_memory: MemoryState) -> Log:
        """Of the log, from the cotangent of the memory it is committed to."""
        phi = jnp.einsum("brd,bkd->brk", self.U, d_memory.A)
        gamma = None
        if self.gamma is not None:
            phi = phi + self.gamma[..., None] * d_memory.z[:, None, :]
            gamma = jnp.zeros_like(self.gamma)
        return Log(phi, jnp.einsum("brk,bkd->brd", self.phi, d_memory.A), gamma)


def commit(memory: MemoryState, log: Log, written: jax.Array) -> MemoryState:
    """The memory after everything in the log: ``A + phi^T U``, ``z + gamma phi``."""
    A = memory.A + jnp.einsum("brk,brd->bkd", log.phi, log.U)
    z = memory.z
    if log.gamma is not None:
        z = z + jnp.einsum("br,brk->bk", log.gamma, log.phi)
    return MemoryState(A, z, written)


class Tap(NamedTuple):
    """Zeros added to what one layer of one segment reads, so that their cotangents come out.

    Attributes: of the positions' reads ``[b, n, .]``, and of the keys' ``[b, m, .]``.
    """

    positions: Reads
    keys: Reads


def zero_taps(model: ARMT, chunk: Segment, memory: MemoryState) -> tuple[Tap, ...]:
    """The taps of one segment of a chunk, one for every layer."""
    batch, length = chunk.tokens.shape[1:]
    m, d, dtype = model.config.num_mem_tokens, model.config.d_model, memory.A.dtype

    def zeros(rows: int) -> Reads:
        weights = jnp.zeros((batch, rows), dtype) if model.rule.has_normaliser else None
        return Reads(jnp.zeros((batch, rows, d), dtype), weights)

    return (Tap(zeros(length + m), zeros(m)),) * model.config.n_layer


class ReadLog(NamedTuple):
    """All reads of one layer in a chunk: features and the cotangents of what they read.

    Attributes:
      phi: ``[b, r, k]``.
      values: ``[b, r, d]``.
      weights: ``[b, r]``; None for a rule without ``z``.
    """

    phi: jax.Array
    values: jax.Array
    weights: jax.Array | None

    @classmethod
    def empty(cls, model: ARMT, segments: int, tap: Tap, memory: MemoryState) -> ReadLog:
        """Room for ``segments`` segments."""
        batch, k, d = memory.A.shape
        rows = segments * sum(reads.values.shape[1] for reads in tap)
        dtype = memory.A.dtype
        weights = jnp.zeros((batch, rows), dtype) if model.rule.has_normaliser else None
        return cls(jnp.zeros((batch, rows, k), dtype), jnp.zeros((batch, rows, d), dtype), weights)

    def put(self, index: jax.Array, phi: tuple[jax.Array, jax.Array], tap: Tap) -> ReadLog:
        """With the reads of segment ``index``: what read, and the taps' cotangents."""
        weights = None
        if tap.positions.weights is not None and tap.keys.weights is not None:
            weights = jnp.concatenate([tap.positions.weights, tap.keys.weights], axis=1)
        values = jnp.concatenate([tap.positions.values, tap.keys.values], axis=1)
        new = ReadLog(jnp.concatenate(phi, axis=1), values, weights)
        start = index * new.phi.shape[1]
        put = functools.partial(lax.dynamic_update_slice_in_dim, start_index=start, axis=1)
        return jax.tree.map(put, self, new)

    def add_cotangent(self, d_memory: MemoryState) -> MemoryState:
        """The cotangent of the memory that was read, given that of the memory it becomes."""
        A = d_memory.A + jnp.einsum("brk,brd->bkd", self.phi, self.values)
        z = d_memory.z
        if self.weights is not None:
            z = z + jnp.einsum("brk,br->bk", self.phi, self.weights)
        return MemoryState(A, z, jnp.zeros_like(d_memory.written))


@jax.custom_vjp
def _read_constant(phi: jax.Array, A: jax.Array, transposed: jax.Array) -> jax.Array:
    """``phi A``, of which only ``phi`` has a cotangent; ``transposed [b, d, k]`` makes it fast."""
    del transposed
    return jnp.einsum("bnk,bkd->bnd", phi, A)


def _read_constant_forward(
    phi: jax.Array, A: jax.Array, transposed: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _read_constant(phi, A, transposed), transposed


def _read_constant_backward(transposed: jax.Array, d_values: jax.Array) -> tuple[Any, None, None]:
    return jnp.einsum("bnd,bdk->bnk", d_values, transposed), None, None


_read_constant.defvjp(_read_constant_forward, _read_constant_backward)


def read(
    memory: MemoryState,
    transposed: jax.Array | None,
    log: Log,
    visible: jax.Array | None,
    phi: jax.Array,
    tap: Reads | None,
) -> Reads:
    """What ``phi [b, n, k]`` reads from a memory and the log beside it.

    Args:
      memory: without the log's writes; a constant for the derivative.
      transposed: ``A``'s transpose ``[b, d, k]`` for the backward pass; None: there is none.
      log: the writes.
      visible: ``[r]``, 1 at the rows to read; None where the others are 0 anyway.
      phi: features of queries or keys.
      tap: zeros.
    """
    if transposed is None:
        values = jnp.einsum("bnk,bkd->bnd", phi, memory.A)
    else:
        values = _read_constant(phi, memory.A, transposed)
    seen = jnp.einsum("bnk,brk->bnr", phi, log.phi)
    if visible is not None:
        seen = seen * visible[None, None]
    values = values + jnp.einsum("bnr,brd->bnd", seen, log.U)
    weights = None
    if log.gamma is not None:
        weights = jnp.einsum("bnk,bk->bn", phi, lax.stop_gradient(memory.z))
        weights = weights + jnp.einsum("bnr,br->bn", seen, lax.stop_gradient(log.gamma))
    if tap is not None:
        values = values + tap.values
        weights = None if weights is None or tap.weights is None else weights + tap.weights
    return Reads(values, weights)


def read_segment(
    model: ARMT,
    need_hidden: bool,
    params: Params,
    memories: tuple[MemoryState, ...],
    logs: tuple[Log, ...],
    written: jax.Array,
    segment: Segment,
    *,
    transposed: tuple[jax.Array, ...] | None = None,
    visible: jax.Array | None = None,
    taps: tuple[Tap, ...] | None = None,
) -> tuple[list[Log], jax.Array | None, list[tuple[jax.Array, jax.Array]], jax.Array | None]:
    """One segment, read from memories and their logs; nothing is changed.

    Args:
      model: the model.
      need_hidden: False: hidden states of the tokens are not computed in the last layer.
      params: ``embed``, and ``layers`` as a list.
      memories, logs: of every layer.
      written: ``[b]``, 1 where something was written before this segment.
      segment: ``[b, t]``.
      transposed, taps: for the backward pass, see ``read``.
      visible: number of this segment in its log, whose later rows it does not see; None where
        they are still 0.

    Returns:
      What each layer writes (``Log`` of M rows), the tokens' hidden states ``[b, t, d]`` or None,
      the features that each layer read with (of positions and of keys), and which texts write.
    """
    cfg, rule = model.config, model.rule
    m = cfg.num_mem_tokens
    x, context = model.embed(params, segment)
    mask = None
    if visible is not None:
        mask = (jnp.arange(logs[0].phi.shape[1]) < visible * m).astype(logs[0].phi.dtype)
    rows, readers = [], []
    for l, params_l in enumerate(params["layers"]):
        look = functools.partial(
            read, memories[l], None if transposed is None else transposed[l], logs[l], mask
        )
        tap = (None, None) if taps is None else taps[l]
        phi_q = associative.features(rule, model.query(params_l, x), cfg.nu)
        x = x + associative.normalised(rule, look(phi_q, tap[0])).astype(x.dtype)
        last = m if l == cfg.n_layer - 1 and not need_hidden else None
        x, _ = model.apply_block(params_l, x, context, None, last)
        k, v, beta = model.key_value_gate(params_l, x[:, -m:])
        phi_k = associative.features(rule, k, cfg.nu)
        old = look(phi_k, tap[1])
        change = associative.memory_write(rule, old, written, phi_k, v, beta, context.write)
        rows.append(Log(phi_k, change.rows, change.gamma))
        readers.append((phi_q, phi_k))
    hidden = x[:, : segment.tokens.shape[1]] if need_hidden else None
    return rows, hidden, readers, context.write
