"""Invented moves: facts in bAbI's form, the latest place right, names spread over the ids."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.invented import fact_counts, invented_moves, sentence_forms
from armt_jax.tasks.babilong.noise import TokenisedBooks
from armt_jax.tasks.babilong.sample import sample_rng
from armt_jax.tasks.babilong.tokenizers import train_tokenizer
from tests.tasks.babilong.stories import Texts, words_tokenizer
from tests.tasks.babilong.training_stream_test import maker

SENTENCES = (
    "Mary went to the bathroom.",
    "Mary journeyed to the bathroom.",
    "Mary travelled to",
)
WORDS = [f" {text} went back to the bathroom. moved to Where is Mary?" for text in SENTENCES]
TOKENIZER = train_tokenizer(WORDS * 20, 400)


def test_forms_are_babis_own_with_names_apart():
    forms = sentence_forms(TOKENIZER, 30)
    texts = {TOKENIZER.decode(ids).strip() for ids in forms.facts}
    assert "Mary went back to the bathroom." in texts
    assert len(texts) == 5
    assert TOKENIZER.decode(forms.question) == "Where is Mary?"
    assert TOKENIZER.decode([forms.question[forms.person]]) == " Mary"
    assert len(set(forms.names.tolist())) == 30
    person, place = forms.facts[0][0], forms.facts[0][-2]
    fixed = {i for ids in forms.facts for i in ids} | set(forms.question) - {person, place}
    special = {TOKENIZER.gen_id, TOKENIZER.end_id}
    assert not set(forms.names.tolist()) & ((fixed | special) - {person, place})


def test_the_latest_place_of_everybody_is_asked():
    forms = sentence_forms(TOKENIZER, 30)
    plain = {tuple(ids[1:-2]) for ids in forms.facts}
    again = False
    for index in range(50):
        rng = sample_rng(3, index)
        counts = fact_counts(4, 3, 7, True, rng)
        assert 1 <= len(counts) <= 4
        assert sum(counts) <= 7
        assert max(counts) <= 3
        segments, queries = invented_moves(TOKENIZER, 30, counts, 32, rng)
        assert [len(facts) for facts in segments] == counts
        where: dict[int, int] = {}
        for fact in (fact for facts in segments for fact in facts):
            assert tuple(fact[1:-2]) in plain
            assert fact[-1] == forms.facts[0][-1]
            again |= fact[0] in where
            where[fact[0]] = fact[-2]
        asked = {}
        for query in queries:
            assert query.tokens[-1] == TOKENIZER.end_id
            assert query.tokens[-3] == TOKENIZER.gen_id
            np.testing.assert_array_equal(
                np.flatnonzero(query.loss_mask), query.tokens.size - np.array([3, 2])
            )
            asked[int(query.tokens[forms.person])] = int(query.tokens[-2])
        assert asked == where
    assert again, "nobody moved twice: this tests nothing of the latest place"


def test_contexts_of_invented_people():
    books = TokenisedBooks(Texts("A book of one line that is long enough. " * 30), TOKENIZER)
    make = maker(
        books=books,
        max_segments=3,
        segment_size=32,
        num_queries=6,
        query_size=12,
        max_facts=6,
        facts_per_segment=2,
        names=30,
        noise=0.0,
        random_segments=False,
    )
    forms = sentence_forms(TOKENIZER, 30)
    for index in range(20):
        example = make.forked(sample_rng(1, index))
        assert example.context.shape == (3, 32)
        assert example.context_mask.any(-1).all()
        tokens = example.context[example.context_mask]
        ends = np.flatnonzero(tokens == forms.facts[0][-1])
        people = {int(tokens[0]), *(int(tokens[end + 1]) for end in ends[:-1])}
        asked = example.queries[example.query_mask.any(-1)]
        assert {int(row[forms.person]) for row in asked} == people
    one = dataclasses.replace(make, num_queries=1).forked(sample_rng(1, 0))
    assert one.query_mask.any(-1).sum() == 1


def test_what_cannot_be_invented():
    with pytest.raises(ConfigError, match=r"names = 30: needs a tokenizer with 'Mary'"):
        sentence_forms(words_tokenizer(), 30)
    with pytest.raises(ConfigError, match=r"names = 5000: must be at most \d+, the ids"):
        sentence_forms(TOKENIZER, 5000)
    with pytest.raises(ConfigError, match=r"facts_per_segment = 5: must be at most 4 with names"):
        invented_moves(TOKENIZER, 30, [5], 32, sample_rng(0, 0))
