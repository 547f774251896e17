"""The endless training stream of contexts: pass after pass, each in an order of its own."""

from __future__ import annotations

import functools
import hashlib

import numpy as np

from armt_jax.tasks.language_modelling.contexts import Context, Contexts
from armt_jax.tasks.stream import NUM_SAMPLES, TrainStream, open_stream


class ShuffledContexts:
    """Contexts as a Grain random-access source: ``source[i]`` is pure.

    Of ``n`` contexts ``source[0]`` to ``source[n - 1]`` are each one once, the next ``n`` again.
    """

    def __init__(self, contexts: Contexts, stream: int) -> None:
        self._contexts = contexts
        self._stream = stream

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> Context:
        reading, place = divmod(index, len(self._contexts))
        return self._contexts[int(_order(self._stream, reading, len(self._contexts))[place])]


def context_stream(
    contexts: Contexts,
    seed: int,
    batch_size: int,
    *,
    start: int = 0,
    num_workers: int = 0,
    stage: int = 0,
    shard_index: int = 0,
    shard_count: int = 1,
) -> TrainStream:
    """Endless batches of ``Context``, from batch ``start`` on.

    Arguments and errors as in ``tasks.stream.train_stream``. The batches are a function of the
    contexts, the seed, the stage and their number alone.
    """
    source = ShuffledContexts(contexts, stream_key(seed, stage))
    return open_stream(
        source,
        batch_size,
        start=start,
        num_workers=num_workers,
        shard_index=shard_index,
        shard_count=shard_count,
    )


def stream_key(seed: int, stage: int) -> int:
    """A 64-bit name for a training stream: neighbouring seeds share nothing."""
    text = f"language-modelling-train {int(seed)} {int(stage)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


# Two: the batch at the border of two passes needs both.
@functools.lru_cache(maxsize=2)
def _order(stream: int, reading: int, count: int) -> np.ndarray:
    bits = np.random.Philox(key=np.array([stream, reading], np.uint64))
    return np.random.Generator(bits).permutation(count)
