"""A symbolic reader of qa1 to qa5: every question that a story's text answers, and the answers.

It knows no world but the text: where somebody is follows from moves, from grabbing what lies at a
known place, and from giving, for which both must be in one place. On the real files it agrees with
every answer but some of qa5's ``What did X give to Y?``: where X gave Y two objects, v1.2 asks
about either of them, by chance, and the text does not say about which. ``answers`` then gives both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.babi import check_task
from armt_jax.tasks.babilong.events import (
    DROP,
    GIVE,
    GRAB,
    MOVE,
    OPPOSITE,
    RELATION,
    SIMULATED_TASKS,
    Event,
    read_event,
)


class Asked(NamedTuple):
    """A question in v1.2's words, and its answer."""

    question: str
    answer: str


def all_questions(task: str, facts: Sequence[str]) -> list[Asked]:
    """Every question of the task's forms that ``facts`` answer in one way only.

    v1.2 asks only about what one of the last five facts touches; here everything is asked that has
    an answer. qa4 is asked in both directions, where v1.2 has one.

    Raises:
      ConfigError: a task without a solver, a fact of another task.
    """
    found = _answers(task, facts)
    return [Asked(question, right[0]) for question, right in found.items() if len(right) == 1]


def answers(task: str, facts: Sequence[str], question: str) -> tuple[str, ...]:
    """The answers that the text allows, the latest first; empty where it gives none.

    Blanks around the question do not count.

    Raises:
      ConfigError: a task without a solver, a fact of another task.
    """
    asked = question.strip()
    for known, right in _answers(task, facts).items():
        if known.strip() == asked:
            return right
    return ()


def _answers(task: str, facts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    check_task(task, SIMULATED_TASKS)
    events = [read_event(fact) for fact in facts]
    allowed = {"qa1": (MOVE,), "qa4": (RELATION,), "qa5": (MOVE, GRAB, DROP, GIVE)}
    for event, fact in zip(events, facts, strict=True):
        if event.kind not in allowed.get(task, (MOVE, GRAB, DROP)):
            raise ConfigError(f"fact = {fact!r}: is no fact of {task}")
    if task == "qa4":
        return _relations(events)
    if task == "qa5":
        return _gifts(events)
    read = _Reading(events)
    if task == "qa1":
        return {f"Where is {actor}? ": (place,) for actor, place in read.place_of.items()}
    if task == "qa2":
        return {
            f"Where is the {thing}? ": (path[-1],) for thing, path in read.path_of.items() if path
        }
    return {
        f"Where was the {thing} before the {path[i]}? ": (path[i - 1],)
        for thing, path in read.path_of.items()
        for i in range(1, len(path))
        if path[i] not in path[i + 1 :]
    }


class _Reading:
    """Where actors are and where objects have been, as far as the text says.

    Attributes:
      place_of: actor -> location.
      path_of: object -> locations, each different from the one before.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.place_of: dict[str, str] = {}
        self.path_of: dict[str, list[str]] = {}
        self._holder: dict[str, str] = {}
        for event in events:
            if event.kind == MOVE:
                self._put(event.subject, event.target)
                continue
            path = self.path_of.setdefault(event.target, [])
            # Whoever holds or takes the object is where it is.
            if path:
                self._put(event.subject, path[-1])
            if event.kind == DROP:
                del self._holder[event.target]
            else:
                self._holder[event.target] = event.subject
                if event.subject in self.place_of:
                    self._put(event.subject, self.place_of[event.subject])

    def _put(self, actor: str, place: str) -> None:
        """``actor`` is at ``place``, and so is what he holds."""
        self.place_of[actor] = place
        for thing, holder in self._holder.items():
            path = self.path_of[thing]
            if holder == actor and path[-1:] != [place]:
                path.append(place)


def _gifts(events: Sequence[Event]) -> dict[str, tuple[str, ...]]:
    """Answers to the five forms of qa5, from the latest gift that each is about."""
    found: dict[str, tuple[str, ...]] = {}
    last_of_pair: dict[tuple[str, str], list[str]] = {}
    for event in events:
        if event.kind != GIVE:
            continue
        giver, thing, receiver = event.subject, event.target, event.other
        found[f"Who gave the {thing}? "] = (giver,)
        found[f"Who received the {thing}? "] = (receiver,)
        found[f"Who gave the {thing} to {receiver}? "] = (giver,)
        found[f"Who did {giver} give the {thing} to? "] = (receiver,)
        things = last_of_pair.setdefault((giver, receiver), [])
        if thing in things:
            things.remove(thing)
        things.insert(0, thing)
    for (giver, receiver), things in last_of_pair.items():
        found[f"What did {giver} give to {receiver}? "] = tuple(things)
    return found


def _relations(events: Sequence[Event]) -> dict[str, tuple[str, ...]]:
    """Both forms of qa4, asked about both rooms of every fact."""
    found: dict[str, tuple[str, ...]] = {}
    for event in events:
        back = OPPOSITE[event.other]
        for room, direction, answer in (
            (event.target, event.other, event.subject),
            (event.subject, back, event.target),
        ):
            found[f"What is {direction} of the {room}?"] = (answer,)
            found[f"What is the {room} {OPPOSITE[direction]} of?"] = (answer,)
    return found
