"""Invented carrying: qa2's sentences, answers that the solver gives, in all difficulties."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.events import DROP, GRAB, MOVE, VERBS, read_event
from armt_jax.tasks.babilong.invented import fact_counts
from armt_jax.tasks.babilong.invented_carrying import carrying_forms, invented_carrying
from armt_jax.tasks.babilong.sample import sample_rng
from armt_jax.tasks.babilong.solver import all_questions
from armt_jax.tasks.babilong.tokenizers import train_tokenizer
from tests.tasks.babilong.stories import words_tokenizer

TEXTS = [
    text
    for person, thing, place in (("Mary", "apple", "bathroom"), ("John", "football", "kitchen"))
    for text in (
        *(f" {person} {verb} the {place}." for verb in VERBS[MOVE]),
        *(f" {person} {verb} the {thing} there." for kind in (GRAB, DROP) for verb in VERBS[kind]),
        f" Where is {person}? Who has the {thing}? Where is the {thing}?",
        f" Where was {person} before the {place}? Where was the {thing} before the {place}?",
        f"Where was {person} before the {place}?",
        f"Where is {person}?",
        f"Who has the {thing}?",
        f"Who went to the {place}?",
    )
]
TOKENIZER = train_tokenizer(TEXTS * 20, 420)


def _world(
    index: int, difficulty: int = 3, most: int = 12, names: int = 40, segments: int = 4
) -> tuple[list[str], list[tuple[str, str]], list[int]]:
    """Facts, questions with their answers, names as ``n17`` and the like; counts of facts.

    Difficulties 5 to 8 are the four of qa3.
    """
    rng = sample_rng(7, index)
    counts = fact_counts(segments, 3, most, True, rng)
    history = difficulty > 4
    level = difficulty - 4 if history else difficulty
    told, queries = invented_carrying(level, TOKENIZER, names, counts, 32, rng, history)
    assert [len(facts) for facts in told] == counts
    known = set(carrying_forms(TOKENIZER, names, history).names.tolist())

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
    return [text(fact) for facts in told for fact in facts], asked, counts


def _told(facts: Sequence[str], difficulty: int) -> dict[str, str]:
    """Who has what and who is where, as the text says it; where things are, as the solver does."""
    place_of, holder = {}, {}
    paths: dict[str, list[str]] = {}
    for event in map(read_event, facts):
        if event.kind == MOVE:
            place_of[event.subject] = event.target
            path = paths.setdefault(event.subject, [])
            path += [] if path[-1:] == [event.target] else [event.target]
        elif event.kind == GRAB:
            assert event.target not in holder, "it was taken from somebody"
            holder[event.target] = event.subject
        else:
            assert holder.pop(event.target) == event.subject, "somebody else put it down"
    told = {f"Where is {person}?": place for person, place in place_of.items()}
    told |= {f"Who has the {thing}?": person for thing, person in holder.items()}
    if difficulty in (5, 6):
        told |= {
            f"Who went to the {event.target}?": event.subject
            for event in map(read_event, facts)
            if event.kind == MOVE
        }
    if difficulty > 5:
        told |= {  # the last visit of each place is the one that stays
            f"Where was {person} before the {place}?": before
            for person, path in paths.items()
            for before, place in itertools.pairwise(path)
        }
    asked = {1: (), 5: (), 6: (), 7: ("qa2", "qa3"), 8: ("qa2", "qa3")}.get(difficulty, ("qa2",))
    things = [one for task in asked for one in all_questions(task, facts)]
    return told | {one.question.strip(): one.answer for one in things}


def test_forms_are_babis_own_with_names_apart() -> None:
    forms = carrying_forms(TOKENIZER, 40, history=True)
    for kind, what in ((MOVE, "bathroom"), (GRAB, "apple"), (DROP, "apple")):
        decoded = [TOKENIZER.decode(form.ids).strip() for form in forms.facts[kind]]
        ends = ("",) if kind == MOVE else ("", " there")
        assert decoded == [f"Mary {verb} the {what}{end}." for verb in VERBS[kind] for end in ends]
    assert [TOKENIZER.decode(form.ids).strip() for form in forms.questions] == [
        "Where is Mary?",
        "Who has the apple?",
        "Where is the apple?",
        "Who went to the bathroom?",
        "Where was Mary before the bathroom?",
        "Where was the apple before the bathroom?",
    ]
    asked = carrying_forms(TOKENIZER, 40).questions
    assert asked == forms.questions[:3]
    assert len(set(forms.names.tolist())) == 40
    every = [form for kind in forms.facts.values() for form in kind] + [*forms.questions]
    fixed = {token for form in every for token in form.ids}
    special = {TOKENIZER.gen_id, TOKENIZER.end_id, TOKENIZER.pad_id}
    assert not set(forms.names.tolist()) & (fixed | special)


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5, 6, 7, 8])
def test_everything_that_was_told_is_asked_and_the_answers_are_right(difficulty: int) -> None:
    kinds: set[str] = set()
    told_kinds, shares = [], []
    for index in range(80):
        facts, asked, _ = _world(index, difficulty)
        told = _told(facts, difficulty)
        seldom = {one for one in told if re.match(r"Who|Where is n", one)}
        assert dict(asked).items() <= told.items()
        assert len({*asked}) == len(asked)
        if difficulty in (4, 6, 7, 8):
            assert not told.keys() - dict(asked) - seldom
            if told.keys() - seldom:
                shares.append(len(seldom & dict(asked).keys()) / len(seldom))
            else:
                assert asked
        else:
            assert len(asked) == len(told)
        kinds |= {re.sub(r" n\d+", "", question) for question, _ in asked}
        told_kinds += [read_event(fact).kind for fact in facts]
    assert kinds == {"Where is?", "Who has the?"} | {
        question
        for question, others in {
            "Where is the?": (2, 3, 4, 7, 8),
            "Who went to the?": (5, 6),
            "Where was before the?": (6, 7, 8),
            "Where was the before the?": (7, 8),
        }.items()
        if difficulty in others
    }
    assert set(told_kinds) == {MOVE, GRAB} | ({DROP} if difficulty > 2 else set())
    assert difficulty in (1, 2, 3, 5) or 0.1 < np.mean(shares) < 0.3
    moves = told_kinds.count(MOVE) / len(told_kinds)
    assert (0.75 < moves < 0.95) if difficulty in (5, 6) else (0.4 < moves < 0.8)


def test_things_are_carried_left_behind_and_taken_again() -> None:
    carried = left = again = 0
    for index in range(300):
        facts, _, _ = _world(index)
        taken_at: dict[str, int] = {}
        events = [read_event(fact) for fact in facts]
        for at, event in enumerate(events):
            moved = {one.subject for one in events[at:] if one.kind == MOVE}
            carried += event.kind == GRAB and event.subject in moved
            left += event.kind == DROP and event.subject in moved
            again += event.kind == GRAB and event.target in taken_at
            if event.kind == GRAB:
                taken_at[event.target] = at
    assert carried > 100
    assert left > 20
    assert again > 5


def test_the_same_few_are_told_of_again_and_again() -> None:
    """As in bAbI; with new places for each move hardly anything was somewhere else before."""
    sizes: dict[int, set[tuple[int, int, int]]] = {4: set(), 8: set()}
    each: dict[int, list[float]] = {3: [], 4: [], 8: []}
    for difficulty, told_of_each in each.items():
        for index in range(200):
            facts, _, _ = _world(index, difficulty, most=32, names=54, segments=10)
            events = [read_event(fact) for fact in facts]
            who = {event.subject for event in events}
            what = {event.target for event in events if event.kind != MOVE}
            where = {event.target for event in events if event.kind == MOVE}
            place_of: dict[str, str] = {}
            for event in events:
                if event.kind == MOVE:
                    assert place_of.get(event.subject) != event.target, "moved to where they were"
                    place_of[event.subject] = event.target
            if len(facts) > 20:
                told_of_each.append(len(facts) / (len(who) + len(what)))
            assert not who & what | who & where | what & where
            if difficulty > 3:
                sizes[difficulty].add((len(who), len(what), len(where)))
    for difficulty, found in sizes.items():
        assert tuple(map(max, zip(*found, strict=True))) == (4, 6, 8)
        assert tuple(map(min, zip(*found, strict=True))) == (1, 0, 0)
        assert np.median(each[difficulty]) > 1.2 * np.median(each[3])


def test_what_was_before_is_learnt_of_paths_that_go_nowhere_twice() -> None:
    """Few go far there: one of two neighbours on a path is the one before, whichever is asked."""
    lengths = []
    for difficulty, index in itertools.product((5, 6, 7), range(100)):
        facts, _, _ = _world(index, difficulty, most=16, segments=8)
        moves = [event for event in map(read_event, facts) if event.kind == MOVE]
        assert len({move.target for move in moves}) == len(moves)
        who = {event.subject for event in map(read_event, facts)}
        assert len(who) <= 3
        if len(facts) > 9:
            lengths.append(len(moves) / len(who))
    assert np.median(lengths) > 3


def test_questions_come_in_random_order() -> None:
    first = [_world(index)[1][0][0].startswith("Where is the") for index in range(60)]
    assert 0.1 < np.mean(first) < 0.7


@pytest.mark.parametrize("total", [1, 2, 3, 7, 16])
def test_as_many_facts_as_are_asked_for_with_as_few_names_as_can_be(total: int) -> None:
    for index in range(50):
        for difficulty, names in ((3, total + 2 * -(-total // 3)), (4, 18)):
            segments, queries = invented_carrying(
                difficulty, TOKENIZER, names, [1] * total, 32, sample_rng(2, index)
            )
            assert len(segments) == total
            assert queries


def test_what_cannot_be_invented() -> None:
    with pytest.raises(ConfigError, match=r"curriculum.names: needs a tokenizer with 'Mary' and"):
        carrying_forms(words_tokenizer(), 30)
    with pytest.raises(ConfigError, match=r"names = 5000: must be at most \d+, the ids"):
        carrying_forms(TOKENIZER, 5000)
    with pytest.raises(ConfigError, match=r"facts_per_segment = 5: must be at most 4 with names"):
        invented_carrying(3, TOKENIZER, 30, [5], 32, sample_rng(0, 0))
    with pytest.raises(ConfigError, match=r"names = 13: must be at least 14 for 8 facts"):
        invented_carrying(3, TOKENIZER, 13, [1] * 8, 32, sample_rng(0, 0))
    with pytest.raises(ConfigError, match=r"names = 17: must be at least 18 for 8 facts .* 4$"):
        invented_carrying(4, TOKENIZER, 17, [1] * 8, 32, sample_rng(0, 0))
