"""Segments in chunks, with the memory's changes kept low-rank: the fast schedule for training.

A segment changes a layer's ``A`` by ``phi_k^T U``, rank M. Inside a chunk of C segments ``A`` is
therefore left as it was, and the chunk's keys and rows are kept beside it:

    read(phi) = phi A_0 + (phi phi_K^T) U,     phi_K [b, C M, k], U [b, C M, d]

and only at the end ``A_C = A_0 + phi_K^T U``. The values are those of the sequential schedule; what
changes is what moves. Nothing of A's size is stored or accumulated per segment: the cotangent of
``A_0`` is one product of all that the chunk read with, and the cotangents of what was read, which
come out of the ordinary derivative through ``taps``: zeros added to what is read.

The backward pass keeps a chunk's log and nothing of its activations. It walks the chunk's segments
in reverse and computes each again from the finished log, of which segment i sees the first ``i M``
rows: forward and backward of one segment are one program whose intermediate values stay in cache.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from armt_jax.memory.associative import MemoryState, mark_written
from armt_jax.models.armt import ARMT, ArmtState
from armt_jax.models.precision import at_model_precision
from armt_jax.models.protocol import Params, Segment
from armt_jax.recurrence.low_rank import Log, ReadLog, Tap, commit, read_segment, zero_taps
from armt_jax.recurrence.rematerialisation import scan_blocks
from armt_jax.recurrence.truncation import goes_on, gradient_if

DEFAULT_CHUNK = 5


def chunk_length(segments: int, longest: int = DEFAULT_CHUNK) -> int:
    """Segments per chunk, up to ``longest``: the length that costs least.

    A segment of padding costs as much as any other, and a chunk (moving A once, as the sequential
    schedule does for every segment) about as much as a segment. So 50 segments are 10 chunks of 5,
    and 7 are 2 chunks of 4 rather than 7 of 1. Of two equal costs the one that pads less is taken.
    """
    lengths = range(1, min(longest, segments) + 1)
    return min(lengths, key=lambda c: (-(-segments // c) * (c + 1), -(-segments // c) * c))


def chunk_layout(
    segments: int, bptt: int = 0, longest: int = DEFAULT_CHUNK
) -> tuple[np.ndarray, np.ndarray | None]:
    """Which segments each chunk reads, ``[chunks, length]``; ``segments`` stands for padding.

    No chunk crosses the border of a window of ``bptt`` segments: every window is padded to whole
    chunks by itself.

    Returns:
      The layout; and ``[chunks]`` bool, see ``truncation.goes_on``, None where all do.
    """
    window = segments if bptt == 0 else min(bptt, segments)
    length = chunk_length(window, longest)
    rows = []
    for start in range(0, segments, window):
        stop = min(start + window, segments)
        padded = -(-(stop - start) // length) * length
        index = np.full(padded, segments)
        index[: stop - start] = np.arange(start, stop)
        rows.append(index.reshape(-1, length))
    layout = np.concatenate(rows)
    live = goes_on(segments, bptt)
    return layout, None if live is None else live[layout[:, 0]]


def run_chunked(
    model: ARMT,
    params: Params,
    state: ArmtState,
    segments: Segment,
    *,
    need_hidden: bool = True,
    remat: str = "none",
    bptt: int = 0,
    longest: int = DEFAULT_CHUNK,
) -> tuple[ArmtState, jax.Array | None]:
    """Read ``segments [s, b, t]`` in chunks of about ``longest``; see ``run_segments``.

    A chunk's activations are computed again in any case, so ``none`` and ``segment`` are the same:
    one state and one log are kept per chunk. With ``sqrt``, per block of chunks.
    """
    count = segments.tokens.shape[0]
    layout, live = chunk_layout(count, bptt, longest)

    def fold(x: jax.Array) -> jax.Array:
        # A segment of padding only writes nothing.
        return jnp.pad(x, ((0, 1), (0, 0), (0, 0)))[layout]

    # Layers apart: a stack would be sliced in every segment, and its cotangent put together again.
    layers = range(model.config.n_layer)
    apart = [jax.tree.map(lambda leaf, l=l: leaf[l], params["layers"]) for l in layers]
    used = {"embed": params["embed"], "layers": apart}
    memories = tuple(MemoryState(state.A[l], state.z[l], state.written[l]) for l in layers)

    def body(memories: Any, scanned: Any) -> tuple[Any, jax.Array | None]:
        chunk, live = scanned
        if live is not None:
            memories = gradient_if(live, memories)
        return _chunk(model, need_hidden, used, memories, chunk)

    scan = scan_blocks if remat == "sqrt" else lax.scan
    memories, hidden = scan(body, memories, (jax.tree.map(fold, segments), live))
    if hidden is not None:
        hidden = hidden.reshape(layout.size, *hidden.shape[2:])
        places = np.flatnonzero(layout < count)
        hidden = hidden[:count] if places[-1] == count - 1 else hidden[places]
    return ArmtState(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *memories)), hidden


class _Residuals(NamedTuple):
    """What the backward pass of a chunk needs.

    Attributes:
      params, memories, chunk: the chunk's inputs.
      logs: of every layer, as the chunk left them.
      written: ``[c, b]``, whether anything was written before each segment.
    """

    params: Params
    memories: tuple[MemoryState, ...]
    chunk: Segment
    logs: tuple[Log, ...]
    written: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _chunk(
    model: ARMT,
    need_hidden: bool,
    params: Params,
    memories: tuple[MemoryState, ...],
    chunk: Segment,
) -> tuple[tuple[MemoryState, ...], jax.Array | None]:
    return _chunk_forward(model, need_hidden, params, memories, chunk)[0]


@at_model_precision
def _chunk_forward(
    model: ARMT,
    need_hidden: bool,
    params: Params,
    memories: tuple[MemoryState, ...],
    chunk: Segment,
) -> tuple[tuple[tuple[MemoryState, ...], jax.Array | None], _Residuals]:
    count = chunk.tokens.shape[0]

    def segment(carry: Any, scanned: Any) -> tuple[Any, Any]:
        logs, written = carry
        index, piece = scanned
        rows, hidden, _, write = read_segment(
            model, need_hidden, params, memories, logs, written, piece
        )
        logs = tuple(log.put(index, new) for log, new in zip(logs, rows, strict=True))
        return (logs, mark_written(written, write)), (hidden, written)

    empty = tuple(Log.empty(model, count, memory) for memory in memories)
    carry = (empty, memories[0].written)
    (logs, written), (hidden, before) = lax.scan(segment, carry, (jnp.arange(count), chunk))
    after = tuple(commit(memory, log, written) for memory, log in zip(memories, logs, strict=True))
    return (after, hidden), _Residuals(params, memories, chunk, logs, before)


@at_model_precision
def _chunk_backward(
    model: ARMT, need_hidden: bool, residuals: _Residuals, cotangents: Any
) -> tuple[Params, tuple[MemoryState, ...], None]:
    params, memories, chunk, logs, written = residuals
    d_memories, d_hidden = cotangents
    count = chunk.tokens.shape[0]
    transposed = tuple(memory.A.swapaxes(1, 2) for memory in memories)
    taps = zero_taps(model, chunk, memories[0])

    def segment(carry: Any, scanned: Any) -> tuple[Any, None]:
        d_params, d_logs, read_logs = carry
        index, piece, d_hidden, written = scanned

        def run(params: Params, logs: tuple[Log, ...], taps: tuple[Tap, ...]) -> tuple[Any, Any]:
            rows, hidden, readers, _ = read_segment(
                model,
                need_hidden,
                params,
                memories,
                logs,
                written,
                piece,
                transposed=transposed,
                visible=index,
                taps=taps,
            )
            return ([(row.phi, row.U) for row in rows], hidden), readers

        _, pullback, readers = jax.vjp(run, params, logs, taps, has_aux=True)
        d_rows = [d_log.take(index, model.config.num_mem_tokens) for d_log in d_logs]
        d_run, d_seen, d_taps = pullback((d_rows, d_hidden))
        add = functools.partial(jax.tree.map, jnp.add)
        read_logs = tuple(
            log.put(index, reader, tap)
            for log, reader, tap in zip(read_logs, readers, d_taps, strict=True)
        )
        return (add(d_params, d_run), add(d_logs, d_seen), read_logs), None

    carry = (
        jax.tree.map(jnp.zeros_like, params),
        tuple(log.cotangent(d) for log, d in zip(logs, d_memories, strict=True)),
        tuple(
            ReadLog.empty(model, count, tap, memory)
            for tap, memory in zip(taps, memories, strict=True)
        ),
    )
    scanned = (jnp.arange(count), chunk, d_hidden, written)
    (d_params, _, read_logs), _ = lax.scan(segment, carry, scanned, reverse=True)
    d_memories = tuple(log.add_cotangent(d) for log, d in zip(read_logs, d_memories, strict=True))
    return d_params, d_memories, None


_chunk.defvjp(_chunk_forward, _chunk_backward)
