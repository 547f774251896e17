"""Endless training examples of BABILong: a Grain source, any example by its number."""

from __future__ import annotations

import hashlib

from armt_jax.tasks.babilong.examples import ExampleMaker, ForkedExample, SequenceExample
from armt_jax.tasks.babilong.sample import sample_rng
from armt_jax.tasks.stream import NUM_SAMPLES, TrainStream, open_stream


class ExampleSource:
    """One stream of examples as a Grain random-access source: ``source[i]`` is pure."""

    def __init__(self, maker: ExampleMaker, stream: int, forked: bool) -> None:
        self._maker, self._stream, self._forked = maker, stream, forked

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> ForkedExample | SequenceExample:
        rng = sample_rng(self._stream, index)
        return self._maker.forked(rng) if self._forked else self._maker.sequence(rng)


def babilong_stream(
    maker: ExampleMaker,
    seed: int,
    batch_size: int,
    *,
    forked: bool = True,
    start: int = 0,
    num_workers: int = 0,
    stage: int = 0,
    shard_index: int = 0,
    shard_count: int = 1,
) -> TrainStream:
    """Endless batches, from batch ``start`` on; the arguments of ``tasks.stream.train_stream``.

    Returns:
      Iterator of ``ForkedExample`` (or ``SequenceExample``) with a leading axis; ``get_state`` and
      ``set_state`` as there.

    Raises:
      ConfigError: a number out of range, or a batch that the shards do not divide.
    """
    source = ExampleSource(maker, stream_key(seed, stage), forked)
    return open_stream(
        source,
        batch_size,
        start=start,
        num_workers=num_workers,
        shard_index=shard_index,
        shard_count=shard_count,
    )


def stream_key(seed: int, stage: int = 0, purpose: str = "train") -> int:
    """A 64-bit name for a stream of examples: neighbouring seeds share nothing."""
    text = f"babilong-{purpose} {int(seed)} {int(stage)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
