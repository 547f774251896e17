"""Segments in chunks, with the memory's changes kept low-rank: the fast schedule for training.

A segment changes a layer's ``A`` by ``phi_k^T U``, rank M. Inside a chunk of C segments ``A`` is
therefore left as it was, and the chunk's keys and rows are kept beside it:

    read(phi) = phi A_0 + (phi phi_K^T) U,     phi_K [b, C M, k], U [b, C M, d]

and only at the end ``A_C = A_0 + phi_K^T U``. The values are those of the sequential schedule; what
changes is what moves. One segment of the sequential scan reads and writes all of A, and its
backward pass stores A once per segment and adds two matrices of A's size per segment into the
cotangent. Here nothing of A's size is stored or accumulated per segment: the cotangent of ``A_0``
is one product of all the chunk's features with the cotangents of what they read. Those come out
of the ordinary derivative through ``taps``: zeros added to what is read.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from armt_jax.memory import associative
from armt_jax.memory.associative import MemoryState, Reads
from armt_jax.models.armt import ARMT, ArmtState
from armt_jax.models.attention import SegmentContext
from armt_jax.models.protocol import Params, Segment

DEFAULT_CHUNK = 5

# What the backward pass keeps of a segment: products with parameters, and what was read. The rest
# (norms, activations, feature maps, attention weights) is cheap to compute again.
_POLICY = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    jax.checkpoint_policies.save_only_these_names("read"),
)


class _Log(NamedTuple):
    """One layer's writes so far; rows not yet written are 0.

    Attributes:
      keys: ``[b, r, d_mem]``, before the feature map (a sixth of the features under DPFP-3).
      U: ``[b, r, d]``.
      gamma: ``[b, r]``; None for a rule without ``z``.
    """

    keys: jax.Array
    U: jax.Array
    gamma: jax.Array | None


def chunk_length(segments: int, longest: int = DEFAULT_CHUNK) -> int:
    """Segments per chunk, up to ``longest``: the length that costs least.

    A segment of padding costs as much as any other, and a chunk (moving A once, as the sequential
    schedule does for every segment) about as much as a segment. So 50 segments are 10 chunks of 5,
    and 7 are 2 chunks of 4 rather than 7 of 1. Of two equal costs the one that pads less is taken.
    """
    lengths = range(1, min(longest, segments) + 1)
    return min(lengths, key=lambda c: (-(-segments // c) * (c + 1), -(-segments // c) * c))


def run_chunked(
    model: ARMT,
    params: Params,
    state: ArmtState,
    segments: Segment,
    *,
    need_hidden: bool = True,
    longest: int = DEFAULT_CHUNK,
) -> tuple[ArmtState, jax.Array | None]:
    """Read ``segments [s, b, t]`` in chunks of about ``longest``; see ``run_segments``."""
    count = segments.tokens.shape[0]
    length = chunk_length(count, longest)
    chunks = -(-count // length)
    # A segment of padding only writes nothing.
    pad = chunks * length - count

    def fold(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, pad), (0, 0), (0, 0)))
        return x.reshape(chunks, length, *x.shape[1:])

    def body(memories: MemoryState, chunk: Any) -> tuple[MemoryState, jax.Array | None]:
        return _chunk(model, need_hidden, params, memories, chunk)

    memories = MemoryState(*state[:3])
    memories, hidden = lax.scan(body, memories, jax.tree.map(fold, segments))
    if hidden is not None:
        hidden = hidden.reshape(chunks * length, *hidden.shape[2:])[:count]
    return ArmtState(*memories), hidden


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _chunk(
    model: ARMT, need_hidden: bool, params: Params, memories: MemoryState, chunk: Segment
) -> tuple[MemoryState, jax.Array | None]:
    logs, written, hidden, _ = _read_chunk(model, need_hidden, memories, chunk, params, None)
    return _commit(model, memories, logs, written), hidden


def _chunk_forward(
    model: ARMT, need_hidden: bool, params: Params, memories: MemoryState, chunk: Segment
) -> tuple[Any, Any]:
    taps = _zero_taps(model, chunk, memories)

    def run(params: Params, taps: Any) -> tuple[Any, Any]:
        logs, written, hidden, readers = _read_chunk(
            model, need_hidden, memories, chunk, params, taps
        )
        return (logs, hidden), (written, readers)

    (logs, hidden), pullback, (written, readers) = jax.vjp(run, params, taps, has_aux=True)
    return (_commit(model, memories, logs, written), hidden), (pullback, logs, readers)


def _chunk_backward(model: ARMT, need_hidden: bool, residuals: Any, cotangents: Any) -> Any:
    pullback, logs, readers = residuals
    (d_A, d_z, _), d_hidden = cotangents
    phi_k, to_keys = jax.vjp(lambda keys: _features(model, keys), logs.keys)
    d_phi_k = jnp.einsum("lbrd,lbkd->lbrk", logs.U, d_A)
    if logs.gamma is not None:
        d_phi_k = d_phi_k + logs.gamma[..., None] * d_z[:, :, None, :]
    d_logs = _Log(
        keys=to_keys(d_phi_k)[0],
        U=jnp.einsum("lbrk,lbkd->lbrd", phi_k, d_A),
        gamma=None if logs.gamma is None else jnp.zeros_like(logs.gamma),
    )
    d_params, d_taps = pullback((d_logs, d_hidden))
    for reader, tap in zip(readers, d_taps, strict=True):
        phi = _features(model, reader)
        # All reads of all segments of the chunk at once: [c, l, b, n, .] -> [l, b, k, d].
        d_A = d_A + jnp.einsum("clbnk,clbnd->lbkd", phi, tap.values)
        if tap.weights is not None:
            d_z = d_z + jnp.einsum("clbnk,clbn->lbk", phi, tap.weights)
    written = jnp.zeros(d_A.shape[:2], d_A.dtype)
    return d_params, MemoryState(d_A, d_z, written), None


_chunk.defvjp(_chunk_forward, _chunk_backward)


def _features(model: ARMT, x: jax.Array) -> jax.Array:
    return associative.features(model.rule, x, model.config.nu)


def _commit(model: ARMT, memories: MemoryState, logs: _Log, written: jax.Array) -> MemoryState:
    phi_k = _features(model, logs.keys)
    A = memories.A + jnp.einsum("lbrk,lbrd->lbkd", phi_k, logs.U)
    z = memories.z
    if logs.gamma is not None:
        z = z + jnp.einsum("lbr,lbrk->lbk", logs.gamma, phi_k)
    return MemoryState(A, z, written)


def _zero_taps(model: ARMT, chunk: Segment, memories: MemoryState) -> tuple[Reads, Reads]:
    count, batch, length = chunk.tokens.shape
    memory = model.config.num_mem_tokens
    has_z = model.rule.has_normaliser

    def zeros(rows: int) -> Reads:
        shape = (count, model.config.n_layer, batch, rows)
        values = jnp.zeros((*shape, model.config.d_model), memories.A.dtype)
        return Reads(values, jnp.zeros(shape, memories.A.dtype) if has_z else None)

    return zeros(length + memory), zeros(memory)


def _read_chunk(
    model: ARMT,
    need_hidden: bool,
    memories: MemoryState,
    chunk: Segment,
    params: Params,
    taps: Any,
) -> tuple[_Log, jax.Array, jax.Array | None, Any]:
    """Logs ``[l, b, c m, .]``, ``written``, hidden ``[c, b, t, d]``, what read before ``phi``."""
    cfg, rule = model.config, model.rule
    count, batch, length = chunk.tokens.shape
    rows, dtype = count * cfg.num_mem_tokens, memories.A.dtype
    layers = [jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"]) for i in range(cfg.n_layer)]
    empty = _Log(
        jnp.zeros((batch, rows, cfg.d_mem), model.compute_dtype(params)),
        jnp.zeros((batch, rows, cfg.d_model), dtype),
        jnp.zeros((batch, rows), dtype) if rule.has_normaliser else None,
    )

    def segment(carry: Any, scanned: Any) -> tuple[Any, Any]:
        logs, written = carry
        index, piece, tap = scanned
        x, context = model.embed(params, piece)
        out_logs, readers = [], []
        for l, params_l in enumerate(layers):
            memory = MemoryState(memories.A[l], memories.z[l], written)
            last = cfg.num_mem_tokens if l == cfg.n_layer - 1 and not need_hidden else None
            tap_l = None if tap is None else jax.tree.map(lambda leaf, l=l: leaf[l], tap)
            x, log, reader = _layer(
                model, params_l, memory, logs[l], tap_l, x, context, index, last
            )
            out_logs.append(log)
            readers.append(reader)
        written = associative.mark_written(written, context.write)
        hidden = x[:, :length] if need_hidden else None
        kept = None if tap is None else jax.tree.map(lambda *p: jnp.stack(p), *readers)
        return (out_logs, written), (hidden, kept)

    body = jax.checkpoint(segment, policy=_POLICY, prevent_cse=False)
    carry = ([empty] * cfg.n_layer, memories.written[0])
    (logs, written), (hidden, readers) = lax.scan(body, carry, (jnp.arange(count), chunk, taps))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *logs)
    return stacked, jnp.broadcast_to(written[None], memories.written.shape), hidden, readers


def _layer(
    model: ARMT,
    params_l: Params,
    memory: MemoryState,
    log: _Log,
    taps: Any,
    x: jax.Array,
    context: SegmentContext,
    index: jax.Array,
    last: int | None,
) -> tuple[jax.Array, _Log, Any]:
    rule = model.rule
    tap_q, tap_k = (None, None) if taps is None else taps
    q = model.query(params_l, x)
    phi_q = _features(model, q)
    x = x + associative.normalised(rule, _read(model, memory, log, phi_q, tap_q)).astype(x.dtype)
    x, _ = model.apply_block(params_l, x, context, None, last)
    k, v, beta = model.key_value_gate(params_l, x[:, -model.config.num_mem_tokens :])
    phi_k = _features(model, k)
    old = _read(model, memory, log, phi_k, tap_k)
    change = associative.memory_write(rule, old, memory.written, phi_k, v, beta, context.write)
    start = index * phi_k.shape[1]
    put = functools.partial(lax.dynamic_update_slice_in_dim, start_index=start, axis=1)
    gamma = None if change.gamma is None or log.gamma is None else put(log.gamma, change.gamma)
    log = _Log(put(log.keys, k), put(log.U, change.rows), gamma)
    return x, log, (q, k)


def _read(model: ARMT, memory: MemoryState, log: _Log, phi: jax.Array, tap: Reads | None) -> Reads:
    # A_0 and z_0 are constants here: their cotangents are made from the taps', once per chunk.
    start = associative.read(model.rule, jax.tree.map(lax.stop_gradient, memory), phi)
    seen = jnp.einsum("bnk,brk->bnr", phi, _features(model, log.keys))
    values = start.values + jnp.einsum("bnr,brd->bnd", seen, log.U)
    weights = start.weights
    if weights is not None and log.gamma is not None:
        weights = weights + jnp.einsum("bnr,br->bn", seen, lax.stop_gradient(log.gamma))
    if tap is not None:
        values = values + tap.values
        weights = None if weights is None or tap.weights is None else weights + tap.weights
    return Reads(
        checkpoint_name(values, "read"),
        None if weights is None else checkpoint_name(weights, "read"),
    )
