"""A sample as text: the sentences of its context, or chunks of so many tokens.

What a model that reads text is given is decoded from the very tokens that our models read, so both
see the same context. A sentence that was cut in the middle of a character ends in U+FFFD.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.sample import BabilongSample
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer

CHUNK_TOKENS = 512


class TextPassage(NamedTuple):
    """Tokens ``start`` to ``stop`` of a context, and their text (leading blank and all)."""

    start: int
    stop: int
    text: str


def sentence_passages(sample: BabilongSample, tokenizer: BabilongTokenizer) -> list[TextPassage]:
    """The context sentence by sentence; ``tokenizer`` must be the one it was made with."""
    return _passages(sample, tokenizer, sample.sentence_spans())


def chunk_passages(
    sample: BabilongSample, tokenizer: BabilongTokenizer, chunk_tokens: int = CHUNK_TOKENS
) -> list[TextPassage]:
    """The context in chunks of ``chunk_tokens``, the last one shorter; facts may be cut in two.

    Raises:
      ConfigError: a chunk of no token.
    """
    if chunk_tokens < 1:
        raise ConfigError(f"chunk_tokens = {chunk_tokens}: must be at least 1")
    starts = np.arange(0, sample.num_tokens, chunk_tokens)
    ends = np.minimum(starts + chunk_tokens, sample.num_tokens)
    return _passages(sample, tokenizer, np.stack([starts, ends], axis=1))


def context_text(sample: BabilongSample, tokenizer: BabilongTokenizer) -> str:
    """The whole context as text."""
    return tokenizer.decode(sample.context()).strip()


def supporting_facts_within(sample: BabilongSample, passages: Iterable[TextPassage]) -> bool:
    """Whether every token of every fact that the answer needs lies in ``passages``.

    Raises:
      ConfigError: the question does not say which facts these are.
    """
    question = sample.question
    if not question.supporting:
        raise ConfigError(f"question = {question.question!r}: has no supporting facts")
    covered = np.zeros(sample.num_tokens, bool)
    for passage in passages:
        covered[passage.start : passage.stop] = True
    spans: Sequence[Sequence[int]] = sample.fact_spans[list(question.supporting)].tolist()
    return all(bool(covered[start:stop].all()) for start, stop in spans)


def _passages(
    sample: BabilongSample, tokenizer: BabilongTokenizer, spans: np.ndarray
) -> list[TextPassage]:
    tokens = sample.context()
    return [
        TextPassage(start, stop, tokenizer.decode(tokens[start:stop]))
        for start, stop in spans.tolist()
    ]
