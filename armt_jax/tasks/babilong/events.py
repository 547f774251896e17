"""The sentences of qa1 to qa5 as events, and events as sentences."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from armt_jax.config import ConfigError

SIMULATED_TASKS = ("qa1", "qa2", "qa3", "qa4", "qa5")
LOCATIONS = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
OBJECTS = ("apple", "football", "milk")
# In the order in which v1.2 looks for somebody to give to.
ACTORS = {
    "qa1": ("Daniel", "John", "Mary", "Sandra"),
    "qa2": ("Daniel", "John", "Mary", "Sandra"),
    "qa3": ("Daniel", "John", "Mary", "Sandra"),
    "qa5": ("Mary", "Fred", "Bill", "Jeff"),
}
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}

MOVE, GRAB, DROP, GIVE, RELATION = "move", "grab", "drop", "give", "relation"
# In v1.2 each form of a kind is as likely.
VERBS = {
    MOVE: ("went to", "journeyed to", "travelled to", "went back to", "moved to"),
    GRAB: ("picked up", "got", "grabbed", "took"),
    DROP: ("left", "discarded", "dropped", "put down"),
    GIVE: ("passed", "gave", "handed"),
}


class Event(NamedTuple):
    """What one fact says.

    Attributes:
      kind: ``move``, ``grab``, ``drop``, ``give`` or ``relation``.
      subject: an actor; for a relation the room that the sentence begins with.
      target: a location (move), an object (grab, drop, give), the other room (relation).
      other: who receives (give), the direction (relation), else empty.
    """

    kind: str
    subject: str
    target: str
    other: str = ""


def sentence(event: Event, verb: str, there: bool) -> str:
    """The fact in v1.2's words; ``there`` ends some sentences of grabbing and dropping."""
    if event.kind == RELATION:
        return f"The {event.subject} is {event.other} of the {event.target}."
    end = f" to {event.other}" if event.kind == GIVE else " there" if there else ""
    return f"{event.subject} {verb} the {event.target}{end}."


@functools.lru_cache(maxsize=10_000)  # qa1 to qa5 have some 2,000 facts between them
def read_event(fact: str) -> Event:
    """The event of a fact of qa1 to qa5.

    Raises:
      ConfigError: another kind of sentence.
    """
    for kind, pattern in _PATTERNS.items():
        match = pattern.fullmatch(fact)
        if match is not None:
            found = match.groupdict()
            return Event(kind, found["subject"], found["target"], found.get("other") or "")
    raise ConfigError(f"fact = {fact!r}: must be a sentence of bAbI's qa1 to qa5")


def _pattern(kind: str, end: str) -> re.Pattern[str]:
    # Longer forms first: "went back to" before "went to".
    verbs = "|".join(sorted(VERBS[kind], key=len, reverse=True))
    return re.compile(rf"(?P<subject>\w+) (?:{verbs}) the (?P<target>\w+){end}\.")


_PATTERNS = {
    MOVE: _pattern(MOVE, ""),
    GRAB: _pattern(GRAB, "(?: there)?"),
    DROP: _pattern(DROP, "(?: there)?"),
    GIVE: _pattern(GIVE, r" to (?P<other>\w+)"),
    RELATION: re.compile(
        rf"The (?P<subject>\w+) is (?P<other>{'|'.join(OPPOSITE)}) of the (?P<target>\w+)\."
    ),
}
