"""What a sample is: layout, answers, masks, distribution of what is asked, and refusals."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks.associative_retrieval import AssociativeRetrieval, Sample, stream_key


def make(variant="remember", **changes) -> AssociativeRetrieval:
    sizes = {
        "num_pairs": 12,
        "key_size": 2,
        "value_size": 2,
        "num_queries": 0,
        "random_num_pairs": False,
    }
    return AssociativeRetrieval(variant=variant, **(sizes | changes))


def draw(task: AssociativeRetrieval, count: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [task.sample(rng) for _ in range(count)]


def pairs_of(task: AssociativeRetrieval, segments: np.ndarray, separator: int):
    """Keys and values of segments, parsed token by token."""
    parsed = []
    for segment in segments.tolist():
        assert segment[task.key_size] == separator
        assert segment[-1] == 102
        key, value = segment[: task.key_size], segment[task.key_size + 1 : -1]
        assert len(value) == task.value_size
        assert all(0 <= digit < 16 for digit in key + value)
        parsed.append((tuple(key), tuple(value)))
    return parsed


TASKS = [
    make(variant, num_queries=queries, random_num_pairs=vary, num_pairs=pairs, key_size=size)
    for variant in ("remember", "rewrite")
    for queries in (0, 1, 5)
    for vary in (False, True)
    for pairs, size in ((12, 1), (12, 2), (1, 3))
]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_answers_are_the_latest_values_of_distinct_keys(task):
    for sample in draw(task, 20):
        context = pairs_of(task, sample.context[sample.context_mask], separator=100)
        asked = pairs_of(task, sample.queries[sample.query_mask], separator=101)
        memory = dict(context)  # a later pair overwrites an earlier one
        assert all(memory[key] == value for key, value in asked)
        assert len({key for key, _ in asked}) == len(asked) == min(task.max_queries, len(memory))
        if task.variant == "remember":
            assert len(memory) == len(context)


@pytest.mark.parametrize("variant", ["remember", "rewrite"])
def test_keys_of_a_context_are_made_of_a_few_symbols_that_change(variant):
    task = make(variant, num_pairs=12, key_symbols=4)
    seen = []
    for sample in draw(task, 40):
        keys = {key for key, _ in pairs_of(task, sample.context, separator=100)}
        symbols = {symbol for key in keys for symbol in key}
        assert len(symbols) <= 4
        assert variant == "rewrite" or len(keys) == 12
        seen.append(frozenset(symbols))
    assert len(set(seen)) > 30
    assert frozenset().union(*seen) == frozenset(range(16))


@pytest.mark.parametrize(
    ("key_symbols", "choices"), [(16, (2, 4, 8, 16)), (6, (2, 4, 6)), (2, (2,))]
)
def test_number_of_symbols_is_drawn_among_powers_of_two_and_the_most(key_symbols, choices):
    task = make("rewrite", num_pairs=80, key_size=1, key_symbols=key_symbols, random_symbols=True)
    # 80 draws of at most 16 keys leave one out in one context of eleven.
    found = np.array([np.unique(sample.context[:, 0]).size for sample in draw(task, 400)])
    drawn = np.array([min(choice for choice in choices if choice >= count) for count in found])
    counts = np.array([(drawn == choice).sum() for choice in choices])
    assert np.all(np.abs(counts / 400 - 1 / len(choices)) < 0.1)


def test_number_of_value_symbols_is_drawn_too():
    task = make("rewrite", num_pairs=80, key_size=1, value_size=1, random_symbols=True)
    samples = draw(task, 400)
    values = [frozenset(sample.context[:, 2].tolist()) for sample in samples]
    drawn = np.array([min(n for n in (2, 4, 8, 16) if n >= len(found)) for found in values])
    assert all(np.abs((drawn == n).mean() - 0.25) < 0.1 for n in (2, 4, 8, 16))
    assert frozenset().union(*(v for v in values if len(v) == 2)) == frozenset(range(16))
    keys = np.array([np.unique(sample.context[:, 0]).size for sample in samples])
    assert abs(np.corrcoef(keys, [len(found) for found in values])[0, 1]) < 0.2


def test_samples_with_all_symbols_do_not_depend_on_there_being_a_choice():
    keys = make(key_size=2).sample_at(7, 3).context[:, :2]
    bits = np.random.Philox(key=np.array([7, 3], np.uint64))
    drawn = np.random.Generator(bits).choice(256, 12, replace=False)
    np.testing.assert_array_equal(keys, np.stack([drawn // 16, drawn % 16], axis=1))


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_shapes_types_and_padding_at_the_end(task):
    for sample in draw(task, 20):
        length = task.key_size + task.value_size + 2
        assert task.segment_length == length
        assert sample.context.shape == (task.num_pairs, length)
        assert sample.queries.shape == (task.max_queries, length)
        assert sample.context.dtype == sample.queries.dtype == np.int32
        assert sample.context_mask.dtype == sample.query_mask.dtype == bool
        for mask, tokens in zip(sample[1::2], sample[0::2], strict=True):
            assert mask[0]
            assert not np.any(np.diff(mask.astype(int)) > 0)
            assert not tokens[~mask].any()
        assert task.random_num_pairs or sample.context_mask.all()


def test_number_of_pairs_is_uniform():
    counts = np.bincount(
        [
            sample.context_mask.sum()
            for sample in draw(make(num_pairs=4, random_num_pairs=True), 2000)
        ]
    )
    assert counts[0] == 0
    assert counts.size == 5
    assert np.all(np.abs(counts[1:] - 500) < 100)


def test_max_queries():
    assert make(num_pairs=12).max_queries == 12
    assert make("rewrite", num_pairs=12).max_queries == 12
    assert make("rewrite", num_pairs=500, key_size=1).max_queries == 16
    assert make(num_pairs=2, num_queries=7).max_queries == 7


def test_all_keys_of_a_full_key_space_are_used_and_asked():
    task = make(num_pairs=16, key_size=1)
    for sample in draw(task, 5):
        assert sorted(sample.context[:, 0]) == list(range(16))
        assert sorted(sample.queries[:, 0]) == list(range(16))


@pytest.mark.parametrize("num_queries", [0, 1, 3])
def test_every_position_is_asked_equally_often(num_queries):
    """The first query is as likely to be about the first pair as about the last."""
    task = make(num_pairs=5, num_queries=num_queries)
    counts = np.zeros(5)
    for sample in draw(task, 2000):
        counts += (sample.context[:, :2] == sample.queries[:1, :2]).all(axis=1)
    assert np.all(np.abs(counts - 400) < 90)


def test_one_rewrite_query_is_uniform_over_keys_not_over_writes():
    task = make("rewrite", num_pairs=400, key_size=1, num_queries=1)
    asked_writes, mean_writes = [], []
    for sample in draw(task, 400):
        writes = np.bincount(sample.context[:, 0], minlength=16)
        asked_writes.append(writes[sample.queries[0, 0]])
        mean_writes.append(writes[writes > 0].mean())
    # Were keys asked in proportion to their writes, the means would be 0.94 writes apart.
    assert abs(np.mean(asked_writes) - np.mean(mean_writes)) < 0.7


@pytest.mark.parametrize(("key_size", "pairs"), [(3, 200), (8, 300), (15, 50)])
def test_large_key_spaces(key_size, pairs):
    sample = make(num_pairs=pairs, key_size=key_size).sample(np.random.default_rng(0))
    keys = sample.context[:, :key_size]
    assert np.unique(keys, axis=0).shape[0] == pairs
    assert all(np.unique(keys[:, digit]).size > 8 for digit in range(key_size))


def test_a_sample_depends_on_stream_and_index_only():
    task = make()
    key = stream_key(task, "train", seed=1)
    first, _, again = task.sample_at(key, 7), task.sample_at(key, 3), task.sample_at(key, 7)
    np.testing.assert_equal(first, again)
    assert not np.array_equal(first.context, task.sample_at(key, 8).context)


def test_every_setting_names_another_stream():
    task = make()
    keys = [
        stream_key(task, "train", 0),
        stream_key(task, "test", 0),
        stream_key(task, "train", 1),
        stream_key(task, "train", 0, stage=1),
        *(
            stream_key(dataclasses.replace(task, **change), "train", 0)
            for change in ({"num_pairs": 13}, {"key_size": 3}, {"variant": "rewrite"})
        ),
    ]
    assert len(set(keys)) == len(keys)


def test_streams_stay_what_they_were():
    """Resumed runs and frozen sets depend on it. A change here needs a new version of the sets."""
    digest = hashlib.sha256()
    for task in TASKS:
        sample = task.sample_at(stream_key(task, "test", seed=0), index=5)
        for array in sample:
            digest.update(array.tobytes())
    assert digest.hexdigest() == "4a0a64271626ea652a283b19fbf6c791c22a738e6f66f80986bb8cefc11ffb16"


@pytest.mark.parametrize(
    ("variant", "changes", "line"),
    [
        ("recall", {}, "task.variant = 'recall': must be one of remember, rewrite"),
        ("rewrite", {"num_pairs": 0}, "task.num_pairs = 0: must be at least 1"),
        ("rewrite", {"key_size": 0}, "task.key_size = 0: must be at least 1"),
        ("rewrite", {"key_size": 16}, "task.key_size = 16: must be at most 15"),
        ("rewrite", {"key_symbols": 1}, "task.key_symbols = 1: must be from 2 to 16"),
        ("rewrite", {"key_symbols": 17}, "task.key_symbols = 17: must be from 2 to 16"),
        ("rewrite", {"value_size": 0}, "task.value_size = 0: must be at least 1"),
        ("rewrite", {"num_queries": -1}, "task.num_queries = -1: must be 0"),
        ("remember", {"num_pairs": 17, "key_size": 1}, "task.num_pairs = 17: must be at most 16"),
    ],
)
def test_impossible_sizes_are_refused(variant, changes, line):
    with pytest.raises(ConfigError) as error:
        make(variant, **changes)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
