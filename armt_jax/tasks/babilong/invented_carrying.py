"""People who carry things (qa2, qa3), many of them, whose names are any tokens: see ``invented``.

To say where a thing is takes two steps: who has it, and where they are; where it was put down, what
was true then. A small model that is to find out both at once finds neither, so it is first asked
for each of the two, one of them in a form that bAbI does not have: ``Who has the football?``.

With many names hardly anything happens twice to one, and what was true before is rarely in the way.
bAbI has four people, three things and six places, and goes on for 30 facts and more: that comes
last, with names that are still any tokens. What qa3 asks, where something was before a place,
is asked for then, too: of people, whose paths those of things are parts of, then of things as bAbI
does (``config/carrying.py`` lists the difficulties).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from armt_jax.config import ConfigError
from armt_jax.config.carrying import (
    CARRYING,
    PERSON_BEFORE,
    THING_BEFORE,
    WHERE_IS_PERSON,
    WHERE_IS_THING,
    WHO_HAS,
    WHO_WENT,
    Carrying,
)
from armt_jax.tasks.babilong.dense_contexts import Segments
from armt_jax.tasks.babilong.events import DROP, GRAB, MOVE, VERBS, Event, sentence
from armt_jax.tasks.babilong.forms import Form, form_of
from armt_jax.tasks.babilong.invented import check_room, name_ids, query_of_ids
from armt_jax.tasks.babilong.sample import Query
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer

# A person, a thing and a place, as bAbI has them, and another three.
_NAMES, _OTHERS = ("Mary", "apple", "bathroom"), ("John", "football", "kitchen")
_THERE = {MOVE: (False,), GRAB: (False, True), DROP: (False, True)}
_QUESTIONS = ("Where is {0}?", "Who has the {1}?", "Where is the {1}?")
_HISTORY = (
    "Who went to the {2}?",
    "Where was {0} before the {2}?",
    "Where was the {1} before the {2}?",
)
_SELDOM = 0.2


class CarryingForms(NamedTuple):
    """Sentences of qa2 or qa3 as ids.

    Attributes:
      facts: of each kind of event, with each of its verbs: who, and the place or the thing.
      questions: of a person's place, of a thing's holder, of a thing's place; in qa3 of who went
        to a place, and of a person's and of a thing's place before another.
      names: ids that can stand for a person, a thing or a place.
    """

    facts: dict[str, tuple[Form, ...]]
    questions: tuple[Form, ...]
    names: np.ndarray


@functools.lru_cache(maxsize=8)
def carrying_forms(
    tokenizer: BabilongTokenizer, names: int, history: bool = False
) -> CarryingForms:
    """The forms in the words of ``tokenizer``, and so many of its ids, spread over all of them.

    With ``history`` those of qa3.

    Raises:
      ConfigError: a name that is several tokens, or fewer ids than ``names``.
    """

    def told(kind: str, person: str, thing: str, place: str) -> list[list[int]]:
        event = Event(kind, person, place if kind == MOVE else thing)
        return tokenizer.facts(
            [sentence(event, verb, there) for verb in VERBS[kind] for there in _THERE[kind]]
        )

    facts = {
        kind: tuple(
            form_of(one, other, 2, _NAMES)
            for one, other in zip(told(kind, *_NAMES), told(kind, *_OTHERS), strict=True)
        )
        for kind in (MOVE, GRAB, DROP)
    }
    questions = tuple(
        form_of(
            tokenizer.bare(text.format(*_NAMES)),
            tokenizer.bare(text.format(*_OTHERS)),
            text.count("{"),
            _NAMES,
        )
        for text in (*_QUESTIONS, *(_HISTORY if history else ()))
    )
    forms = [form for kind in facts.values() for form in kind] + [*questions]
    used = {token for form in forms for token in form.ids}
    return CarryingForms(facts, questions, name_ids(tokenizer, used, names))


class _World:
    """Who is where, and who has what; people and things are numbers, places ids.

    Each move is to another of ``places`` in turn, or ``again`` to any but where the person is.
    """

    def __init__(
        self, people: int, things: int, places: list[int], again: bool, rng: np.random.Generator
    ) -> None:
        self.people, self.things = people, things
        self._places, self._again = places, again
        self.place_of: dict[int, int] = {}
        self.last_at: dict[int, int] = {}
        self.holder: dict[int, int] = {}
        self.lies_at: dict[int, int] = {}
        self.path_of: tuple[dict[int, list[int]], dict[int, list[int]]] = {}, {}
        self._rng = rng

    def move(self) -> tuple[int, int]:
        """Somebody goes somewhere."""
        person = int(self._rng.integers(self.people))
        if self._again:
            others = [place for place in self._places if place != self.place_of.get(person)]
            place = int(self._rng.choice(others))
        else:
            place = self._places.pop(0)
        self.place_of[person] = place
        self.last_at[place] = person
        self._walk()
        return person, place

    def take(self) -> tuple[int, int] | None:
        """Somebody takes a thing that is new, or lies where they are."""
        person = int(self._rng.integers(self.people))
        place = self.place_of.get(person)
        free = [
            thing
            for thing in range(self.things)
            if thing not in self.holder and self.lies_at.get(thing, place) == place
        ]
        if not free:
            return None
        thing = int(self._rng.choice(free))
        self.lies_at.pop(thing, None)
        self.holder[thing] = person
        self._walk()
        return person, thing

    def leave(self) -> tuple[int, int] | None:
        """Somebody puts a thing down at a place that was told."""
        held = [thing for thing, person in self.holder.items() if person in self.place_of]
        if not held:
            return None
        thing = int(self._rng.choice(held))
        person = self.holder.pop(thing)
        self.lies_at[thing] = self.place_of[person]
        return person, thing

    def place_of_thing(self, thing: int) -> int | None:
        """Where it is, as far as was told."""
        return self.lies_at.get(thing, self.place_of.get(self.holder.get(thing, -1)))

    def _walk(self) -> None:
        """Write down where everybody and everything has come to."""
        things = {thing: self.place_of_thing(thing) for thing in self.holder}
        for paths, places in zip(self.path_of, (self.place_of, things), strict=True):
            for one, place in places.items():
                path = paths.setdefault(one, [])
                if place is not None and path[-1:] != [place]:
                    path.append(place)

    def before(self) -> list[tuple[int, int, int, int]]:
        """0 for a person, 1 for a thing, which, a place on its path, and where it was before that.

        A place that was visited twice is asked about as it was visited last.
        """
        return [
            (kind, one, path[i], path[i - 1])
            for kind, paths in enumerate(self.path_of)
            for one, path in paths.items()
            for i in range(1, len(path))
            if path[i] not in path[i + 1 :]
        ]


def invented_carrying(
    difficulty: int,
    tokenizer: BabilongTokenizer,
    names: int,
    counts: list[int],
    segment_size: int,
    rng: np.random.Generator,
    history: bool = False,
) -> tuple[Segments, list[Query]]:
    """Facts, so many of each segment, and questions about what they tell, in random order.

    What happens, and what is asked, is of ``config.carrying.CARRYING``. A move is also what happens
    where nothing can be taken or put down. As in bAbI, a thing that was put down is taken by
    somebody who is there.

    Args:
      difficulty: which of the task's, from 1.
      tokenizer: of facts and questions.
      names: so many ids are names; at least those of the difficulty.
      counts: facts of each segment.
      segment_size: tokens of one.
      rng: all that is random.
      history: of qa3, which asks for what was before.

    Raises:
      ConfigError: segments too short for so many facts, or too few names.
    """
    forms = carrying_forms(tokenizer, names, history)
    longest = max(len(form.ids) for kind in forms.facts.values() for form in kind)
    check_room(longest, counts, segment_size)
    total = sum(counts)
    setting = CARRYING["qa3" if history else "qa2"][difficulty - 1]
    most = setting.sizes(total)
    fewest = sum(most)
    if names < fewest:
        raise ConfigError(
            f"curriculum.names = {names}: must be at least {fewest} for {total} facts of moves and "
            f"things of difficulty {difficulty}"
        )
    # A new place for each move, or so few that people meet, and things are where people are.
    people, things = (int(rng.integers(1, one, endpoint=True)) for one in most[:2])
    places = int(rng.integers(2, most[2], endpoint=True)) if setting.places else most[2]
    chosen = rng.choice(forms.names, people + things + places, replace=False)
    who, what, where = np.split(chosen, [people, people + things])
    world, facts = _World(people, things, where.tolist(), setting.places > 0, rng), []
    for _ in range(total):
        kind, (person, object_) = _event(world, setting, rng)
        form = forms.facts[kind][int(rng.integers(len(forms.facts[kind])))]
        facts.append(form.of(int(who[person]), object_ if kind == MOVE else int(what[object_])))
    told = iter(facts)
    segments: Segments = [[next(told) for _ in range(count)] for count in counts]
    asked = [
        query_of_ids(tokenizer, forms.questions[which].of(*about), answer)
        for which, about, answer in _chosen(
            _asked(world, who.tolist(), what.tolist()), setting, rng
        )
    ]
    return segments, [asked[index] for index in rng.permutation(len(asked))]


def _event(
    world: _World, setting: Carrying, rng: np.random.Generator
) -> tuple[str, tuple[int, int]]:
    """A kind of event, and what it is about."""
    kind = rng.choice((MOVE, GRAB, DROP), p=setting.chances)
    found = {MOVE: lambda: None, GRAB: world.take, DROP: world.leave}[kind]()
    return (MOVE, world.move()) if found is None else (str(kind), found)


_Questions = list[tuple[int, list[int], int]]


def _chosen(asked: _Questions, setting: Carrying, rng: np.random.Generator) -> _Questions:
    """Those that ``setting`` asks, and a share of those that it seldom asks; never none."""
    found = [one for one in asked if one[0] in setting.asked]
    kept = [one for one in found if one[0] not in setting.seldom or rng.random() < _SELDOM]
    return kept or found


def _asked(world: _World, who: list[int], what: list[int]) -> _Questions:
    """Each question, as its index in the forms, the names that it is about, and its answer."""
    found = [(WHERE_IS_PERSON, [who[person]], place) for person, place in world.place_of.items()]
    found += [(WHO_HAS, [what[thing]], who[person]) for thing, person in world.holder.items()]
    places = {thing: world.place_of_thing(thing) for thing in range(world.things)}
    found += [
        (WHERE_IS_THING, [what[thing]], place)
        for thing, place in places.items()
        if place is not None
    ]
    found += [(WHO_WENT, [place], who[person]) for place, person in world.last_at.items()]
    kinds = ((PERSON_BEFORE, who), (THING_BEFORE, what))
    return found + [
        (kinds[kind][0], [kinds[kind][1][one], place], before)
        for kind, one, place, before in world.before()
    ]
