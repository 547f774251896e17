"""qa5's gifts between many people, of many things, whose names are any tokens: see ``invented``.

bAbI's qa5 has four people and three things, and most of its facts are moves: a question has two or
three answers that are not absurd, and few of the facts are asked about. Here every fact is a gift,
and one question about it tells it from the others.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.dense_contexts import Segments
from armt_jax.tasks.babilong.events import GIVE, VERBS, Event, sentence
from armt_jax.tasks.babilong.forms import Form, form_of
from armt_jax.tasks.babilong.invented import check_room, name_ids, query_of_ids
from armt_jax.tasks.babilong.sample import Query
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer

# Giver, thing and receiver, as bAbI has them, and another three.
_NAMES, _OTHERS = ("Fred", "apple", "Mary"), ("Bill", "football", "Jeff")
_GIVER, _THING, _RECEIVER = range(3)


class Question(NamedTuple):
    """One of qa5's questions about a gift.

    Attributes:
      text: with ``{0}``, ``{1}``, ``{2}`` for giver, thing and receiver.
      about: which of the three it names, in its order.
      answer: which of them it asks for.
    """

    text: str
    about: tuple[int, ...]
    answer: int


QUESTIONS = (
    Question("Who gave the {1}?", (_THING,), _GIVER),
    Question("Who received the {1}?", (_THING,), _RECEIVER),
    Question("What did {0} give to {2}?", (_GIVER, _RECEIVER), _THING),
    Question("Who gave the {1} to {2}?", (_THING, _RECEIVER), _GIVER),
    Question("Who did {0} give the {1} to?", (_GIVER, _THING), _RECEIVER),
)


class GiftForms(NamedTuple):
    """Sentences of qa5 as ids.

    Attributes:
      facts: ``Fred gave the apple to Mary.`` with each of the verbs.
      questions: the forms of ``QUESTIONS``.
      names: ids that can stand for a person or a thing.
    """

    facts: tuple[Form, ...]
    questions: tuple[Form, ...]
    names: np.ndarray


@functools.lru_cache(maxsize=8)
def gift_forms(tokenizer: BabilongTokenizer, names: int) -> GiftForms:
    """The forms in the words of ``tokenizer``, and so many of its ids, spread over all of them.

    Raises:
      ConfigError: a person or thing that is several tokens, or fewer ids than ``names``.
    """

    def told(giver: str, thing: str, receiver: str) -> list[list[int]]:
        event = Event(GIVE, giver, thing, receiver)
        return tokenizer.facts([sentence(event, verb, False) for verb in VERBS[GIVE]])

    facts = tuple(
        form_of(one, other, len(_NAMES), _NAMES)
        for one, other in zip(told(*_NAMES), told(*_OTHERS), strict=True)
    )
    questions = tuple(
        form_of(
            tokenizer.bare(question.text.format(*_NAMES)),
            tokenizer.bare(question.text.format(*_OTHERS)),
            len(question.about),
            [_NAMES[one] for one in question.about],
        )
        for question in QUESTIONS
    )
    used = {token for form in (*facts, *questions) for token in form.ids}
    return GiftForms(facts, questions, name_ids(tokenizer, used, names))


def invented_gifts(
    difficulty: int,
    tokenizer: BabilongTokenizer,
    names: int,
    counts: list[int],
    segment_size: int,
    rng: np.random.Generator,
) -> tuple[Segments, list[Query]]:
    """Facts, so many of each segment, and a question about each gift that one can be asked about.

    From 2 people to one more than there are gifts, from one thing to one for each gift: with few of
    them only two names together tell a gift from others. The latest gift that a question fits is
    meant. A pair of people with two things between them is not asked what was given (v1.2 asks, and
    takes either). The questions come in random order.

    Args:
      difficulty: 1: nobody asks for the receiver; 2: all five questions. A person who is asked for
        as the giver as often as as the receiver looks like either.
      tokenizer: of facts and questions.
      names: so many ids are names; at least twice the number of facts, and one more.
      counts: facts of each segment.
      segment_size: tokens of one.
      rng: all that is random.

    Raises:
      ConfigError: segments too short for so many facts, or too few names.
    """
    forms = gift_forms(tokenizer, names)
    check_room(max(len(form.ids) for form in forms.facts), counts, segment_size)
    gifts = _draw(forms.names, sum(counts), rng)
    verbs = rng.integers(len(forms.facts), size=len(gifts))
    facts = iter([forms.facts[verb].of(*gift) for verb, gift in zip(verbs, gifts, strict=True)])
    segments: Segments = [[next(facts) for _ in range(count)] for count in counts]
    queries = []
    for which, gift in _asked(gifts, difficulty, rng):
        about = [gift[one] for one in QUESTIONS[which].about]
        question = forms.questions[which].of(*about)
        queries.append(query_of_ids(tokenizer, question, gift[QUESTIONS[which].answer]))
    return segments, [queries[index] for index in rng.permutation(len(queries))]


def _draw(names: np.ndarray, total: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Giver, thing and receiver of each of ``total`` gifts."""
    if names.size < 2 * total + 1:
        raise ConfigError(
            f"curriculum.names = {names.size}: must be at least {2 * total + 1} for {total} gifts"
        )
    people = int(rng.integers(2, total + 1, endpoint=True))
    things = int(rng.integers(1, total, endpoint=True))
    chosen = rng.choice(names, people + things, replace=False)
    gifts = []
    for _ in range(total):
        giver, receiver = rng.choice(chosen[:people], 2, replace=False)
        gifts.append((int(giver), int(rng.choice(chosen[people:])), int(receiver)))
    return gifts


def _asked(
    gifts: list[tuple[int, int, int]], difficulty: int, rng: np.random.Generator
) -> list[tuple[int, tuple[int, int, int]]]:
    """A question, by its index, of each gift that some question means, and the gift."""
    latest: dict[tuple[int, ...], int] = {}
    things: dict[tuple[int, int], set[int]] = {}
    for index, gift in enumerate(gifts):
        things.setdefault((gift[_GIVER], gift[_RECEIVER]), set()).add(gift[_THING])
        for which, question in enumerate(QUESTIONS):
            latest[(which, *(gift[one] for one in question.about))] = index
    found = []
    for index, gift in enumerate(gifts):
        fitting = [
            which
            for which, question in enumerate(QUESTIONS)
            if latest[(which, *(gift[one] for one in question.about))] == index
            and (question.answer != _RECEIVER or difficulty > 1)
            and (question.answer != _THING or len(things[gift[_GIVER], gift[_RECEIVER]]) == 1)
        ]
        if fitting:
            found.append((int(rng.choice(fitting)), gift))
    return found
