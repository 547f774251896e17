"""Noise that looks like facts: what a word weighs, and that the likest of many is taken."""

from __future__ import annotations

import collections
import dataclasses
import math

import numpy as np
import pytest

from armt_jax.tasks.babilong.examples import ExampleMaker
from armt_jax.tasks.babilong.likeness import FactLikeness, likest_segment
from armt_jax.tasks.babilong.noise import TokenisedBooks, draw_passage
from armt_jax.tasks.babilong.sample import sample_rng
from armt_jax.tasks.babilong.simulator import Simulator
from armt_jax.tasks.babilong.tokenizers import train_tokenizer
from tests.tasks.babilong.stories import Texts

SIZE = 16


def line(number: int) -> str:
    rare = "John saw the garden" if number % 25 == 7 else "nobody came by at all"
    return f"On day {number % 10} it was fine and {rare} until the night fell."


@pytest.fixture(scope="module")
def books() -> TokenisedBooks:
    texts = [" ".join(line(i + 3 * book) for i in range(100)) for book in range(4)]
    simulator = Simulator("qa1", 0)
    stories = [" " + " ".join(simulator.question(index).facts) for index in range(60)]
    return TokenisedBooks(Texts(*texts), train_tokenizer([*texts, *stories], 500))


@pytest.fixture(scope="module")
def likeness(books: TokenisedBooks) -> FactLikeness:
    return FactLikeness(Simulator("qa1", 0), books)


def test_a_word_weighs_what_its_share_says(books: TokenisedBooks, likeness: FactLikeness) -> None:
    questions, tokenizer = Simulator("qa1", 0), books.tokenizer
    told = collections.Counter(
        token
        for index in range(1_000)
        for ids in tokenizer.facts(questions.question(index).facts)
        for token in ids
    )
    noise = draw_passage(books, 300_000, sample_rng(2**63 + 11, 0)).read(0, 300_000)
    written = collections.Counter(noise.tolist())
    total = 300_000 + tokenizer.vocab_size
    for token in range(tokenizer.vocab_size):
        share = told[token] / sum(told.values())
        other = (written[token] + 1) / total
        expected = math.log(share / other) if share > other else 0.0
        assert math.isclose(likeness.weights[token], expected, abs_tol=1e-9), token
    by_word = {
        tokenizer.decode([int(token)]).strip(): likeness.weights[token]
        for token in np.flatnonzero(likeness.weights)
    }
    assert by_word["Sandra"] > by_word["John"] > 0, "what no book says weighs most"
    assert "nobody" not in by_word


def test_a_word_counts_once(likeness: FactLikeness) -> None:
    rng = np.random.default_rng(0)
    segments = rng.integers(0, likeness.weights.size, (50, SIZE))
    segments[:, 3] = segments[:, 9]
    expected = [sum(likeness.weights[token] for token in set(row.tolist())) for row in segments]
    np.testing.assert_allclose(likeness.scores(segments), expected)
    assert np.ptp(expected) > 1


def test_the_likest_of_a_passage_is_taken_or_moved_to_its_word(
    books: TokenisedBooks, likeness: FactLikeness
) -> None:
    counts, places = set(), []
    for index in range(200):
        found = likest_segment(books, likeness, SIZE, 8, sample_rng(0, index))
        rng = sample_rng(0, index)
        count = int(rng.integers(1, 9))
        counts.add(count)
        passage = draw_passage(books, (count + 2) * SIZE, rng).read(0, (count + 2) * SIZE)
        inner = passage[SIZE:-SIZE].reshape(count, SIZE)
        scores = [float(likeness.scores(row[None])[0]) for row in inner]
        best = inner[scores.index(max(scores))]
        if rng.integers(2) == 0:
            np.testing.assert_array_equal(found, best)
            continue
        windows = np.lib.stride_tricks.sliding_window_view(passage, SIZE)
        assert found.tolist() in windows.tolist()
        heaviest = max(best, key=lambda token: likeness.weights[token])
        places.append({int(place) for place in np.flatnonzero(found == heaviest)})
    assert counts == set(range(1, 9))
    borders = {0, 1, 2, 3, SIZE - 4, SIZE - 3, SIZE - 2, SIZE - 1}
    assert len(places) > 60
    assert all(found & borders for found in places)
    assert borders == set.union(*(found & borders for found in places if len(found) == 1))


@pytest.mark.parametrize("random_segments", [True, False])
def test_only_what_stands_behind_is_chosen(
    books: TokenisedBooks, likeness: FactLikeness, random_segments: bool
) -> None:
    plain = ExampleMaker(
        Simulator("qa1", 0), books, 3, 64, 2, 32,
        random_segments=random_segments, noise_before=2, noise_behind=4,
    )  # fmt: skip
    chosen = dataclasses.replace(plain, likeness=likeness, noise_choices=16)
    scores: dict[str, list[float]] = {"plain": [], "chosen": []}
    for index in range(30):
        usual, hard = (maker.forked(sample_rng(5, index)) for maker in (plain, chosen))
        np.testing.assert_array_equal(usual.context[:5], hard.context[:5])
        np.testing.assert_array_equal(usual.context_mask, hard.context_mask)
        np.testing.assert_array_equal(usual.queries, hard.queries)
        full = usual.context_mask[5:, 0]
        assert (hard.context[5:][~full] == 0).all()
        for name, example in (("plain", usual), ("chosen", hard)):
            scores[name] += likeness.scores(example.context[5:][full]).tolist()
    assert len(scores["plain"]) == len(scores["chosen"]) > 40
    assert np.mean(scores["chosen"]) > 1.3 * np.mean(scores["plain"])
