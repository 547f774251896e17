"""Training examples of BABILong: contexts of any kind with their questions.

Two forms of an example:

- ``ForkedExample``: the context as segments, and some questions about it, each a row of its own
  that is answered from the memory after the context (``recurrence.answer``). One reading of a
  context trains everything that can be asked about it.
- ``SequenceExample``: the authors' sequence, context, question, GEN, answer, end, padded on the
  left.

The number of segments is drawn uniformly from 1 to the most (from the first that holds the facts).

Axis legend: ``s`` segment, ``t`` token of a segment, ``q`` query, ``u`` token of a query, ``n``
token of a sequence.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from armt_jax.config import ConfigError
from armt_jax.recurrence.segmenting import check_overlap, overlapping
from armt_jax.tasks.babilong.babi import Question
from armt_jax.tasks.babilong.dense_contexts import Segments, spread, write_densely
from armt_jax.tasks.babilong.events import SIMULATED_TASKS
from armt_jax.tasks.babilong.invented import Invention, fact_counts, invented_moves
from armt_jax.tasks.babilong.likeness import FactLikeness
from armt_jax.tasks.babilong.noise import TokenisedBooks
from armt_jax.tasks.babilong.planting import Planter
from armt_jax.tasks.babilong.questions import QuestionSource
from armt_jax.tasks.babilong.sample import (
    RESERVED_TOKENS,
    WHOLE_CONTEXT,
    BabilongSample,
    Query,
    build_sample,
    make_query,
)
from armt_jax.tasks.babilong.solver import all_questions
from armt_jax.tasks.babilong.surroundings import HardNoise, surround

# Facts of a sample, at most, per token of it: the authors' max_n_facts = sample size / 5.
TOKENS_PER_FACT = 5
_MOST_DRAWS = 1_000


class ForkedExample(NamedTuple):
    """A context and questions about it; a batch has a leading axis ``b`` on every array.

    Attributes:
      context: int32 ``[s, t]``; whole segments, padding segments in front.
      context_mask: bool ``[s, t]``, False at padding.
      queries: int32 ``[q, u]``: question, GEN, answer, end, then padding.
      query_mask: bool ``[q, u]``, False at padding; row 0 is the question bAbI asks.
      loss_mask: bool ``[q, u]``, True at the positions that predict the answer and the end.
    """

    context: np.ndarray
    context_mask: np.ndarray
    queries: np.ndarray
    query_mask: np.ndarray
    loss_mask: np.ndarray


class SequenceExample(NamedTuple):
    """The authors' sequence; a batch has a leading axis ``b`` on every array.

    Attributes:
      tokens: int32 ``[n]``, ``n`` = segments x segment size; padding in front.
      mask: bool ``[n]``, False at padding.
      loss_mask: bool ``[n]``, True at the positions that predict the answer and the end (a
        ``labels_mask`` of ``next_token_loss``).
    """

    tokens: np.ndarray
    mask: np.ndarray
    loss_mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class ExampleMaker:
    """Sizes of examples, and what they are made of.

    Attributes:
      questions: a ``Simulator`` or a ``QuestionList``.
      books: the noise, with the tokenizer.
      max_segments, segment_size: of the context (forked) or of the sequence: ``s`` and ``t``.
      num_queries, query_size: ``q`` and ``u`` of forked examples; 1 asks bAbI's question alone.
      depth: the part of the context in whose gaps facts may lie.
      random_segments: contexts of 1 to ``max_segments`` segments, uniformly, instead of all.
      max_facts: of a story, 0 for any number.
      facts_per_segment: 0: facts stand anywhere. Else forked contexts have 1 to so many facts in
        each segment, and noise between them that fills up to a share ``noise`` of the rest.
      names: of such contexts, 0: stories of the task; else facts that ``invention`` makes up, about
        people, places or rooms that have so many names between them, at most ``max_facts``.
      invention: ``invented_moves``, or ``invented_relations``.
      noise_before, noise_behind: segments more of forked contexts, in front and behind, of which
        a random number holds noise and the others are padding.
      likeness, noise_choices: each segment behind is chosen among so many at most (``surround``).
      planter: plants words of facts in some segments behind.
      mined: noise that every other segment behind is taken from.
      overlap: tokens that a segment repeats of the one before, where facts stand anywhere; the
        sequence has none.

    Raises:
      ConfigError: a size below 1.
    """

    questions: QuestionSource
    books: TokenisedBooks
    max_segments: int
    segment_size: int
    num_queries: int
    query_size: int
    depth: tuple[float, float] = WHOLE_CONTEXT
    random_segments: bool = True
    max_facts: int = 0
    facts_per_segment: int = 0
    noise: float = 1.0
    names: int = 0
    invention: Invention = invented_moves
    noise_before: int = 0
    noise_behind: int = 0
    likeness: FactLikeness | None = None
    noise_choices: int = 1
    planter: Planter | None = None
    mined: HardNoise | None = None
    overlap: int = 0

    def __post_init__(self) -> None:
        for name in ("max_segments", "segment_size", "num_queries", "query_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1")
        check_overlap(self.segment_size, self.overlap)

    def forked(self, rng: np.random.Generator) -> ForkedExample:
        """A context of whole segments and up to ``num_queries`` questions about it."""
        context, mask, asked = self._contents(rng)
        queries = np.zeros((self.num_queries, self.query_size), np.int32)
        query_mask, loss_mask = np.zeros(queries.shape, bool), np.zeros(queries.shape, bool)
        for row, query in enumerate(asked[: self.num_queries]):
            size = query.tokens.size
            if size > self.query_size:
                raise ConfigError(
                    f"query_size = {self.query_size}: must be at least {size}, for a question "
                    "with its answer"
                )
            queries[row, :size] = query.tokens
            query_mask[row, :size] = True
            loss_mask[row, :size] = query.loss_mask
        context, mask = surround(
            self.books,
            context,
            mask,
            rng,
            *(
                (0 if self.random_segments else most, most)
                for most in (self.noise_before, self.noise_behind)
            ),
            likeness=self.likeness,
            choices=self.noise_choices,
            planter=self.planter,
            mined=self.mined,
            overlap=self.overlap,
        )
        return ForkedExample(context, mask, queries, query_mask, loss_mask)

    def _contents(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[Query]]:
        """Tokens of the context and their mask, ``[s, t]``, and the questions."""
        shape = (self.max_segments, self.segment_size)
        if self.facts_per_segment == 0:
            sample = self._sample(rng, 0, self.overlap)
            told = overlapping(sample.context(), self.segment_size, self.overlap)
            context, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
            context[-len(told) :], mask[-len(told) :] = told, True
            return context, mask, self._queries(sample.question, sample.query, rng)
        tokenizer = self.books.tokenizer
        if self.names:
            counts = fact_counts(
                shape[0], self.facts_per_segment, self.max_facts, self.random_segments, rng
            )
            facts, asked = self.invention(tokenizer, self.names, counts, shape[1], rng)
            return *write_densely(self.books, facts, shape, self.noise, rng), asked
        question, facts = self._dense_question(rng)
        context, mask = write_densely(self.books, facts, shape, self.noise, rng)
        first = make_query(tokenizer, question.question, question.answer)
        return context, mask, self._queries(question, first, rng)

    def sequence(self, rng: np.random.Generator) -> SequenceExample:
        """The authors' sequence of one question.

        Raises:
          ConfigError: question and answer are longer than the 20 tokens reserved for them.
        """
        sample = self._sample(rng, RESERVED_TOKENS, 0)
        tokens = sample.sequence()
        size = self.max_segments * self.segment_size
        if sample.query.tokens.size > RESERVED_TOKENS:
            raise ConfigError(
                f"question = {sample.question.question!r}: must fit into {RESERVED_TOKENS} tokens "
                f"with its answer, has {sample.query.tokens.size}"
            )
        loss_mask = np.zeros(size, bool)
        loss_mask[size - sample.query.tokens.size :] = sample.query.loss_mask
        mask = np.arange(size) >= size - tokens.size
        return SequenceExample(_pad_left(tokens, size), mask, loss_mask)

    def _sample(self, rng: np.random.Generator, reserved: int, overlap: int) -> BabilongSample:
        """A sample that with ``reserved`` tokens more fills segments with ``overlap``."""
        stride, more = self.segment_size - overlap, overlap - reserved
        largest = self.max_segments * stride + more
        question = self._question(rng, largest // TOKENS_PER_FACT, largest)
        facts = self.books.tokenizer.facts(question.facts)
        fewest = max(1, -(-(sum(map(len, facts)) - more) // stride))
        segments = self.max_segments
        if self.random_segments:
            segments = int(rng.integers(fewest, self.max_segments, endpoint=True))
        tokens = segments * stride + more
        return build_sample(self.books, question, tokens, rng, self.depth)

    def _question(self, rng: np.random.Generator, most: int, largest: int) -> Question:
        """A question with at most ``most`` facts, of ``largest`` tokens together."""
        most = min(most, self.max_facts or most)
        for _ in range(_MOST_DRAWS):
            question = self.questions.question(int(rng.integers(self.questions.num_questions)))
            if len(question.facts) > most:
                continue
            if sum(map(len, self.books.tokenizer.facts(question.facts))) <= largest:
                return question
        raise ConfigError(
            f"max_segments = {self.max_segments} of {self.segment_size} tokens: must be long "
            f"enough for a story, and none of {_MOST_DRAWS} fitted"
        )

    def _dense_question(self, rng: np.random.Generator) -> tuple[Question, Segments]:
        """A question, and its facts as ids, segment by segment."""
        for _ in range(_MOST_DRAWS):
            most = self.max_segments * self.facts_per_segment
            question = self._question(rng, most, self.max_segments * self.segment_size)
            facts = self.books.tokenizer.facts(question.facts)
            segments = spread(facts, self.facts_per_segment, self.segment_size, rng)
            if segments is not None and len(segments) <= self.max_segments:
                return question, segments
        raise ConfigError(
            f"max_segments = {self.max_segments} of {self.segment_size} tokens: must hold a story "
            f"with 1 to {self.facts_per_segment} facts in each, and none of {_MOST_DRAWS} fitted"
        )

    def _queries(self, question: Question, asked: Query, rng: np.random.Generator) -> list[Query]:
        chosen = [asked]
        if self.num_queries > 1 and question.task in SIMULATED_TASKS:
            others = _other_questions(question)
            count = min(len(others), self.num_queries - 1)
            for index in rng.choice(len(others), count, replace=False):
                chosen.append(make_query(self.books.tokenizer, *others[int(index)]))
        return chosen


def _other_questions(question: Question) -> list[tuple[str, str]]:
    asked = question.question.strip()
    found = all_questions(question.task, question.facts)
    return [(text, answer) for text, answer in found if text.strip() != asked]


def _pad_left(tokens: np.ndarray, size: int) -> np.ndarray:
    return np.pad(tokens, (size - tokens.size, 0))
