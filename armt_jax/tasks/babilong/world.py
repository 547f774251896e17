"""The small world of qa1, qa2, qa3 and qa5: actors, locations, objects, and what happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from armt_jax.tasks.babilong.events import (
    ACTORS,
    DROP,
    GIVE,
    GRAB,
    LOCATIONS,
    MOVE,
    OBJECTS,
    Event,
)

T = TypeVar("T")
_KINDS = {
    "qa1": (MOVE,),
    "qa2": (MOVE, GRAB, DROP),
    "qa3": (MOVE, GRAB, DROP),
    "qa5": (MOVE, GRAB, DROP, GIVE),
}
_AT_ONCE = 256


class Dice:
    """Uniform choices from a generator, drawn in bulk: one by one they cost more than the story."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._left: list[float] = []

    def uniform(self) -> float:
        """A number in [0, 1)."""
        if not self._left:
            self._left = self._rng.random(_AT_ONCE).tolist()
        return self._left.pop()

    def below(self, end: int) -> int:
        """An integer in [0, end)."""
        return int(self.uniform() * end)

    def choose(self, options: Sequence[T]) -> T:
        """One of ``options``, each as likely."""
        return options[self.below(len(options))]

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability


class World:
    """What is true, and what has happened.

    Attributes:
      events: all that happened, in order.
      place_of: actor -> location, also of actors that no event was about.
      moves: actor -> positions of his moves in ``events``.
      touched: object -> positions of its events in ``events``.
    """

    def __init__(self, task: str, dice: Dice) -> None:
        self.events: list[Event] = []
        self.actors = ACTORS[task]
        self.place_of = {actor: dice.choose(LOCATIONS) for actor in self.actors}
        self.moves: dict[str, list[int]] = {actor: [] for actor in self.actors}
        self.touched: dict[str, list[int]] = {}
        self._lies_at = {thing: dice.choose(LOCATIONS) for thing in OBJECTS}
        self._holder: dict[str, str] = {}
        self._kinds = _KINDS[task]
        self._dice = dice

    def place_of_object(self, thing: str) -> str:
        """Where an object is."""
        holder = self._holder.get(thing)
        return self._lies_at[thing] if holder is None else self.place_of[holder]

    def act(self) -> Event:
        """The next event: kinds and actors are drawn until one is possible."""
        event = None
        while event is None:
            kind, actor = self._dice.choose(self._kinds), self._dice.choose(self.actors)
            event = self._gift() if kind == GIVE else self._event(kind, actor)
        self._perform(event)
        return event

    def _event(self, kind: str, actor: str) -> Event | None:
        if kind == MOVE:
            place = self._dice.choose(LOCATIONS)
            return None if place == self.place_of[actor] else Event(MOVE, actor, place)
        if kind == GRAB:
            things = [
                thing
                for thing in OBJECTS
                if thing not in self._holder and self._lies_at[thing] == self.place_of[actor]
            ]
        else:
            things = [thing for thing in OBJECTS if self._holder.get(thing) == actor]
        return Event(kind, actor, self._dice.choose(things)) if things else None

    def _gift(self) -> Event | None:
        for thing in OBJECTS:
            giver = self._holder.get(thing)
            if giver is None:
                continue
            for receiver in self.actors:
                if receiver != giver and self.place_of[receiver] == self.place_of[giver]:
                    return Event(GIVE, giver, thing, receiver)
        return None

    def _perform(self, event: Event) -> None:
        index = len(self.events)
        self.events.append(event)
        if event.kind == MOVE:
            self.place_of[event.subject] = event.target
            self.moves[event.subject].append(index)
            return
        self.touched.setdefault(event.target, []).append(index)
        if event.kind == DROP:
            self._lies_at[event.target] = self.place_of[self._holder.pop(event.target)]
        else:
            self._holder[event.target] = event.other or event.subject
