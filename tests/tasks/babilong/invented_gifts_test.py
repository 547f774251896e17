"""Invented gifts: qa5's sentences, each question with one answer, names spread over the ids."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.events import GIVE, VERBS, read_event
from armt_jax.tasks.babilong.invented import fact_counts
from armt_jax.tasks.babilong.invented_gifts import QUESTIONS, gift_forms, invented_gifts
from armt_jax.tasks.babilong.noise import TokenisedBooks
from armt_jax.tasks.babilong.sample import sample_rng
from armt_jax.tasks.babilong.simulator import Simulator
from armt_jax.tasks.babilong.solver import all_questions, answers
from armt_jax.tasks.babilong.tokenizers import train_tokenizer
from tests.tasks.babilong.stories import Texts, words_tokenizer
from tests.tasks.babilong.training_stream_test import maker

PEOPLE = ("Fred", "Mary", "Bill", "Jeff")
TEXTS = [f" {giver} {verb} the apple to Mary." for giver in PEOPLE for verb in VERBS[GIVE]] + [
    f"{question.text.format(giver, thing, receiver)}"
    for question in QUESTIONS
    for giver in PEOPLE
    for thing in ("apple", "football")
    for receiver in PEOPLE
]
TOKENIZER = train_tokenizer(TEXTS * 20, 420)


def _world(
    index: int, most: int = 12, names: int = 40, difficulty: int = 2
) -> tuple[list[str], list[tuple[str, str]], list[int]]:
    """Facts, questions with their answers, names as ``n17`` and the like; counts of facts."""
    rng = sample_rng(6, index)
    counts = fact_counts(4, 3, most, True, rng)
    segments, queries = invented_gifts(difficulty, TOKENIZER, names, counts, 32, rng)
    assert [len(facts) for facts in segments] == counts
    known = set(gift_forms(TOKENIZER, names).names.tolist())

    def text(ids: Sequence[int]) -> str:
        told = "".join(f" n{one}" if one in known else TOKENIZER.decode([one]) for one in ids)
        return told.strip()

    asked = []
    for query in queries:
        ids = query.tokens.tolist()
        assert ids[-1] == TOKENIZER.end_id
        assert ids[-3] == TOKENIZER.gen_id
        np.testing.assert_array_equal(np.flatnonzero(query.loss_mask), [len(ids) - 3, len(ids) - 2])
        asked.append((text(ids[:-3]), text([ids[-2]])))
    return [text(fact) for facts in segments for fact in facts], asked, counts


def test_forms_are_babis_own_with_names_apart() -> None:
    forms = gift_forms(TOKENIZER, 40)
    told = [TOKENIZER.decode(form.ids).strip() for form in forms.facts]
    assert told == [f"Fred {verb} the apple to Mary." for verb in VERBS[GIVE]]
    asked = [TOKENIZER.decode(form.ids).strip() for form in forms.questions]
    assert asked == [question.text.format("Fred", "apple", "Mary") for question in QUESTIONS]
    for form in forms.facts:
        assert TOKENIZER.decode([form.ids[at] for at in form.slots]) == " Fred apple Mary"
    assert len(set(forms.names.tolist())) == 40
    fixed = {token for form in (*forms.facts, *forms.questions) for token in form.ids}
    special = {TOKENIZER.gen_id, TOKENIZER.end_id, TOKENIZER.pad_id}
    assert not set(forms.names.tolist()) & (fixed | special)


def test_every_answer_is_the_solvers_and_every_form_is_asked() -> None:
    kinds = []
    for index in range(80):
        facts, asked, counts = _world(index)
        assert len(asked) <= sum(counts)
        solved = {one.question.strip(): one.answer for one in all_questions("qa5", facts)}
        for question, answer in asked:
            assert solved[question] == answer
            kinds.append(" ".join(word for word in question.split() if not word.startswith("n")))
        for event in map(read_event, facts):
            assert event.kind == GIVE
            assert event.subject != event.other
    assert len(set(kinds)) == len(QUESTIONS)
    assert min(kinds.count(kind) for kind in set(kinds)) > 0.1 * len(kinds)


def test_each_gift_is_asked_about_unless_no_question_means_it() -> None:
    missing = 0
    for index in range(80):
        facts, asked, _ = _world(index)
        solved = {one.question.strip(): one.answer for one in all_questions("qa5", facts)}
        told = [read_event(fact) for fact in facts]
        fitting = 0
        for event in told:
            texts = [
                question.text.format(event.subject, event.target, event.other)
                for question in QUESTIONS
            ]
            rights = [(event.subject, event.target, event.other)[one.answer] for one in QUESTIONS]
            fitting += any(
                solved.get(text) == right for text, right in zip(texts, rights, strict=True)
            )
        assert len(asked) <= fitting
        missing += len(told) - len(asked)
    assert 0 < missing < 120  # a later gift is what all of its questions mean


def test_few_people_and_things_and_many_and_questions_in_another_order_than_facts() -> None:
    people, things, first = set(), set(), []
    for index in range(80):
        rng = sample_rng(8, index)
        segments, queries = invented_gifts(2, TOKENIZER, 40, [2] * 4, 32, rng)
        slots = gift_forms(TOKENIZER, 40).facts[0].slots
        gifts = [[fact[at] for at in slots] for facts in segments for fact in facts]
        people.add(len({one for gift in gifts for one in (gift[0], gift[2])}))
        things.add(len({gift[1] for gift in gifts}))
        # Of all names of the first question and its answer, are all in the first fact?
        names = {name for gift in gifts for name in gift}
        asked = names & {*queries[0].tokens.tolist()}
        first.append(asked <= {*gifts[0]})
    assert {2, 5, 7} < people
    assert {1, 3, 5} < things
    assert 0 < np.mean(first) < 0.5


def test_one_name_of_a_question_is_often_not_enough() -> None:
    ambiguous = []
    for index in range(80):
        facts, asked, _ = _world(index)
        for question, answer in asked:
            named = {word.strip("?") for word in question.split() if word.startswith("n")}
            if len(named) == 2:
                said = [set(fact.strip(".").split()) for fact in facts]
                ambiguous += [
                    sum(one in words and answer not in words for words in said) > 0 for one in named
                ]
    assert 0.3 < np.mean(ambiguous) < 0.95


def test_at_first_nobody_asks_for_the_receiver() -> None:
    kinds = set()
    for index in range(40):
        facts, asked, _ = _world(index, difficulty=1)
        solved = {one.question.strip(): one.answer for one in all_questions("qa5", facts)}
        for question, answer in asked:
            assert solved[question] == answer
            kinds.add(" ".join(question.split()[:2]))
    assert kinds == {"Who gave", "What did"}


def test_two_things_between_a_pair_are_not_asked_for() -> None:
    facts = ["Fred gave the apple to Mary.", "Fred passed the milk to Mary."]
    assert answers("qa5", facts, "What did Fred give to Mary?") == ("milk", "apple")
    for index in range(80):
        told, asked, _ = _world(index, names=25)
        for question, answer in asked:
            if question.startswith("What"):
                assert answers("qa5", told, question) == (answer,)


@pytest.mark.parametrize("total", [1, 2, 3, 7, 16])
def test_as_many_facts_as_are_asked_for_with_as_few_names_as_can_be(total: int) -> None:
    for index in range(50):
        segments, queries = invented_gifts(
            2, TOKENIZER, 2 * total + 1, [1] * total, 32, sample_rng(2, index)
        )
        assert len(segments) == total
        assert 1 <= len(queries) <= total


def test_contexts_of_invented_gifts() -> None:
    books = TokenisedBooks(Texts("A book of one line that is long enough. " * 30), TOKENIZER)
    make = maker(
        questions=Simulator("qa5", 0),
        books=books,
        max_segments=3,
        segment_size=32,
        num_queries=8,
        query_size=12,
        max_facts=4,
        facts_per_segment=2,
        names=30,
        invention=functools.partial(invented_gifts, 2),
        noise=0.0,
        random_segments=False,
    )
    names = gift_forms(TOKENIZER, 30).names
    for index in range(10):
        example = make.forked(sample_rng(1, index))
        told = example.context[example.context_mask]
        assert np.isin(told, names).sum() in (9, 12)  # three names a fact
        asked = example.queries[example.query_mask.any(-1)]
        assert np.isin(asked[np.isin(asked, names)], told).all()


def test_what_cannot_be_invented() -> None:
    with pytest.raises(ConfigError, match=r"curriculum.names: needs a tokenizer with 'Fred' and"):
        gift_forms(words_tokenizer(), 30)
    with pytest.raises(ConfigError, match=r"names = 5000: must be at most \d+, the ids"):
        gift_forms(TOKENIZER, 5000)
    with pytest.raises(ConfigError, match=r"facts_per_segment = 5: must be at most 4 with names"):
        invented_gifts(2, TOKENIZER, 30, [5], 32, sample_rng(0, 0))
    with pytest.raises(ConfigError, match=r"names = 16: must be at least 17 for 8 gifts"):
        invented_gifts(2, TOKENIZER, 16, [1] * 8, 32, sample_rng(0, 0))
