"""How long a memory keeps facts: told once, then nothing but noise, and asked from time to time.

The paper's claim about length is one about loss: a fact that every noise segment forgets with
probability ``p`` is answered after ``n`` of them with probability ``(1 - p)^n``. So what is counted
is which of the facts that were known right after they were told are still known later.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from armt_jax.config import ConfigError
from armt_jax.evaluation.answers import answer_prompts
from armt_jax.evaluation.babilong import ANSWER_TOKENS
from armt_jax.evaluation.babilong_metric import strict_match
from armt_jax.evaluation.intervals import as_count, wilson_interval
from armt_jax.evaluation.long_contexts import read_on
from armt_jax.evaluation.results import atomic_write
from armt_jax.models.protocol import State
from armt_jax.streaming import StreamReader, load_stream, save_stream
from armt_jax.tasks.babilong.babi import Question
from armt_jax.tasks.babilong.noise import Passage, TokenisedBooks, draw_passage
from armt_jax.tasks.babilong.sample import BabilongSample, build_sample, make_query, sample_rng
from armt_jax.tasks.babilong.solver import all_questions
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer

# No stream of training or validation.
_STREAM = 2**63 + 7


@dataclasses.dataclass(frozen=True)
class Lost:
    """One wrong answer to what was known: the question, and the numbers of the contexts.

    Where many contexts give one answer, a passage of the noise may have told it: contexts that
    read for long meet the same passages.
    """

    question: str
    answer: str
    contexts: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Retained:
    """What was still known after so many segments without a fact.

    Attributes:
      segments: read since the segment of the last fact.
      known: facts that were answered rightly at 0 segments.
      kept: of these, those that are answered rightly now.
      kept_low, kept_high: 95 % Wilson interval of their share, as if each fact were lost by itself;
        those of one context share its noise, and contexts share passages of it.
      loss_per_segment: ``1 - (kept / known)^(1 / segments)``, 0 where none was lost; None at 0
        segments, or where all were.
      loss_per_segment_high: the same at the lower end of the interval.
      lost: what is said instead of the others, the most frequent first.
    """

    segments: int
    known: int
    kept: int
    kept_low: float
    kept_high: float
    loss_per_segment: float | None
    loss_per_segment_high: float | None
    lost: tuple[Lost, ...] = ()


def retained(segments: int, known: int, kept: int, lost: Sequence[Lost] = ()) -> Retained:
    """A row of the table.

    Raises:
      ConfigError: nothing was known, or more is kept than was.
    """
    if as_count("known", known) == 0:
        raise ConfigError("known = 0: no fact was answered rightly before the noise began")
    if kept > known:
        raise ConfigError(f"kept = {kept}: must be at most known = {known}")
    low, high = wilson_interval(kept, known)
    rates = (_loss_rate(kept / known, segments), _loss_rate(low, segments))
    return Retained(segments, known, kept, low, high, *rates, tuple(lost))


def _loss_rate(share: float, segments: int) -> float | None:
    if segments == 0 or share <= 0.0:
        return None
    return abs(math.expm1(math.log(share) / segments))  # and not -0.0 where none was lost


class StoryThenNoise:
    """A context of BABILong that goes on: after it there is noise only, read where it is needed.

    Attributes:
      story: the context.
      num_tokens: with the noise behind it.
    """

    def __init__(self, story: BabilongSample, noise: Passage) -> None:
        self.story, self._noise = story, noise
        self.num_tokens = story.num_tokens + noise.num_tokens

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens ``start`` to ``stop``, int32."""
        told = self.story.num_tokens
        noise = self._noise.read(max(start - told, 0), max(stop - told, 0))
        return np.concatenate([self.story.read(start, min(stop, told)), noise.astype(np.int32)])


class Asked(NamedTuple):
    """What is asked of one context: prompts int32 ``[t]``, right answers, questions as text."""

    prompts: list[np.ndarray]
    targets: list[str]
    questions: list[str]


def make_stories(
    books: TokenisedBooks,
    questions: Iterable[Question],
    *,
    contexts: int,
    story_tokens: int,
    noise_tokens: int,
) -> tuple[list[StoryThenNoise], list[Asked]]:
    """The first ``contexts`` stories that fit, and everything that each of them answers.

    Args:
      books: the noise, with the tokenizer.
      questions: of qa1 to qa5, one after another.
      contexts: how many; the same stories whatever the amount of noise.
      story_tokens: of a story among its noise.
      noise_tokens: behind it.

    Raises:
      ConfigError: fewer stories that fit, or a task without a solver.
    """
    made: list[StoryThenNoise] = []
    asked: list[Asked] = []
    tokenizer = books.tokenizer
    for index, question in enumerate(questions):
        if len(made) == contexts:
            break
        size = sum(map(len, tokenizer.facts(question.facts)))
        right = all_questions(question.task, question.facts)
        if size > story_tokens or not right:
            continue
        story = build_sample(books, question, story_tokens, sample_rng(_STREAM, 2 * index))
        noise = draw_passage(books, noise_tokens, sample_rng(_STREAM, 2 * index + 1))
        made.append(StoryThenNoise(story, noise))
        prompts = [make_query(tokenizer, *one).prompt for one in right]
        texts = [one.question.strip() for one in right]
        asked.append(Asked(prompts, [one.answer for one in right], texts))
    if len(made) < contexts:
        raise ConfigError(
            f"contexts = {contexts}: must be at most {len(made)}, the stories of at most "
            f"{story_tokens} tokens"
        )
    return made, asked


