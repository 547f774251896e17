"""A sample as text is the sample as tokens."""

from __future__ import annotations

import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong import EvaluationSet
from armt_jax.tasks.babilong.passages import (
    TextPassage,
    chunk_passages,
    context_text,
    sentence_passages,
    supporting_facts_within,
)
from tests.tasks.babilong.stories import FACTS, QUESTION, small_books


@pytest.fixture(scope="module")
def books():
    return small_books()


def samples(books, num_tokens=3000, count=6):
    return list(EvaluationSet(books, [QUESTION] * count, range(count), num_tokens))


@pytest.mark.parametrize("num_tokens", [0, 120, 700, 3000])
def test_sentences_are_the_whole_context_and_facts_stand_alone(books, num_tokens):
    for sample in samples(books, num_tokens):
        spans = sample.sentence_spans()
        assert spans[0, 0] == 0
        assert spans[-1, 1] == sample.num_tokens
        assert (spans[1:, 0] == spans[:-1, 1]).all()
        assert (spans[:, 1] > spans[:, 0]).all()
        passages = sentence_passages(sample, books.tokenizer)
        text = books.tokenizer.decode(sample.context())
        assert "".join(one.text for one in passages) == text
        found = [one for one in passages if one.text.strip() in FACTS]
        assert [one.text.strip() for one in found] == list(FACTS)
        assert [[one.start, one.stop] for one in found] == sample.fact_spans.tolist()
        # Every other one is one sentence of a book, the last one of the noise perhaps cut.
        noise = [one.text for one in passages if one not in found]
        assert all(one.startswith(" Book ") and one.endswith(".") for one in noise[:-1])
        assert not any(fact in one for fact in FACTS for one in noise)


def test_the_text_is_what_the_tokens_are_made_of(books):
    (sample,) = samples(books, 700, 1)
    text = context_text(sample, books.tokenizer)
    again = books.tokenizer.bare(f" {text}")
    assert books.tokenizer.decode(again) == books.tokenizer.decode(sample.context())
    assert text == text.strip()


def test_chunks_cut_anywhere(books):
    (sample,) = samples(books, 1100, 1)
    chunks = chunk_passages(sample, books.tokenizer, 512)
    assert [(one.start, one.stop) for one in chunks] == [(0, 512), (512, 1024), (1024, 1100)]
    assert "".join(one.text for one in chunks).strip() == context_text(sample, books.tokenizer)
    with pytest.raises(ConfigError, match="chunk_tokens = 0"):
        chunk_passages(sample, books.tokenizer, 0)


def test_every_token_of_every_supporting_fact_must_be_there(books):
    (sample,) = samples(books, 700, 1)
    first, other, third = (
        TextPassage(start, stop, "") for start, stop in sample.fact_spans.tolist()
    )
    assert QUESTION.supporting == (2, 0)
    assert supporting_facts_within(sample, [first, third])
    assert not supporting_facts_within(sample, [first, other])
    assert not supporting_facts_within(sample, [first, third._replace(start=third.start + 1)])
    assert not supporting_facts_within(sample, [first, third._replace(stop=third.stop - 1)])
    # In two halves, as a chunk's edge cuts it.
    middle = (third.start + third.stop) // 2
    halves = [third._replace(stop=middle), third._replace(start=middle)]
    assert supporting_facts_within(sample, [*halves, first])
    assert not supporting_facts_within(sample, [])
    bare = EvaluationSet(books, [QUESTION._replace(supporting=())], [0], 700)[0]
    with pytest.raises(ConfigError, match="has no supporting facts"):
        supporting_facts_within(bare, [])


def test_spans_of_a_context_of_many_pieces(books):
    """Over the end of books: 40 sentences each."""
    (sample,) = samples(books, 20_000, 1)
    assert len(sample.sentence_spans()) > 100
    lengths = np.diff(sample.sentence_spans(), axis=1)
    assert lengths.sum() == 20_000
