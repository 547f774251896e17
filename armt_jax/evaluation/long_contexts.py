"""Reading contexts of any length into memories, a block at a time, and going on after a stop.

Training has padding in front of a context that is no whole number of segments; so has reading here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from armt_jax.config import ConfigError
from armt_jax.models.protocol import State
from armt_jax.recurrence.segmenting import front_padding
from armt_jax.streaming import StreamReader, StreamState, load_stream, save_stream


class Context(Protocol):
    """A text that can be read in parts: ``BabilongSample`` is one."""

    num_tokens: int

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens ``start`` to ``stop``, integer ``[stop - start]``."""
        ...


def read_contexts(
    reader: StreamReader,
    contexts: Sequence[Context],
    *,
    pad_token: int = 0,
    on_block: Callable[[int], None] | None = None,
    snapshot: str | os.PathLike[str] | None = None,
    snapshot_tokens: int = 5_000_000,
) -> State:
    """The memories of ``contexts``, all of one length, read side by side: a state of that batch.

    While the device reads one block the next one is made. Nothing of the length of a context is
    ever in memory.

    Args:
      reader: of the model.
      contexts: of equal ``num_tokens``.
      pad_token: any id of the vocabulary; it is masked.
      on_block: is called with the tokens read so far of each context.
      snapshot: a file in which the state is kept every ``snapshot_tokens`` of each context; where
        it is there already, reading goes on from it. It is removed at the end. The caller names it
        after what is read.
      snapshot_tokens: see ``snapshot``.

    Raises:
      ConfigError: no context, several lengths, a snapshot of another model or batch.
    """
    lengths = {context.num_tokens for context in contexts}
    if len(lengths) != 1:
        raise ConfigError(
            f"contexts of {sorted(lengths)} tokens: must be one or more of one length"
        )
    total = lengths.pop()
    padding = front_padding(total, reader.segment_size, reader.segment_overlap)
    state = _start(reader, len(contexts), pad_token, padding, snapshot)
    state = read_on(
        reader,
        state,
        contexts,
        total,
        padding=padding,
        on_block=on_block,
        snapshot=snapshot,
        snapshot_tokens=snapshot_tokens,
    )
    memory = reader.finish(state)
    if snapshot is not None:
        Path(snapshot).unlink(missing_ok=True)
    return memory


def read_on(
    reader: StreamReader,
    state: StreamState,
    contexts: Sequence[Context],
    stop: int,
    *,
    padding: int = 0,
    on_block: Callable[[int], None] | None = None,
    snapshot: str | os.PathLike[str] | None = None,
    snapshot_tokens: int = 5_000_000,
) -> StreamState:
    """``state`` after token ``stop`` of each context; what it has read already is not read again.

    Args:
      reader, contexts, on_block, snapshot, snapshot_tokens: as in ``read_contexts``; the file stays
        where it is.
      state: of a reading of these contexts; its memory is donated.
      stop: tokens of each context.
      padding: tokens that were fed before the first one.
    """
    done = saved = state.tokens_read - padding
    while done < stop:
        until = min(done + reader.until_block(done + padding), stop)
        tokens = np.stack([context.read(done, until) for context in contexts])
        state, done = reader.feed(state, tokens), until
        if on_block is not None:
            on_block(done)
        if snapshot is not None and done - saved >= snapshot_tokens and done < stop:
            save_stream(snapshot, reader, state)
            saved = done
    return state


def _start(
    reader: StreamReader,
    batch: int,
    pad_token: int,
    padding: int,
    snapshot: str | os.PathLike[str] | None,
) -> StreamState:
    if snapshot is not None and Path(snapshot).is_file():
        state = load_stream(snapshot, reader)
        if state.tokens.shape[0] != batch:
            raise ConfigError(
                f"{snapshot}: is a reading of {state.tokens.shape[0]} texts, not of {batch}; "
                "delete it to read from the beginning"
            )
        return state
    front = np.full((batch, padding), pad_token, np.int32)
    return reader.feed(reader.start(batch), front, np.zeros(front.shape, bool))
