"""How well a passage of text fits a question: by its words (BM25), or by sentence embeddings."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from armt_jax.config import ConfigError

_WORD = re.compile(r"\w+")


class PassageScorer(Protocol):
    """Scores passages by how well they fit a question."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    def scores(self, question: str, passages: Sequence[str]) -> np.ndarray:
        """float64 ``[n]``: one score a passage, higher where it fits better."""
        ...


class Embedder(Protocol):
    """Texts as vectors: similar texts have similar directions."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``[n, d]``, of any length but zero."""
        ...


class BM25:
    """Okapi BM25 (Robertson and Zaragoza 2009, Eq. 3.15), with Lucene's idf, never negative.

    The score of a passage p is the sum over the words w of the question of
    ``idf(w) tf (k1 + 1) / (tf + k1 (1 - b + b |p| / mean|p|))`` with
    ``idf(w) = ln(1 + (N - df + 1/2) / (df + 1/2))``, ``tf`` the count of w in p, ``df`` the number
    of passages with w and ``N`` that of all. Words are runs of letters and digits in lower case,
    without stemming or stop words; a word that the question has twice counts twice.
    """

    name = "BM25"

    def __init__(self, k1: float = 1.2, b: float = 0.75) -> None:
        """``k1``: where counts saturate; ``b``: how much long passages are marked down, 0 to 1."""
        if k1 < 0 or not 0 <= b <= 1:
            raise ConfigError(f"k1 = {k1}, b = {b}: must be k1 >= 0 and 0 <= b <= 1")
        self.k1, self.b = k1, b

    def scores(self, question: str, passages: Sequence[str]) -> np.ndarray:
        """float64 ``[n]``; 0 where no word of the question occurs."""
        asked = Counter(_words(question))
        counts = np.zeros((len(passages), len(asked)))
        sizes = np.zeros(len(passages))
        for i, passage in enumerate(passages):
            words = _words(passage)
            sizes[i] = len(words)
            found = Counter(word for word in words if word in asked)
            for j, word in enumerate(asked):
                counts[i, j] = found[word]
        with_word = (counts > 0).sum(axis=0)
        times = np.array(list(asked.values()), float)
        idf = [math.log(1 + (len(passages) - df + 0.5) / (df + 0.5)) for df in with_word]
        relative = sizes / max(1.0, float(sizes.mean())) if len(passages) else sizes
        damping = self.k1 * (1 - self.b + self.b * relative)[:, None]
        with np.errstate(invalid="ignore"):  # 0 / 0 where k1 is 0 and the word is not there
            saturated = np.nan_to_num(counts * (self.k1 + 1) / (counts + damping))
        return saturated @ (np.array(idf) * times)


class EmbeddingSimilarity:
    """Cosine of the angle between question and passage. Embeddings of passages are not kept."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    @property
    def name(self) -> str:
        """The embedder's."""
        return self.embedder.name

    def scores(self, question: str, passages: Sequence[str]) -> np.ndarray:
        """float64 ``[n]``, from -1 to 1."""
        if not passages:
            return np.zeros(0)
        vectors = self.embedder.embed([question.strip(), *(text.strip() for text in passages)])
        vectors = vectors.astype(np.float64)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors[1:] @ vectors[0]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
