"""Words of facts planted in noise: which, where, how far apart, and in how many segments."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pytest

from armt_jax.tasks.babilong.examples import ExampleMaker
from armt_jax.tasks.babilong.likeness import FactLikeness
from armt_jax.tasks.babilong.noise import TokenisedBooks
from armt_jax.tasks.babilong.planting import Planter
from armt_jax.tasks.babilong.sample import sample_rng
from armt_jax.tasks.babilong.simulator import Simulator
from armt_jax.tasks.babilong.tokenizers import train_tokenizer
from tests.tasks.babilong.stories import Texts, small_books

SIZE = 48
# Of qa1 and qa4: nobody asks how somebody went.
PEOPLE = {"Mary", "John", "Daniel", "Sandra"}
PLACES = {"bathroom", "bedroom", "garden", "hallway", "kitchen", "office"}
ASKED = PEOPLE | PLACES | {"north", "south", "east", "west"}


def books() -> TokenisedBooks:
    """With a tokenizer that has the words of facts whole."""
    texts = [small_books().corpus.text(index) for index in range(len(small_books()))]
    stories = [
        " " + " ".join(Simulator(task, 0).question(index).facts)
        for task in ("qa1", "qa4")
        for index in range(60)
    ]
    return TokenisedBooks(Texts(*texts), train_tokenizer([*texts, *stories], 600))


BOOKS = books()


@pytest.fixture(scope="module", params=["qa1", "qa4"])
def planter(request: pytest.FixtureRequest) -> Planter:
    return Planter(FactLikeness(Simulator(request.param, 0), BOOKS), 1.0)


def segment(planter: Planter, index: int) -> np.ndarray:
    """Words that no fact has, of two tokens on average."""
    told = np.unique(np.concatenate(planter.likeness.facts))
    others = np.setdiff1d(np.arange(BOOKS.tokenizer.vocab_size), told)
    begins, rng = planter.likeness.begins_word[others], sample_rng(3, index)
    first = rng.integers(2, size=SIZE) == 0
    return np.where(first, rng.choice(others[begins], SIZE), rng.choice(others[~begins], SIZE))


def test_two_words_that_are_asked_about_stand_in_order_with_others_between(
    planter: Planter,
) -> None:
    begins = planter.likeness.begins_word
    facts = {
        tuple(fact.tolist()): {
            int(word) for word in fact if BOOKS.tokenizer.decode([int(word)]).strip() in ASKED
        }
        for fact in planter.likeness.facts
    }
    assert {len(words) for words in facts.values()} <= {2, 3}
    told = np.concatenate(planter.likeness.facts)
    shares: list[float] = []
    stayed, seen, apart, others = 0, set(), collections.Counter(), collections.Counter()
    for index in range(800):
        before = segment(planter, index)[: SIZE if index % 2 else 14]
        found = planter.plant(before, sample_rng(4, index))
        assert found.shape == before.shape
        assert found.dtype == before.dtype
        places = np.flatnonzero(np.isin(found, told))
        words = found[places].tolist()
        own = np.delete(found, places)
        assert own.tolist() in (
            before[: own.size].tolist(),
            before[before.size - own.size :].tolist(),
        )
        if not words:
            stayed += 1
            continue
        made_of = [fact for fact in facts if is_part(words, fact, facts[fact])]
        assert made_of, (index, words)
        fact = made_of[0]
        ends = [int(place) for place in places if int(found[place]) in facts[fact]]
        first, last = ends[0], ends[-1]
        between = np.setdiff1d(np.arange(first + 1, last), places)
        apart[int(begins[found[between]].sum())] += 1
        others[len(words) - 2] += 1
        shares.append((len(words) - 2) / (len(fact) - 2))
        seen |= set(made_of)
    assert set(apart) == set(range(3, 11))
    assert {0, 1, 2} <= set(others)
    assert max(shares) == 0.5
    assert 0.2 < np.mean(shares) < 0.3
    assert len(seen) > 20
    assert 20 < stayed < 300, "where there is no room"


def is_part(words: list[int], fact: tuple[int, ...], asked: set[int]) -> bool:
    """Whether ``words`` stand in ``fact`` in their order, two that are asked about among them."""
    rest = iter(fact)
    return all(word in rest for word in words) and len(asked & set(words)) >= 2


def test_a_share_of_segments_is_planted(planter: Planter) -> None:
    segments = np.stack([segment(planter, index) for index in range(400)])
    before = segments.copy()
    some, which = dataclasses.replace(planter, share=0.25)(segments, sample_rng(0, 0))
    np.testing.assert_array_equal(segments, before)
    np.testing.assert_array_equal((some != segments).any(axis=1), which)
    assert 0.17 < which.mean() < 0.33
    none, which = dataclasses.replace(planter, share=0.0)(segments, sample_rng(0, 0))
    np.testing.assert_array_equal(none, segments)
    assert not which.any()


def test_a_segment_with_too_few_words_stays(planter: Planter) -> None:
    inside = np.flatnonzero(~planter.likeness.begins_word)[:SIZE].astype(np.int32)
    assert inside.size == SIZE
    begins = np.flatnonzero(planter.likeness.begins_word)[:3]
    for count in range(4):
        few = inside.copy()
        few[10 : 10 + count] = begins[:count]
        np.testing.assert_array_equal(planter.plant(few, sample_rng(0, count)), few)
    few[10:14] = begins[0]
    assert (planter.plant(few, sample_rng(0, 4)) != few).any()


def test_only_segments_behind_are_planted() -> None:
    likeness = FactLikeness(Simulator("qa1", 0), BOOKS)
    plain = ExampleMaker(
        Simulator("qa1", 0), BOOKS, 3, 64, 2, 32,
        random_segments=False, noise_before=2, noise_behind=4,
    )  # fmt: skip
    planted = dataclasses.replace(plain, planter=Planter(likeness, 0.5))
    changed = []
    for index in range(30):
        usual, other = (maker.forked(sample_rng(5, index)) for maker in (plain, planted))
        np.testing.assert_array_equal(usual.context[:5], other.context[:5])
        np.testing.assert_array_equal(usual.context_mask, other.context_mask)
        np.testing.assert_array_equal(usual.queries, other.queries)
        changed += (usual.context[5:] != other.context[5:]).any(axis=1).tolist()
    assert 0.35 < np.mean(changed) < 0.65
