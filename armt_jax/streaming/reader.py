"""A reader that is fed tokens as they come and keeps nothing but the memory and a segment's rest.

    reader = StreamReader(model, params, segment_size=512)
    state = reader.start(batch_size=1)
    for tokens in blocks:                      # [b, n], any n
        state = reader.feed(state, tokens)
    memory = reader.finish(state)              # what forward() leaves: left-aligned segments

One program is compiled per batch size, for a block of segments, and one for the last segment; the
number of segments in a block and the length of the last one are values, not shapes. The memory is
donated: it is updated in place, and a state that was fed must not be used again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from armt_jax.config import ConfigError
from armt_jax.host_memory import release_freed_memory
from armt_jax.models.armt import ARMT, ArmtState
from armt_jax.models.layers import unstack_layers
from armt_jax.models.protocol import Params, Segment, SegmentModel, State
from armt_jax.recurrence.run import check_mask, check_tokens
from armt_jax.recurrence.segmenting import (
    check_overlap,
    count_overlapping,
    front_padding,
    overlapping,
)
from armt_jax.recurrence.wavefront import check_mesh, read_wavefront
from armt_jax.sharding import replicated


class StreamState(NamedTuple):
    """How far a text has been read.

    Attributes:
      memory: the model's state after the last complete segment, on the device.
      tokens, mask: ``[b, r]`` numpy, the beginning of the next segment; what it does not repeat of
        the last one is not yet in the memory.
      tokens_read: tokens fed so far, to each text (padding counts).
      ticket: ready when ``memory`` is.
    """

    memory: State
    tokens: np.ndarray
    mask: np.ndarray
    tokens_read: int
    ticket: jax.Array


class StreamReader:
    """Feeds texts to one model with one set of parameters.

    Attributes:
      model, params: what reads; the layers of ``params`` apart (``unstack_layers``).
      segment_size: tokens of a segment.
      segment_overlap: tokens of it that repeat the last ones of the segment before.
      block_segments: segments that one call of the compiled program reads at most.
    """

    def __init__(
        self,
        model: SegmentModel,
        params: Params,
        *,
        segment_size: int,
        segment_overlap: int = 0,
        block_segments: int = 32,
        mesh: Mesh | None = None,
    ) -> None:
        """``params`` as ``model.init`` gives them.

        With a ``mesh`` of an axis ``context`` the tokens of every segment are shared out over its
        devices (``recurrence.wavefront``); None: one device reads.

        Raises:
          ConfigError: sizes below 1, an overlap of a whole segment, a segment longer than the
            model's positions, a mesh that the model or the segment cannot be shared out over.
        """
        for name, value in (("segment_size", segment_size), ("block_segments", block_segments)):
            if value < 1:
                raise ConfigError(f"{name} = {value}: must be at least 1")
        model.config.check_segment(segment_size)
        check_overlap(segment_size, segment_overlap)
        self.segment_overlap = segment_overlap
        self.model, self.segment_size, self.block_segments = model, segment_size, block_segments
        self.params, self._everywhere = unstack_layers(params), None
        read = functools.partial(_read_alone, model, segment_size)
        if mesh is not None:
            shared_model = check_mesh(mesh, model, segment_size)
            read = functools.partial(_read_shared, shared_model, mesh, segment_size)
            self._everywhere = replicated(mesh)
            self.params = jax.device_put(self.params, self._everywhere)
        self._read, self._compiled = jax.jit(read, donate_argnums=1), False
        self._last = jax.jit(model.write)

    def start(self, batch_size: int) -> StreamState:
        """Nothing read yet, by ``batch_size`` texts.

        Raises:
          ConfigError: an empty batch.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size = {batch_size}: must be at least 1")
        empty = np.zeros((batch_size, 0), np.int32)
        memory = self.model.init_state(batch_size)
        if self._everywhere is not None:
            memory = jax.device_put(memory, self._everywhere)
        return StreamState(memory, empty, empty.astype(bool), 0, jnp.zeros((), jnp.int32))

    def feed(
        self, state: StreamState, tokens: np.ndarray, mask: np.ndarray | None = None
    ) -> StreamState:
        """Read more of each text.

        Returns while the device still computes, one block ahead at most, so that the next tokens
        can be made in the meantime.

        Args:
          state: from ``start``, ``feed`` or ``load_stream``; its memory is donated.
          tokens: ``[b, n]`` integer ids, any ``n``.
          mask: ``[b, n]`` bool, False at padding.

        Returns:
          The state after all complete segments of what has been fed.

        Raises:
          ConfigError: ids outside the vocabulary, another batch size, a mask of another shape, a
            state that was fed before, a text that has become longer than the model reads.
        """
        self._check_unfed(state)
        tokens, mask = self._checked(state, tokens, mask)
        read = state.tokens_read + tokens.shape[1]
        self.model.config.check_text(read)
        tokens = np.concatenate([state.tokens, tokens], axis=1)
        mask = np.concatenate([state.mask, mask], axis=1)
        memory, ticket = state.memory, state.ticket
        size, overlap = self.segment_size, self.segment_overlap
        total = count_overlapping(tokens.shape[1], size, overlap)
        for first in range(0, total, self.block_segments):
            count = min(self.block_segments, total - first)
            start, stop = first * self.stride, (first + count) * self.stride + overlap
            parts = (
                overlapping(x[:, start:stop], size, overlap).reshape(x.shape[0], -1)
                for x in (tokens, mask)
            )
            block = Segment(*(_fill(x, self.block_segments * size) for x in parts))
            earlier = ticket
            memory, ticket = self._read_block(memory, block, count)
            # Without a limit the host would queue the whole text's blocks.
            earlier.block_until_ready()
        read_whole = total * self.stride
        return StreamState(memory, tokens[:, read_whole:], mask[:, read_whole:], read, ticket)

    def _read_block(self, memory: State, block: Segment, count: int) -> tuple[State, jax.Array]:
        """A block; compiling, at the first one, is the peak of a reader's host memory."""
        if self._compiled:
            return self._read(self.params, memory, block, np.int32(count))
        release_freed_memory()  # what making the parameters left
        result = self._read(self.params, memory, block, np.int32(count))
        release_freed_memory()
        self._compiled = True
        return result

    def feed_all(self, state: StreamState, blocks: Iterable[np.ndarray]) -> StreamState:
        """``feed`` of every block that a lazy text yields."""
        for tokens in blocks:
            state = self.feed(state, tokens)
        return state

    def finish(self, state: StreamState) -> State:
        """The memory after the whole text, its last and shorter segment included.

        ``state`` is not donated: it can be fed on, as if the text had not ended here.
        """
        rest = state.tokens.shape[1]
        self._check_unfed(state)
        if self.unread(state) == 0:  # a copy: the next feed takes the state's own
            return jax.tree.map(jnp.copy, state.memory)
        last = Segment(
            _fill(state.tokens, self.segment_size),
            _fill(state.mask, self.segment_size),
            jnp.full((state.tokens.shape[0],), rest, jnp.int32),
        )
        return self._last(self.params, state.memory, last)

    @property
    def stride(self) -> int:
        """Tokens from the beginning of a segment to that of the next."""
        return self.segment_size - self.segment_overlap

    def unread(self, state: StreamState) -> int:
        """Tokens of each text that are in no segment yet."""
        rest = state.tokens.shape[1]
        return rest - self.segment_overlap if state.tokens_read > rest else rest

    def padding(self, state: StreamState, length: int) -> int:
        """Tokens to feed before ``length`` more so that whole segments hold all of them."""
        held = state.tokens.shape[1]
        return front_padding(length, self.segment_size, self.segment_overlap, held)

    def until_block(self, fed: int) -> int:
        """Tokens from the first ``fed`` of a text on to where a call's block of segments ends."""
        block, begun = self.block_segments * self.stride, fed - self.segment_overlap
        return block - begun if begun < 0 else block - begun % block

    def _check_unfed(self, state: StreamState) -> None:
        if any(leaf.is_deleted() for leaf in jax.tree.leaves(state.memory)):
            raise ConfigError(
                f"state at {state.tokens_read} tokens: was fed already, and feeding updates the "
                "memory in place; go on from what feed returned, or from a saved state"
            )

    def _checked(
        self, state: StreamState, tokens: np.ndarray, mask: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        batch = state.tokens.shape[0]
        tokens = np.asarray(tokens)
        if tokens.ndim == 2 and tokens.shape[1] == 0 and tokens.shape[0] == batch:
            return tokens.astype(np.int32), tokens.astype(bool)
        if tokens.ndim == 2 and tokens.shape[0] != batch:
            raise ConfigError(f"tokens of {tokens.shape[0]} texts: must be of {batch}, the state's")
        check_tokens(tokens, self.model.config.vocab_size)
        check_mask(mask, tokens)
        mask = np.ones(tokens.shape, bool) if mask is None else np.asarray(mask, bool)
        return tokens.astype(np.int32), mask


def _read_alone(
    model: SegmentModel, size: int, params: Params, memory: State, block: Segment, count: jax.Array
) -> tuple[State, jax.Array]:
    def body(index: jax.Array, memory: State) -> State:
        cut = functools.partial(lax.dynamic_slice_in_dim, start_index=index * size, slice_size=size)
        segment = Segment(cut(block.tokens, axis=1), cut(block.mask, axis=1))
        return model.write(params, memory, segment)

    return lax.fori_loop(0, count, body, memory), count


def _read_shared(
    model: ARMT,
    mesh: Mesh,
    size: int,
    params: Params,
    memory: ArmtState,
    block: Segment,
    count: jax.Array,
) -> tuple[State, jax.Array]:
    return read_wavefront(model, mesh, size, params, memory, block, count), count


def _fill(x: np.ndarray, length: int) -> jax.Array:
    return jnp.asarray(np.pad(x, ((0, 0), (0, length - x.shape[1]))))
