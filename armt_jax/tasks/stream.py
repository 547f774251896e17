"""The endless training stream: seeded, random access, resumable from one number.

Sample ``i`` depends on the task's settings, the seed, the stage and ``i`` only, so neither the
number of worker processes nor that of the machines changes what a batch holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grain.python as grain

from armt_jax.config import ConfigError
from armt_jax.tasks.associative_retrieval import AssociativeRetrieval, Sample, stream_key

# "Endless" for Grain, whose sources have a length: a million samples a second, for 140,000 years.
NUM_SAMPLES = 2**62
# Batches made ahead of time, by each worker process or by the one reading thread.
_BATCHES_AHEAD = 2


class SampleSource:
    """The samples of one stream as a Grain random-access source: ``source[i]`` is pure."""

    def __init__(self, task: AssociativeRetrieval, stream: int) -> None:
        self._task = task
        self._stream = stream

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> Sample:
        return self._task.sample_at(self._stream, index)


class TrainStream(Iterator[Any]):
    """Iterator of batches; build it with ``train_stream``.

    Its state is the number of the next batch and nothing of Grain's: a run may be resumed with
    another number of workers. Worker processes start at the first ``next``.
    """

    def __init__(self, batches: grain.MapDataset, num_workers: int, start: int) -> None:
        self._batches = batches
        self._num_workers = num_workers
        self._next_batch = start
        self._iterator: grain.DatasetIterator | None = None

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = self._open()
        batch = next(self._iterator)
        self._next_batch += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """JSON-serialisable position: ``{'next_batch': number}``."""
        return {"next_batch": self._next_batch}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a position ``get_state`` gave.

        Raises:
          ConfigError: not such a position.
        """
        position = state.get("next_batch")
        if set(state) != {"next_batch"} or not isinstance(position, int):
            raise ConfigError(f"stream state = {state!r}: must be {{'next_batch': number}}")
        _at_least("stream state next_batch", position, 0)
        self.close()
        self._next_batch = position

    def close(self) -> None:
        """End the worker processes; a later ``next`` starts new ones at the same position."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _open(self) -> grain.DatasetIterator:
        reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_BATCHES_AHEAD)
        batches = self._batches[self._next_batch :].to_iter_dataset(reading)
        if self._num_workers:
            options = grain.MultiprocessingOptions(
                num_workers=self._num_workers, per_worker_buffer_size=_BATCHES_AHEAD
            )
            batches = batches.mp_prefetch(options)
        return iter(batches)


def train_stream(
    task: AssociativeRetrieval,
    seed: int,
    batch_size: int,
    start: int = 0,
    num_workers: int = 0,
    stage: int = 0,
    shard_index: int = 0,
    shard_count: int = 1,
) -> TrainStream:
    """Endless batches of the training split, from batch ``start`` on.

    Args:
      task: sizes of the contexts.
      seed: of the run; other seeds, other samples.
      batch_size: contexts of a global batch. With shards each gets
        ``batch_size / shard_count`` of them, and batch ``n`` of the shards, concatenated in
        order, is batch ``n`` of the undivided stream.
      start: number of the first batch.
      num_workers: worker processes of this shard, 0 for a thread. Grain's workers need absl
        flags to be parsed.
      stage: of the curriculum; each has samples of its own.
      shard_index, shard_count: this process among those that read the stream.

    Returns:
      Iterator of ``Batch``: arrays of ``Sample`` with a leading axis.

    Raises:
      ConfigError: a number out of range, or a batch that the shards do not divide.
    """
    source = SampleSource(task, stream_key(task, "train", seed, stage))
    return open_stream(
        source,
        batch_size,
        start=start,
        num_workers=num_workers,
        shard_index=shard_index,
        shard_count=shard_count,
    )


def open_stream(
    source: Any,
    batch_size: int,
    *,
    start: int = 0,
    num_workers: int = 0,
    shard_index: int = 0,
    shard_count: int = 1,
) -> TrainStream:
    """Batches of a random-access ``source`` of ``NUM_SAMPLES``; see ``train_stream``.

    Raises:
      ConfigError: a number out of range, or a batch that the shards do not divide.
    """
    _at_least("batch_size", batch_size, 1)
    _at_least("start", start, 0)
    _at_least("num_workers", num_workers, 0)
    _at_least("shard_count", shard_count, 1)
    if not 0 <= shard_index < shard_count:
        raise ConfigError(f"shard_index = {shard_index}: must be in [0, {shard_count})")
    if batch_size % shard_count:
        raise ConfigError(
            f"batch_size = {batch_size}: must be a multiple of shard_count = {shard_count}"
        )
    pieces = grain.MapDataset.source(source).batch(batch_size // shard_count, drop_remainder=True)
    return TrainStream(pieces[shard_index::shard_count], num_workers, start)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} = {value}: must be at least {least}")
