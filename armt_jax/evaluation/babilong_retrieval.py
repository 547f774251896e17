"""Retrieval for BABILong: the few passages of a context that fit the question best."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from armt_jax.config import ConfigError
from armt_jax.evaluation.intervals import wilson_interval
from armt_jax.evaluation.passage_scores import PassageScorer
from armt_jax.tasks.babilong.evaluation_sets import EvaluationSet
from armt_jax.tasks.babilong.passages import (
    CHUNK_TOKENS,
    TextPassage,
    chunk_passages,
    sentence_passages,
    supporting_facts_within,
)
from armt_jax.tasks.babilong.sample import BabilongSample
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer

UNITS = ("sentences", "chunks")


@dataclasses.dataclass(frozen=True)
class Retriever:
    """Finds passages.

    Attributes:
      scorer: says how well a passage fits the question.
      unit: ``sentences``, or ``chunks`` of 512 tokens.
      top: passages to find.
    """

    scorer: PassageScorer
    unit: str = "sentences"
    top: int = 5

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ConfigError(f"unit = {self.unit!r}: must be one of {', '.join(UNITS)}")
        if self.top < 1:
            raise ConfigError(f"top = {self.top}: must be at least 1")

    @property
    def name(self) -> str:
        """Such as ``5 sentences by BM25``."""
        of = "" if self.unit == "sentences" else f" of {CHUNK_TOKENS} tokens"
        return f"{self.top} {self.unit}{of} by {self.scorer.name}"

    def find(self, sample: BabilongSample, tokenizer: BabilongTokenizer) -> list[TextPassage]:
        """The best passages, in the order of the context; of equals the first ones are taken.

        Two facts of one form score the same, so which of equals is taken decides much: the first,
        as in Lucene, knows nothing of what the question wants.
        """
        split = sentence_passages if self.unit == "sentences" else chunk_passages
        passages = split(sample, tokenizer)
        scores = self.scorer.scores(sample.question.question, [one.text for one in passages])
        best = np.argsort(-scores, kind="stable")[: self.top]
        return [passages[index] for index in sorted(best.tolist())]


class Recall(NamedTuple):
    """Questions all of whose supporting facts were found, with the 95 % Wilson interval."""

    found: int
    samples: int
    share: float
    low: float
    high: float


def supporting_fact_recall(
    retriever: Retriever, samples: Iterable[BabilongSample], tokenizer: BabilongTokenizer
) -> Recall:
    """How often retrieval finds all that the answer needs: no model can answer well without.

    Raises:
      ConfigError: no samples, or questions that do not name their supporting facts.
    """
    hits = [
        supporting_facts_within(sample, retriever.find(sample, tokenizer)) for sample in samples
    ]
    if not hits:
        raise ConfigError("samples = []: must hold at least one")
    interval = wilson_interval(sum(hits), len(hits))
    return Recall(sum(hits), len(hits), sum(hits) / len(hits), interval.low, interval.high)


def set_recall(retriever: Retriever, chosen: EvaluationSet) -> Recall:
    """``supporting_fact_recall`` of an evaluation set."""
    return supporting_fact_recall(retriever, chosen, chosen.books.tokenizer)
