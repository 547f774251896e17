"""MQAR: multi-query associative recall, with the settings of Zoology (arXiv 2312.04927).

A text begins with ``num_pairs`` different keys, each followed by its value. Then every key comes
once more, at a place drawn from a power law, between tokens that mean nothing; there the value is
to be predicted, while the text is read. Keys are the lower half of the vocabulary (but token 0),
values the upper half. The value does not follow its key the second time: filler does.

Axis legend: ``s`` segment, ``t`` token of a segment, ``n`` place where something is asked.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from armt_jax.config.recall_tasks import check_mqar


class MarkedText(NamedTuple):
    """A text with places in it where the next token is to be predicted.

    Attributes:
      context: int32 ``[s, t]``, read in order; the end of the last segment may be padding, zeros.
      context_mask: bool ``[s, t]``, False for padding.
      queries: int32 ``[n, 1]``, what is right there.
      query_mask: bool ``[n]``, all True.
      places: int32 ``[n]``, positions in the text, rising.
    """

    context: np.ndarray
    context_mask: np.ndarray
    queries: np.ndarray
    query_mask: np.ndarray
    places: np.ndarray


@dataclasses.dataclass(frozen=True)
class Mqar:
    """Sizes of the task, and its sampler.

    Attributes:
      num_pairs: keys, and so questions.
      length: tokens of a text.
      vocab_size: of the task: keys, values and filler.
      power: exponent of the power law of the gaps before a question, ``a x^(a - 1)`` over the
        places left; Zoology's 0.01 asks early.
      random_filler: random tokens where nothing else is; else token 0.
      segment_size: tokens read at once.

    Raises:
      ConfigError: a text or vocabulary too small for the pairs.
    """

    num_pairs: int
    length: int
    vocab_size: int = 8192
    power: float = 0.01
    random_filler: bool = True
    segment_size: int = 64

    def __post_init__(self) -> None:
        check_mqar("task", self)

    @property
    def label(self) -> str:
        """For people."""
        return f"mqar, {self.num_pairs} pairs in {self.length} tokens"

    def sample(self, rng: np.random.Generator) -> MarkedText:
        """A text; keys, values and places are each drawn without repetition."""
        half, pairs = self.vocab_size // 2, self.num_pairs
        keys = rng.choice(half - 1, pairs, replace=False) + 1
        values = rng.choice(self.vocab_size - half, pairs, replace=False) + half
        text = np.zeros(self.length, np.int64)
        text[: 2 * pairs : 2], text[1 : 2 * pairs : 2] = keys, values

        free = (self.length - 2 * pairs) // 2
        weights = self.power * np.arange(1, free + 1) ** (self.power - 1)
        chosen = rng.choice(free, pairs, replace=False, p=weights / weights.sum())
        places = 2 * pairs + 2 * chosen
        filler = np.ones(self.length, bool)
        filler[: 2 * pairs] = filler[places] = False
        text[places] = keys
        if self.random_filler:
            text[filler] = rng.integers(0, self.vocab_size, int(filler.sum()))

        order = np.argsort(places)
        segments = -(-self.length // self.segment_size)
        context = np.zeros(segments * self.segment_size, np.int32)
        context[: self.length] = text
        mask = np.arange(context.size) < self.length
        shape = (segments, self.segment_size)
        return MarkedText(
            context=context.reshape(shape),
            context_mask=mask.reshape(shape),
            queries=values[order, None].astype(np.int32),
            query_mask=np.ones(pairs, bool),
            places=places[order].astype(np.int32),
        )
