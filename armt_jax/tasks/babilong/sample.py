"""A sample of BABILong: facts among noise, the question, GEN, the answer, the end.

The authors' sequence is ``context, question, GEN, answer, end``. The context has exactly the tokens
asked for: the facts, and noise that fills the rest. With ``n`` noise sentences there are ``n + 1``
gaps; each fact draws one uniformly, and the sorted draws are where the facts go, in their order.
All of that is known before a token is read (the noise is a list of sentences of tokenised books),
so the distribution is the authors' own, and any part of the context can be read by itself: blocks
of whatever size give the same tokens, and a context of 50 million never exists as one array.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.babi import Question
from armt_jax.tasks.babilong.noise import Passage, TokenisedBooks, draw_passage
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer

BLOCK_TOKENS = 65_536
# What the authors leave of the last segment for question, GEN, answer and end.
RESERVED_TOKENS = 20
WHOLE_CONTEXT = (0.0, 1.0)

_LENGTH = re.compile(r"(\d+)([kM]?)")


class Query(NamedTuple):
    """A question as a model reads and answers it.

    Attributes:
      tokens: int32 ``[t]``: question, GEN, answer, end.
      loss_mask: bool ``[t]``, True at the positions that predict the answer and the end: GEN and
        the answer's tokens, a ``labels_mask`` of ``next_token_loss``. (The authors mark the last
        ``|answer| + 2`` tokens; the last of these, the end, predicts nothing.)
    """

    tokens: np.ndarray
    loss_mask: np.ndarray

    @property
    def prompt(self) -> np.ndarray:
        """Question and GEN: what a model is given when it is tested."""
        return self.tokens[: int(np.argmax(self.loss_mask)) + 1]


def make_query(tokenizer: BabilongTokenizer, question: str, answer: str) -> Query:
    """Question, GEN, answer and end as ids."""
    asked, answered = tokenizer.bare(question), tokenizer.bare(answer)
    tokens = np.array([*asked, tokenizer.gen_id, *answered, tokenizer.end_id], np.int32)
    position = np.arange(tokens.size)
    return Query(tokens, (position >= len(asked)) & (position < tokens.size - 1))


class BabilongSample:
    """One question in its context; made by ``build_sample``.

    Attributes:
      question: facts, question and answer as text.
      num_tokens: of the context.
      fact_spans: int64 ``[f, 2]``: the tokens ``start`` to ``stop`` of the context that hold fact
        ``f``.
      query: the question as ids.
    """

    def __init__(
        self,
        question: Question,
        facts: Sequence[Sequence[int]],
        noise: Passage,
        gaps: np.ndarray,
        query: Query,
    ) -> None:
        """``gaps`` int ``[f]``, sorted: fact ``f`` stands before noise sentence ``gaps[f]``."""
        self.question = question
        self.query = query
        self._facts = [np.asarray(fact, np.int32) for fact in facts]
        self._noise = noise
        self._gaps = gaps
        self._fact_tokens = np.cumsum([0, *(fact.size for fact in self._facts)], dtype=np.int64)
        before = np.array([noise.gap(int(gap)) for gap in gaps], np.int64)
        starts = before + self._fact_tokens[:-1]
        self.fact_spans = np.stack([starts, before + self._fact_tokens[1:]], axis=1)
        self.num_tokens = noise.num_tokens + int(self._fact_tokens[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens ``start`` to ``stop`` of the context, int32; no more than there are."""
        stop = min(stop, self.num_tokens)
        parts = [np.zeros(0, np.int32)]
        number = int(np.searchsorted(self.fact_spans[:, 1], start, side="right"))
        while start < stop:
            # The next fact, or the end, stops the noise; `number` facts lie before it.
            first, last = self.num_tokens, self.num_tokens
            if number < len(self._facts):
                first, last = (int(end) for end in self.fact_spans[number])
            if start < first:
                until, skipped = min(first, stop), int(self._fact_tokens[number])
                parts.append(self._noise.read(start - skipped, until - skipped))
            else:
                until = min(last, stop)
                parts.append(self._facts[number][start - first : until - first])
                number += 1
            start = until
        return np.concatenate(parts).astype(np.int32)

    def sentence_spans(self) -> np.ndarray:
        """int64 ``[n, 2]``: first token of each sentence of the context, and that behind its last.

        Facts and noise in reading order; together they are the whole context.
        """
        ends = self._noise.sentence_ends()
        facts_before = np.searchsorted(self._gaps, np.arange(ends.size), side="right")
        ends = ends + self._fact_tokens[facts_before]
        ends = np.sort(np.concatenate([ends, self.fact_spans[:, 1]]))
        return np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)

    def blocks(self, block_tokens: int = BLOCK_TOKENS) -> Iterator[np.ndarray]:
        """The context in int32 arrays of ``block_tokens`` each, the last one shorter."""
        if block_tokens < 1:
            raise ConfigError(f"block_tokens = {block_tokens}: must be at least 1")
        for start in range(0, self.num_tokens, block_tokens):
            yield self.read(start, start + block_tokens)

    def context(self) -> np.ndarray:
        """The whole context, int32 ``[num_tokens]``: for lengths that fit into memory."""
        return self.read(0, self.num_tokens)

    def sequence(self) -> np.ndarray:
        """The authors' sequence, int32: context, question, GEN, answer, end."""
        return np.concatenate([self.context(), self.query.tokens])


