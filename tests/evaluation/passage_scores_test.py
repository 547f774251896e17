"""BM25 against scores worked out by hand, and similarity of embeddings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.evaluation.passage_scores import BM25, EmbeddingSimilarity

PASSAGES = ["Mary went to the office.", "The cat", "mary, Mary and the garden of Mary: the cat"]


def test_bm25_by_hand():
    # 5, 2 and 9 words, 16/3 on average; "mary" in two of three passages, "cat" in two, "where" in
    # none. k1 = 1.2, b = 0.75.
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    assert idf == pytest.approx(0.4700036)

    def part(count, words):
        return idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * words / (16 / 3)))

    want = [part(1, 5), part(1, 2), part(3, 9) + part(1, 9)]
    assert want == pytest.approx([0.4823, 0.6315, 1.0106], abs=1e-4)
    assert BM25().scores("Where is Mary? Cat?", PASSAGES) == pytest.approx(want, rel=1e-12)
    # A word asked twice counts twice.
    twice = BM25().scores("Mary Mary", PASSAGES)
    assert twice == pytest.approx(2 * BM25().scores("mary", PASSAGES))


def test_bm25_without_damping_and_without_words():
    assert BM25(k1=0).scores("cat", PASSAGES) == pytest.approx([0, 0.4700036, 0.4700036], abs=1e-6)
    # b = 0: length does not count.
    assert BM25(b=0).scores("office", PASSAGES)[0] == pytest.approx(math.log(1 + 2.5 / 1.5))
    assert BM25().scores("Where?", PASSAGES).tolist() == [0, 0, 0]
    assert BM25().scores("Mary?", []).shape == (0,)
    assert BM25().scores("Mary?", ["...", "Mary"])[0] == 0
    with pytest.raises(ConfigError, match="must be k1 >= 0 and 0 <= b <= 1"):
        BM25(b=2)


class Letters:
    """Counts of a, b and c: an embedder that can be followed by hand."""

    name = "letters"

    def embed(self, texts):
        return np.array([[text.count(c) for c in "abc"] for text in texts], np.float32)


def test_similarity_is_the_cosine():
    scores = EmbeddingSimilarity(Letters()).scores("ab", ["aabb", "ac", " c "])
    assert scores == pytest.approx([1.0, 0.5, 0.0])
    assert EmbeddingSimilarity(Letters()).scores("ab", []).shape == (0,)
    assert EmbeddingSimilarity(Letters()).name == "letters"
