"""qa4's relations between many rooms, whose names are any tokens: binding is learnt there.

In qa4 who knows the room but not the direction is right two times out of three, and a small model
that starts there stays there (``BUILD_NOTES.md``, "Training on BABILong"). With many facts about
few rooms, which have many names, room and direction together answer, and hardly ever one of them
alone.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.dense_contexts import Segments
from armt_jax.tasks.babilong.events import OPPOSITE, RELATION, Event, sentence
from armt_jax.tasks.babilong.forms import Form, form_of
from armt_jax.tasks.babilong.invented import check_room, name_ids, query_of_ids
from armt_jax.tasks.babilong.sample import Query
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer

_ROOM, _OTHER = "bathroom", "kitchen"


class RelationForms(NamedTuple):
    """Sentences of qa4 as ids.

    Attributes:
      facts: of each direction, ``The A is north of the B.``
      what: of each direction, ``What is north of the B?``
      of_what: of each direction, ``What is the A north of?``
      names: ids that can stand for a room.
    """

    facts: dict[str, Form]
    what: dict[str, Form]
    of_what: dict[str, Form]
    names: np.ndarray


@functools.lru_cache(maxsize=8)
def relation_forms(tokenizer: BabilongTokenizer, names: int) -> RelationForms:
    """The forms in the words of ``tokenizer``, and so many of its ids, spread over all of them.

    Raises:
      ConfigError: a room that is several tokens, or fewer ids than ``names``.
    """

    def facts(room: str, other: str) -> list[list[int]]:
        events = (Event(RELATION, room, other, direction) for direction in OPPOSITE)
        return tokenizer.facts([sentence(event, "", False) for event in events])

    def what(room: str) -> list[list[int]]:
        return [tokenizer.bare(f"What is {direction} of the {room}?") for direction in OPPOSITE]

    def of_what(room: str) -> list[list[int]]:
        return [tokenizer.bare(f"What is the {room} {direction} of?") for direction in OPPOSITE]

    kinds = (
        (facts(_ROOM, _OTHER), facts(_OTHER, _ROOM), 2),
        (what(_ROOM), what(_OTHER), 1),
        (of_what(_ROOM), of_what(_OTHER), 1),
    )
    told, asked, asked_of = (
        {
            direction: form_of(one, other, slots, (_ROOM, _OTHER))
            for direction, one, other in zip(OPPOSITE, these, others, strict=True)
        }
        for these, others, slots in kinds
    )
    used = {
        token for kind in (told, asked, asked_of) for form in kind.values() for token in form.ids
    }
    return RelationForms(told, asked, asked_of, name_ids(tokenizer, used, names))


def invented_relations(
    difficulty: int,
    tokenizer: BabilongTokenizer,
    names: int,
    counts: list[int],
    segment_size: int,
    rng: np.random.Generator,
) -> tuple[Segments, list[Query]]:
    """Facts, so many of each segment, and of each the room that it begins with asked, as v1.2 asks.

    The facts are about few rooms, and a room has at most one neighbour in each direction. The
    questions come in random order.

    Args:
      difficulty: 1: every question names the direction that its fact names, "What is north of the
        B?"; 2: half of them, as in v1.2, its opposite, "What is the B south of?".
      tokenizer: of facts and questions.
      names: so many ids are names; at least one and a half times the number of facts, rounded up.
      counts: facts of each segment.
      segment_size: tokens of one.
      rng: all that is random.

    Raises:
      ConfigError: segments too short for so many facts, or too few names.
    """
    forms = relation_forms(tokenizer, names)
    check_room(max(len(form.ids) for form in forms.facts.values()), counts, segment_size)
    relations = _draw(forms.names, sum(counts), rng)
    facts = iter([forms.facts[where].of(room, other) for room, where, other in relations])
    segments: Segments = [[next(facts) for _ in range(count)] for count in counts]
    queries = []
    for room, where, other in relations:
        if difficulty > 1 and rng.random() < 0.5:
            question = forms.of_what[OPPOSITE[where]].of(other)
        else:
            question = forms.what[where].of(other)
        queries.append(query_of_ids(tokenizer, question, room))
    return segments, [queries[index] for index in rng.permutation(len(queries))]


def _draw(names: np.ndarray, total: int, rng: np.random.Generator) -> list[tuple[int, str, int]]:
    """``total`` relations: a room, its direction from the other, the other.

    Two to four directions of a few rooms, as many as there are relations: neither alone says much.
    """
    count = min(int(rng.integers(2, 4, endpoint=True)), total)
    few = -(-total // count)
    if names.size < few + total:
        raise ConfigError(
            f"curriculum.names = {names.size}: must be at least {total + -(-total // 2)} for "
            f"{total} relations between rooms"
        )
    rooms = rng.choice(names, few + total, replace=False)
    directions = rng.choice(tuple(OPPOSITE), count, replace=False).tolist()
    places = [(where, other) for where in directions for other in range(few)]
    chosen = [places[index] for index in rng.choice(len(places), total, replace=False)]
    taken = {direction: np.zeros(rooms.size, bool) for direction in OPPOSITE}
    for where, other in chosen:
        taken[where][other] = True
    found = []
    for where, other in chosen:
        back = taken[OPPOSITE[where]]
        room = int(rng.choice([one for one in np.flatnonzero(~back) if one != other]))
        back[room] = True
        found.append((int(rooms[room]), where, int(rooms[other])))
    return found