def build_sample(
    books: TokenisedBooks,
    question: Question,
    num_tokens: int,
    rng: np.random.Generator,
    depth: tuple[float, float] = WHOLE_CONTEXT,
) -> BabilongSample:
    """A context of ``num_tokens`` tokens with the facts of ``question``.

    Args:
      books: the noise, and the tokenizer of everything.
      question: of a file or of a simulator.
      num_tokens: of the context, facts included; 0 for the facts alone, without noise.
      rng: all that is random: the same generator state, the same sample.
      depth: the part of the context, from 0 to 1, in whose gaps facts may lie.

    Raises:
      ConfigError: a context too short for the facts, a depth that is no part of a context.
    """
    tokenizer = books.tokenizer
    low, high = depth
    if not 0.0 <= low < high <= 1.0:
        raise ConfigError(f"depth = {depth!r}: must be (from, to) with 0 <= from < to <= 1")
    facts = tokenizer.facts(question.facts)
    fact_tokens = sum(len(fact) for fact in facts)
    if num_tokens and num_tokens < fact_tokens:
        raise ConfigError(
            f"num_tokens = {num_tokens}: must be at least {fact_tokens}, the tokens of the "
            f"{len(facts)} facts of this question of {question.task}"
        )
    noise = draw_passage(books, max(0, num_tokens - fact_tokens), rng)
    num_gaps = noise.num_sentences + 1
    lowest, end = int(num_gaps * low), int(num_gaps * high)
    gaps = np.sort(rng.integers(lowest, max(end, lowest + 1), len(facts)))
    query = make_query(tokenizer, question.question, question.answer)
    return BabilongSample(question, facts, noise, gaps, query)


def sample_rng(stream: int, index: int) -> np.random.Generator:
    """The generator of sample ``index`` of a stream, two 64-bit numbers."""
    return np.random.Generator(np.random.Philox(key=np.array([stream, index], np.uint64)))


def tokens_of_length(length: str) -> int:
    """Context tokens of a published name of a length: ``0k``, ``4k``, ``1M``, ``50M``, or a number.

    Raises:
      ConfigError: another kind of name.
    """
    match = _LENGTH.fullmatch(length)
    if match is None:
        raise ConfigError(f"length = {length!r}: must be a number of tokens, such as 4k or 1M")
    return int(match.group(1)) * {"": 1, "k": 1_000, "M": 1_000_000}[match.group(2)]


def tokens_of_segments(
    num_segments: int, segment_size: int, reserved: int = RESERVED_TOKENS
) -> int:
    """Context tokens of a sample of ``num_segments`` segments, ``reserved`` left for the question.

    Raises:
      ConfigError: a size below 1, or nothing left for the context.
    """
    tokens = num_segments * segment_size - reserved
    if num_segments < 1 or segment_size < 1 or tokens < 1:
        raise ConfigError(
            f"num_segments = {num_segments} of {segment_size} tokens: must hold more than the "
            f"{reserved} tokens reserved for the question"
        )
    return tokens