def measure_retention(
    reader: StreamReader,
    tokenizer: BabilongTokenizer,
    contexts: Sequence[StoryThenNoise],
    asked: Sequence[Asked],
    segments: Sequence[int],
    file: Path,
    on_block: Callable[[int], None] | None = None,
) -> Iterator[Retained]:
    """What is still known after each number of segments, as soon as it is measured.

    Args:
      reader: of the model.
      tokenizer: of the contexts.
      contexts, asked: from ``make_stories``.
      segments: numbers of noise segments, ascending; 0 is always asked first.
      file: keeps the half-read contexts (``.safetensors``) and what was said (``.json``), so that
        a stopped measurement goes on. The caller names it after what is read. Where places are
        asked for that it is past, the contexts are read anew.
      on_block: is called with the tokens read so far of each context.

    Raises:
      ConfigError: numbers that do not ascend, longer than the contexts, nothing known at 0, or a
        file that is damaged or of an earlier version.
    """
    told, size, overlap = contexts[0].story.num_tokens, reader.stride, reader.segment_overlap
    places = [0, *segments]
    if any(low >= high for low, high in itertools.pairwise(places)):
        raise ConfigError(f"segments = {tuple(segments)}: must ascend, from 1 on")
    if (told - overlap) % size or told + places[-1] * size > contexts[0].num_tokens:
        raise ConfigError(f"segments = {places[-1]}: is more than the contexts have")
    notes, snapshot = file.with_suffix(".json"), file.with_suffix(".safetensors")
    said = _read_notes(notes, asked)
    state = load_stream(snapshot, reader) if said and snapshot.is_file() else None
    if state is None:
        said, state = {}, reader.start(len(contexts))
    for place in places:
        if str(place) not in said:
            stop = told + place * size
            if state.tokens_read > stop:
                state = reader.start(len(contexts))
            state = read_on(reader, state, contexts, stop, on_block=on_block, snapshot=snapshot)
            said[str(place)] = _answers(reader, tokenizer, reader.finish(state), asked)
            # In this order: what was asked of a memory that is not kept is asked again.
            save_stream(snapshot, reader, state)
            atomic_write(notes, json.dumps({"answers": said}).encode())
        yield _row(place, said["0"], said[str(place)], asked)


def _read_notes(notes: Path, asked: Sequence[Asked]) -> dict[str, list[list[str]]]:
    """The answers of each place, of a measurement that was stopped."""
    if not notes.is_file():
        return {}
    try:
        said = json.loads(notes.read_text())["answers"]
        sizes = {place: [len(row) for row in rows] for place, rows in said.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        sizes = {"": []}
    expected = [len(one.questions) for one in asked]
    if not all(found == expected for found in sizes.values()) or (sizes and "0" not in sizes):
        raise ConfigError(
            f"{str(notes)!r}: is damaged, or of an earlier version; delete it to measure anew"
        )
    return said


def _row(
    segments: int, at_first: list[list[str]], now: list[list[str]], asked: Sequence[Asked]
) -> Retained:
    known, lost = 0, collections.defaultdict[tuple[str, str], list[int]](list)
    for context, (one, *answers) in enumerate(zip(asked, at_first, now, strict=True)):
        for question, target, first, later in zip(
            one.questions, one.targets, *answers, strict=True
        ):
            if strict_match(first, target):
                known += 1
                if not strict_match(later, target):
                    lost[question, later].append(context)
    rows = [Lost(*what, tuple(contexts)) for what, contexts in lost.items()]
    rows.sort(key=lambda row: -len(row.contexts))
    kept = known - sum(len(row.contexts) for row in rows)
    return retained(segments, known, kept, rows)


def _answers(
    reader: StreamReader, tokenizer: BabilongTokenizer, memory: State, asked: Sequence[Asked]
) -> list[list[str]]:
    outputs = answer_prompts(
        reader.model,
        reader.params,
        jax.device_put(memory, jax.devices()[0]),
        [one.prompts for one in asked],
        max_new_tokens=ANSWER_TOKENS,
        stop_token=tokenizer.end_id,
    )
    return [[tokenizer.decode_answer(ids) for ids in row] for row in outputs]
