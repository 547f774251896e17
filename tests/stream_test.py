"""The training stream is the same however it is read: resumed, with workers, in shards."""

from __future__ import annotations

import itertools
import json

import jax
import numpy as np
import pytest
from absl import flags

from armt_jax.config import ConfigError
from armt_jax.tasks.associative_retrieval import AssociativeRetrieval, Batch, stream_key
from armt_jax.tasks.stream import train_stream

TASK = AssociativeRetrieval(
    "rewrite", num_pairs=6, key_size=1, value_size=1, num_queries=0, random_num_pairs=True
)


@pytest.fixture(autouse=True)
def parsed_flags():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def take(stream, count: int) -> list[Batch]:
    try:
        return list(itertools.islice(stream, count))
    finally:
        stream.close()


def assert_equal(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_batches_are_the_samples_in_order():
    batches = take(train_stream(TASK, seed=3, batch_size=4), 3)
    key = stream_key(TASK, "train", seed=3)
    for index in range(12):
        sample = TASK.sample_at(key, index)
        row = jax.tree.map(lambda array, i=index: array[i % 4], batches[index // 4])
        assert isinstance(row, Batch)
        jax.tree.map(np.testing.assert_array_equal, row, sample)
    assert batches[0].context.shape == (4, 6, 4)
    assert batches[0].query_mask.shape == (4, 6)


def test_resumed_is_uninterrupted():
    whole = take(train_stream(TASK, seed=0, batch_size=4), 6)
    stream = train_stream(TASK, seed=0, batch_size=4)
    begun = list(itertools.islice(stream, 2))
    state = json.loads(json.dumps(stream.get_state()))
    stream.close()
    resumed = train_stream(TASK, seed=0, batch_size=4)
    next(resumed)  # a stream already read is moved too
    resumed.set_state(state)
    assert resumed.get_state() == state == {"next_batch": 2}
    assert_equal(begun + take(resumed, 4), whole)
    assert_equal(take(train_stream(TASK, seed=0, batch_size=4, start=2), 4), whole[2:])


def test_closing_loses_nothing():
    stream = train_stream(TASK, seed=0, batch_size=4)
    parts = [take(stream, 2), take(stream, 3)]
    assert_equal(parts[0] + parts[1], take(train_stream(TASK, seed=0, batch_size=4), 5))


def test_workers_change_nothing_and_their_state_is_the_same():
    alone = take(train_stream(TASK, seed=0, batch_size=4), 7)
    stream = train_stream(TASK, seed=0, batch_size=4, num_workers=2)
    batches = list(itertools.islice(stream, 5))
    state = stream.get_state()
    stream.close()
    assert_equal(batches, alone[:5])
    resumed = train_stream(TASK, seed=0, batch_size=4)
    resumed.set_state(state)
    assert_equal(take(resumed, 2), alone[5:])


@pytest.mark.parametrize("shard_count", [2, 4])
def test_shards_join_to_the_undivided_stream(shard_count):
    whole = take(train_stream(TASK, seed=0, batch_size=8, start=1), 3)
    shards = [
        take(
            train_stream(
                TASK, seed=0, batch_size=8, start=1, shard_index=index, shard_count=shard_count
            ),
            3,
        )
        for index in range(shard_count)
    ]
    joined = [
        jax.tree.map(lambda *arrays: np.concatenate(arrays), *pieces)
        for pieces in zip(*shards, strict=True)
    ]
    assert_equal(joined, whole)


def test_seeds_stages_and_batches_differ():
    streams = [
        train_stream(TASK, seed=0, batch_size=16),
        train_stream(TASK, seed=1, batch_size=16),
        train_stream(TASK, seed=0, batch_size=16, stage=1),
    ]
    contexts = [batch.context.tobytes() for stream in streams for batch in take(stream, 3)]
    assert len(set(contexts)) == 9


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"batch_size": 0}, "batch_size = 0: must be at least 1"),
        ({"start": -1}, "start = -1: must be at least 0"),
        ({"num_workers": -1}, "num_workers = -1: must be at least 0"),
        ({"shard_count": 0}, "shard_count = 0: must be at least 1"),
        ({"shard_index": 2, "shard_count": 2}, "shard_index = 2: must be in [0, 2)"),
        ({"shard_count": 3}, "batch_size = 4: must be a multiple of shard_count = 3"),
    ],
)
def test_impossible_streams_are_refused(changes, line):
    with pytest.raises(ConfigError) as error:
        train_stream(**({"task": TASK, "seed": 0, "batch_size": 4} | changes))
    assert str(error.value) == line


@pytest.mark.parametrize(
    "state", [{}, {"next_batch": "3"}, {"next_batch": -1}, {"next_batch": 1, "more": 2}]
)
def test_a_foreign_state_is_refused(state):
    stream = train_stream(TASK, seed=0, batch_size=4, start=5)
    with pytest.raises(ConfigError, match="stream state"):
        stream.set_state(state)
    assert stream.get_state() == {"next_batch": 5}
