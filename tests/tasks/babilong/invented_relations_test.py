"""Invented relations: qa4's sentences, each question with one answer, names spread over the ids."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.events import OPPOSITE, read_event
from armt_jax.tasks.babilong.invented import fact_counts
from armt_jax.tasks.babilong.invented_relations import invented_relations, relation_forms
from armt_jax.tasks.babilong.noise import TokenisedBooks
from armt_jax.tasks.babilong.sample import sample_rng
from armt_jax.tasks.babilong.simulator import Simulator
from armt_jax.tasks.babilong.solver import all_questions
from armt_jax.tasks.babilong.tokenizers import train_tokenizer
from tests.tasks.babilong.stories import Texts, words_tokenizer
from tests.tasks.babilong.training_stream_test import maker

TEXTS = [
    text
    for where in OPPOSITE
    for text in (
        f" The bathroom is {where} of the kitchen.",
        f"What is {where} of the kitchen? What is the bathroom {where} of?",
    )
]
TOKENIZER = train_tokenizer(TEXTS * 20, 400)


def _world(index: int, most: int = 12) -> tuple[list[str], list[tuple[str, str]], list[int]]:
    """Facts, questions with their answers, names as ``n17`` and the like; counts of facts."""
    rng = sample_rng(5, index)
    counts = fact_counts(4, 3, most, True, rng)
    segments, queries = invented_relations(2, TOKENIZER, 30, counts, 32, rng)
    assert [len(facts) for facts in segments] == counts
    names = set(relation_forms(TOKENIZER, 30).names.tolist())

    def text(ids: Sequence[int]) -> str:
        told = "".join(f" n{one}" if one in names else TOKENIZER.decode([one]) for one in ids)
        return told.strip()

    asked = []
    for query in queries:
        ids = query.tokens.tolist()
        assert ids[-1] == TOKENIZER.end_id
        assert ids[-3] == TOKENIZER.gen_id
        np.testing.assert_array_equal(np.flatnonzero(query.loss_mask), [len(ids) - 3, len(ids) - 2])
        asked.append((text(ids[:-3]), text([ids[-2]])))
    return [text(fact) for facts in segments for fact in facts], asked, counts


def test_forms_are_babis_own_with_rooms_apart() -> None:
    forms = relation_forms(TOKENIZER, 30)
    decoded = [TOKENIZER.decode(form.ids).strip() for form in forms.facts.values()]
    assert decoded == [f"The bathroom is {where} of the kitchen." for where in OPPOSITE]
    for where in OPPOSITE:
        fact = forms.facts[where]
        assert [TOKENIZER.decode([fact.ids[at]]) for at in fact.slots] == [" bathroom", " kitchen"]
        assert TOKENIZER.decode(forms.what[where].ids) == f"What is {where} of the bathroom?"
        assert TOKENIZER.decode(forms.of_what[where].ids) == f"What is the bathroom {where} of?"
    assert len(set(forms.names.tolist())) == 30
    kinds = (forms.facts, forms.what, forms.of_what)
    fixed = {token for kind in kinds for form in kind.values() for token in form.ids}
    special = {TOKENIZER.gen_id, TOKENIZER.end_id, TOKENIZER.pad_id}
    assert not set(forms.names.tolist()) & (fixed | special)


def test_every_answer_is_the_solvers_and_the_room_that_a_fact_begins_with() -> None:
    kinds = set()
    for index in range(60):
        facts, asked, _ = _world(index)
        answers: dict[str, set[str]] = {}
        for one in all_questions("qa4", facts):
            answers.setdefault(one.question, set()).add(one.answer)
        for question, answer in asked:
            assert answers[question] == {answer}
            kinds.add(question.split()[2] == "the")
        told = [read_event(fact) for fact in facts]
        assert all(event.subject != event.target for event in told)
        sides = [(event.target, event.other) for event in told]
        sides += [(event.subject, OPPOSITE[event.other]) for event in told]
        assert len(set(sides)) == len(sides), "a room has two neighbours in one direction"
        assert sorted(answer for _, answer in asked) == sorted(event.subject for event in told)
    assert kinds == {True, False}


def test_neither_room_nor_direction_alone_tells_the_answer() -> None:
    by_room, by_direction, chained = [], [], []
    for index in range(100):
        rng = sample_rng(4, index)
        segments, _ = invented_relations(2, TOKENIZER, 30, [2] * 4, 32, rng)
        forms = relation_forms(TOKENIZER, 30)
        slots = forms.facts["north"].slots
        told = [([fact[at] for at in slots], fact[3]) for facts in segments for fact in facts]
        for (subject, target), where in told:
            by_room.append(1 / sum(rooms[1] == target for rooms, _ in told))
            by_direction.append(1 / sum(other == where for _, other in told))
            chained.append(any(rooms[1] == subject for rooms, _ in told))
    assert np.mean(by_room) < 0.45
    assert np.mean(by_direction) < 0.45
    assert 0.05 < np.mean(chained) < 0.5


def test_all_directions_come_and_counts_are_kept() -> None:
    told = [read_event(fact).other for index in range(40) for fact in _world(index)[0]]
    shares = np.array([told.count(where) for where in OPPOSITE]) / len(told)
    np.testing.assert_allclose(shares, 0.25, atol=0.08)
    _, asked, counts = _world(3)
    assert len(asked) == sum(counts)


def test_questions_come_in_another_order_than_facts() -> None:
    first = []
    for index in range(40):
        facts, asked, _ = _world(index)
        if len(facts) > 2:
            first.append(facts[0].split()[1] == asked[0][1])
    assert 0 < np.mean(first) < 0.6


@pytest.mark.parametrize("total", [1, 2, 3, 7, 16])
def test_as_many_facts_as_are_asked_for_with_as_few_names_as_can_be(total: int) -> None:
    for index in range(50):
        segments, queries = invented_relations(
            2, TOKENIZER, total + -(-total // 2), [1] * total, 32, sample_rng(2, index)
        )
        assert len(segments) == total
        assert len(queries) == total


@pytest.mark.parametrize(("difficulty", "share"), [(1, 0.0), (2, 0.5)])
def test_so_many_questions_name_the_opposite_direction(difficulty: int, share: float) -> None:
    names = relation_forms(TOKENIZER, 30).names.tolist()
    found = []
    for index in range(60):
        _, queries = invented_relations(
            difficulty, TOKENIZER, 30, [1] * 4, 32, sample_rng(3, index)
        )
        # "What is the B south of?", and not "What is north of the B?"
        found += [query.tokens.tolist()[3] in names for query in queries]
    assert np.mean(found) == pytest.approx(share, abs=0.0 if share == 0 else 0.09)


def test_contexts_of_invented_rooms() -> None:
    books = TokenisedBooks(Texts("A book of one line that is long enough. " * 30), TOKENIZER)
    make = maker(
        questions=Simulator("qa4", 0),
        books=books,
        max_segments=3,
        segment_size=32,
        num_queries=8,
        query_size=12,
        max_facts=4,
        facts_per_segment=2,
        names=30,
        invention=functools.partial(invented_relations, 2),
        noise=0.0,
        random_segments=False,
    )
    names = relation_forms(TOKENIZER, 30).names
    for index in range(10):
        example = make.forked(sample_rng(1, index))
        told = example.context[example.context_mask]
        count = int(np.isin(told, names).sum())
        asked = example.queries[example.query_mask.any(-1)]
        assert asked.shape[0] == count // 2
        assert np.isin(asked[np.isin(asked, names)], told).all()


def test_what_cannot_be_invented() -> None:
    with pytest.raises(
        ConfigError, match=r"curriculum.names: needs a tokenizer with 'bathroom' and"
    ):
        relation_forms(words_tokenizer(), 30)
    with pytest.raises(ConfigError, match=r"names = 5000: must be at most \d+, the ids"):
        relation_forms(TOKENIZER, 5000)
    with pytest.raises(ConfigError, match=r"facts_per_segment = 5: must be at most 4 with names"):
        invented_relations(2, TOKENIZER, 30, [5], 32, sample_rng(0, 0))
    with pytest.raises(ConfigError, match=r"names = 5: must be at least 12 for 8 relations"):
        invented_relations(2, TOKENIZER, 5, [1] * 8, 32, sample_rng(0, 0))
