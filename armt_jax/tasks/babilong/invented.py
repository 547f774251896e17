"""Stories of many people in many places, whose names are any tokens: binding is learnt there.

bAbI's qa1 has four people and six places. Who guesses is often right, and says so to the gradient
with two or three questions a context: a small model that starts there finds out who moved in which
segment, but not who went where within one. With many names every question of a context is one that
only the right pair answers (``BUILD_NOTES.md``, "Training on BABILong").
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.dense_contexts import Segments
from armt_jax.tasks.babilong.events import MOVE, VERBS, Event, sentence
from armt_jax.tasks.babilong.sample import Query
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer

_PERSON, _PLACE = "Mary", "bathroom"

Invention = Callable[
    [BabilongTokenizer, int, list[int], int, np.random.Generator], tuple[Segments, list[Query]]
]
"""Facts of each segment and questions about them, of the arguments of ``invented_moves``."""


class Forms(NamedTuple):
    """Sentences of bAbI with the places of two names in them, as ids.

    Attributes:
      facts: the forms of ``Mary went to the bathroom.``; the person is their first token and the
        place the last but one.
      question: of ``Where is Mary?``.
      person: its position in the question.
      names: ids that can stand for a person or a place.
    """

    facts: tuple[tuple[int, ...], ...]
    question: tuple[int, ...]
    person: int
    names: np.ndarray


@functools.lru_cache(maxsize=8)
def sentence_forms(tokenizer: BabilongTokenizer, names: int) -> Forms:
    """The forms in the words of ``tokenizer``, and so many of its ids, spread over all of them.

    Raises:
      ConfigError: a name that is several tokens, or fewer ids than ``names``.
    """
    texts = [sentence(Event(MOVE, _PERSON, _PLACE), verb, False) for verb in VERBS[MOVE]]
    facts = tuple(tuple(ids) for ids in tokenizer.facts(texts))
    question = tuple(tokenizer.bare(f"Where is {_PERSON}?"))
    person, place = facts[0][0], facts[0][-2]
    if any(ids[0] != person or ids[-2] != place for ids in facts) or question.count(person) != 1:
        raise ConfigError(
            f"curriculum.names = {names}: needs a tokenizer with {_PERSON!r} and {_PLACE!r} as one "
            "token each, within a sentence"
        )
    used = {*question} | {token for ids in facts for token in ids} - {person, place}
    chosen = name_ids(tokenizer, used, names)
    return Forms(facts, question, question.index(person), chosen)


def name_ids(tokenizer: BabilongTokenizer, used: set[int], names: int) -> np.ndarray:
    """So many ids of ``tokenizer`` but for those ``used`` and the special ones, spread over all.

    Raises:
      ConfigError: there are fewer.
    """
    used = used | {tokenizer.gen_id, tokenizer.end_id, tokenizer.pad_id}
    free = np.array([token for token in range(tokenizer.vocab_size) if token not in used])
    if free.size < names:
        raise ConfigError(
            f"curriculum.names = {names}: must be at most {free.size}, the ids of the tokenizer "
            "that no sentence is made of"
        )
    return free[np.linspace(0, free.size - 1, names).astype(np.int64)]


def fact_counts(
    segments: int, most_each: int, most: int, random_segments: bool, rng: np.random.Generator
) -> list[int]:
    """Facts of each segment, 1 to ``most_each``, together at most ``most``.

    Of ``segments`` segments, or of a random number of them.
    """
    if random_segments:
        segments = int(rng.integers(1, segments, endpoint=True))
    counts = rng.integers(1, most_each, segments, endpoint=True)
    counts = np.diff(np.minimum(np.cumsum(counts), most), prepend=0)
    return [int(count) for count in counts if count]


def invented_moves(
    tokenizer: BabilongTokenizer,
    names: int,
    counts: list[int],
    segment_size: int,
    rng: np.random.Generator,
) -> tuple[Segments, list[Query]]:
    """Facts, so many of each segment, and where everybody is in the end, in random order.

    Half or more of the facts are about somebody new, the others about somebody who has moved.

    Args:
      tokenizer: of facts and questions.
      names: so many ids are names; at least the number of facts.
      counts: facts of each segment.
      segment_size: tokens of one.
      rng: all that is random.

    Raises:
      ConfigError: segments too short for so many facts.
    """
    forms = sentence_forms(tokenizer, names)
    check_room(max(map(len, forms.facts)), counts, segment_size)
    total = sum(counts)
    people = int(rng.integers(-(-total // 2), total, endpoint=True))
    chosen = rng.choice(forms.names, people, replace=False)
    who = np.concatenate([np.arange(people), rng.integers(0, people, total - people)])
    who = chosen[rng.permutation(who)]
    places = rng.choice(forms.names, total)
    where = dict(zip(who.tolist(), places.tolist(), strict=True))  # the latest place counts
    facts = iter(
        [person, *forms.facts[int(rng.integers(len(forms.facts)))][1:-2], place, forms.facts[0][-1]]
        for person, place in zip(who.tolist(), places.tolist(), strict=True)
    )
    segments: Segments = [[next(facts) for _ in range(count)] for count in counts]
    asked = rng.permutation(list(where)).tolist()
    return segments, [_query(tokenizer, forms, person, where[person]) for person in asked]


def _query(tokenizer: BabilongTokenizer, forms: Forms, person: int, place: int) -> Query:
    question = [*forms.question]
    question[forms.person] = person
    return query_of_ids(tokenizer, question, place)


def query_of_ids(tokenizer: BabilongTokenizer, question: list[int], answer: int) -> Query:
    """Question, GEN, an answer of one token, end."""
    tokens = np.array([*question, tokenizer.gen_id, answer, tokenizer.end_id], np.int32)
    position = np.arange(tokens.size)
    return Query(tokens, (position >= len(question)) & (position < tokens.size - 1))


def check_room(longest: int, counts: list[int], segment_size: int) -> None:
    """Refuse more facts of ``longest`` tokens than a segment has room for.

    Raises:
      ConfigError: so it is.
    """
    if max(counts) * longest > segment_size:
        raise ConfigError(
            f"curriculum.facts_per_segment = {max(counts)}: must be at most "
            f"{segment_size // longest} with names, whose facts have up to {longest} tokens, in "
            f"segments of {segment_size}"
        )
