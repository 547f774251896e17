"""Training examples: fixed shapes, padding in front, questions that the context answers."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re

import jax
import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.examples import ExampleMaker
from armt_jax.tasks.babilong.questions import QuestionList
from armt_jax.tasks.babilong.sample import sample_rng
from armt_jax.tasks.babilong.simulator import Simulator
from armt_jax.tasks.babilong.solver import answers
from armt_jax.tasks.babilong.training_stream import babilong_stream, stream_key
from tests.tasks.babilong.stories import QUESTION, small_books


def maker(**changes) -> ExampleMaker:
    settings = {
        "questions": Simulator("qa1", 0),
        "books": small_books(),
        "max_segments": 5,
        "segment_size": 400,
        "num_queries": 4,
        "query_size": 32,
    }
    return ExampleMaker(**{**settings, **changes})


def take(stream, count):
    try:
        return list(itertools.islice(stream, count))
    finally:
        stream.close()


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def texts(tokenizer, row, mask) -> tuple[str, str]:
    ids = row[mask]
    at = int(np.flatnonzero(ids == tokenizer.gen_id)[0])
    assert ids[-1] == tokenizer.end_id
    return tokenizer.decode(ids[:at]), tokenizer.decode(ids[at + 1 : -1])


def test_every_query_is_answered_by_its_context():
    make = maker()
    tokenizer = make.books.tokenizer
    segments = set()
    for index in range(60):
        example = make.forked(sample_rng(1, index))
        assert example.context.shape == example.context_mask.shape == (5, 400)
        assert example.queries.shape == example.query_mask.shape == (4, 32)
        # Whole segments, the padding ones in front.
        full = np.asarray(example.context_mask.all(axis=1))
        assert (full == example.context_mask.any(axis=1)).all()
        assert full[-1]
        assert (np.diff(full.astype(int)) >= 0).all()
        segments.add(int(full.sum()))
        text = tokenizer.decode(example.context[example.context_mask])
        facts = re.findall(r"(?:Mary|John|Daniel|Sandra) [a-z ]+ the [a-z]+\.", text)
        asked = [
            texts(tokenizer, row, mask)
            for row, mask in zip(example.queries, example.query_mask, strict=True)
            if mask.any()
        ]
        assert len(asked) == len(dict(asked)) >= 1
        for question, answer in asked:
            assert answers("qa1", facts, question) == (answer,)
        for row, mask, scored in zip(*example[2:], strict=True):
            want = row[mask][row[mask].tolist().index(tokenizer.gen_id) + 1 :] if mask.any() else []
            assert row[1:][scored[:-1]].tolist() == list(want)
    assert segments == {1, 2, 3, 4, 5}


def test_the_first_query_is_babis():
    make = maker(questions=QuestionList([QUESTION]))
    example = make.forked(sample_rng(0, 0))
    tokenizer = make.books.tokenizer
    assert texts(tokenizer, example.queries[0], example.query_mask[0]) == (
        QUESTION.question,
        QUESTION.answer,
    )
    assert not example.query_mask[1:].any()


def test_the_authors_sequence_padded_in_front():
    make = maker()
    tokenizer = make.books.tokenizer
    # One id a letter here: 20 tokens would not hold a question.
    with pytest.raises(ConfigError, match="must fit into 20 tokens with its answer"):
        make.sequence(sample_rng(2, 0))
    short = QUESTION._replace(question="Where?", answer="here")
    make = maker(questions=QuestionList([short]))
    lengths = set()
    for index in range(40):
        example = make.sequence(sample_rng(2, index))
        assert example.tokens.shape == example.mask.shape == example.loss_mask.shape == (2_000,)
        tokens = example.tokens[example.mask]
        assert example.mask[-tokens.size :].all()
        query = tokenizer.bare("Where?"), tokenizer.bare("here")
        tail = [*query[0], tokenizer.gen_id, *query[1], tokenizer.end_id]
        assert tokens[-len(tail) :].tolist() == tail
        lengths.add((tokens.size - len(tail) + 20) / 400)
        scored = example.tokens[1:][example.loss_mask[:-1]]
        assert scored.tolist() == [*query[1], tokenizer.end_id]
    assert lengths == {1, 2, 3, 4, 5}


def test_stories_that_do_not_fit_are_drawn_again():
    make = maker(questions=Simulator("qa2", 0), max_segments=1)
    for index in range(20):
        example = make.forked(sample_rng(4, index))
        assert example.context_mask.all()
    with pytest.raises(ConfigError, match="must be long enough for a story"):
        maker(questions=QuestionList([QUESTION]), segment_size=10).forked(sample_rng(0, 0))
    # 3 facts need 15 tokens even where fewer would hold them.
    tiny = QUESTION._replace(facts=("A.",) * 30, task="qa6")
    with pytest.raises(ConfigError, match="must be long enough for a story"):
        maker(questions=QuestionList([tiny]), max_segments=1, segment_size=149).forked(
            sample_rng(0, 0)
        )
    maker(questions=QuestionList([tiny]), max_segments=1, segment_size=150).forked(sample_rng(0, 0))


def test_batches_are_the_examples_in_order_and_resume():
    make = maker()
    batches = take(babilong_stream(make, seed=3, batch_size=2), 4)
    for index in (0, 3, 7):
        row = jax.tree.map(lambda array, i=index: array[i % 2], batches[index // 2])
        assert_equal(row, make.forked(sample_rng(stream_key(3), index)))
    stream = babilong_stream(make, seed=3, batch_size=2)
    next(stream)
    state = json.loads(json.dumps(stream.get_state()))
    stream.close()
    resumed = babilong_stream(make, seed=3, batch_size=2)
    resumed.set_state(state)
    for one, other in zip(take(resumed, 3), batches[1:], strict=True):
        assert_equal(one, other)
    halves = [take(babilong_stream(make, 3, 2, shard_index=i, shard_count=2), 2) for i in range(2)]
    for n in range(2):
        joined = jax.tree.map(lambda a, b: np.concatenate([a, b]), halves[0][n], halves[1][n])
        assert_equal(joined, batches[n])
    other = take(babilong_stream(make, seed=4, batch_size=2), 1)[0]
    assert (other.context != batches[0].context).any()
    assert stream_key(3) != stream_key(3, stage=1)


@pytest.mark.slow
def test_workers_make_the_same_batches():
    make = maker()
    alone = take(babilong_stream(make, seed=0, batch_size=2), 3)
    together = take(babilong_stream(make, seed=0, batch_size=2, num_workers=2), 3)
    for one, other in zip(alone, together, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"batch_size": 0}, "batch_size = 0: must be at least 1"),
        ({"shard_count": 2, "batch_size": 3}, "batch_size = 3: must be a multiple of shard_count"),
        ({"shard_index": 1}, r"shard_index = 1: must be in \[0, 1\)"),
    ],
)
def test_impossible_streams(changes, line):
    with pytest.raises(ConfigError, match=line):
        babilong_stream(maker(), **{"seed": 0, "batch_size": 2, **changes})


def test_impossible_sizes():
    with pytest.raises(ConfigError, match="num_queries = 0: must be at least 1"):
        maker(num_queries=0)
    with pytest.raises(ConfigError, match="query_size = 5: must be at least "):
        maker(query_size=5).forked(sample_rng(0, 0))
    with pytest.raises(ConfigError, match="must hold at least one"):
        QuestionList([])


@pytest.mark.parametrize("random_segments", [True, False])
def test_noise_around_a_context_stands_next_to_it(random_segments):
    plain = maker(max_segments=2, random_segments=random_segments)
    around = dataclasses.replace(plain, noise_before=3, noise_behind=2)
    counts = set()
    for index in range(30):
        inner, outer = (one.forked(sample_rng(4, index)) for one in (plain, around))
        assert outer.context.shape == outer.context_mask.shape == (7, 400)
        np.testing.assert_array_equal(outer.context[3:5], inner.context)
        np.testing.assert_array_equal(outer.context_mask[3:5], inner.context_mask)
        assert_equal(outer[2:], inner[2:])
        full = np.asarray(outer.context_mask.all(-1))
        np.testing.assert_array_equal(full, outer.context_mask.any(-1) & ~_partly(outer))
        before, behind = full[:3], full[5:]
        assert list(before) == sorted(before)
        assert list(behind) == sorted(behind, reverse=True)
        counts.add((int(before.sum()), int(behind.sum())))
        text = plain.books.tokenizer.decode(outer.context[:3][before].reshape(-1))
        # One passage in reading order: the numbers of a book's lines go up.
        lines = [int(number) for number in re.findall(r"line (\d+) has", text)]
        ups = sum(low < high for low, high in itertools.pairwise(lines))
        assert ups >= len(lines) - 1 - text.count("line 38 ")
    assert counts == ({(3, 2)} if not random_segments else counts)
    if random_segments:
        assert {one for one, _ in counts} == {0, 1, 2, 3}
        assert {one for _, one in counts} == {0, 1, 2}


def _partly(example):
    """Segments of the context proper that begin with padding."""
    return example.context_mask.any(-1) & ~example.context_mask.all(-1)
