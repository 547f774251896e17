"""Stories of bAbI's qa1 to qa5, made here: unlimited, seeded, any of them by its number.

The generating process was read off the files of v1.2 and is checked against them:

- Everybody starts somewhere, objects lie somewhere, and no fact says where. A fact: a kind of
  action and an actor are drawn until the action is possible. A move goes to any other location;
  grabbing takes one of the free objects here, dropping one of those held. Giving does not depend on
  the actor drawn: the first object, in order, whose holder is not alone goes to the first other, in
  order.
- After every two facts a question is asked if one is possible, until there are five. It must touch
  one of the last five facts: qa1 draws one of them and asks about its actor; qa2, qa3 and qa5 draw
  an object that was last taken, dropped or given there and whose answer has 2, 3 and 1 supporting
  facts.
- qa4: three rooms in a line. Each of two facts names the middle room first with probability 1/3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.babi import Question, check_task
from armt_jax.tasks.babilong.events import (
    DROP,
    GIVE,
    GRAB,
    LOCATIONS,
    OPPOSITE,
    RELATION,
    SIMULATED_TASKS,
    VERBS,
    Event,
    sentence,
)
from armt_jax.tasks.babilong.world import Dice, World

QUESTIONS_PER_STORY = {"qa1": 5, "qa2": 5, "qa3": 5, "qa4": 1, "qa5": 5}
RECENT_FACTS = 5
_FACTS_BETWEEN = 2
_THERE = 0.2
_MIDDLE_FIRST = 1 / 3


@dataclasses.dataclass(frozen=True)
class Simulator:
    """An endless file of one task: ``question(i)`` is its question ``i``.

    Attributes:
      task: ``qa1`` to ``qa5``.
      seed: another seed, other stories.

    Raises:
      ConfigError: a task that is not simulated, a negative seed.
    """

    task: str
    seed: int

    def __post_init__(self) -> None:
        check_task(self.task, SIMULATED_TASKS)
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}: must be 0 or more")

    @property
    def num_questions(self) -> int:
        """Numbers of questions are below it: there is no end in practice."""
        return 2**50

    def question(self, index: int) -> Question:
        """Question ``index``, with the facts before it; a story has five in a row (qa4: one)."""
        per_story = QUESTIONS_PER_STORY[self.task]
        return self.story(index // per_story)[index % per_story]

    def story(self, index: int) -> tuple[Question, ...]:
        """The questions of story ``index``; the last one has all of its facts."""
        key = np.random.SeedSequence([self.seed, SIMULATED_TASKS.index(self.task), index])
        dice = Dice(np.random.Generator(np.random.Philox(key)))
        return _relations(dice) if self.task == "qa4" else _story(self.task, dice)


def _story(task: str, dice: Dice) -> tuple[Question, ...]:
    world = World(task, dice)
    facts: list[str] = []
    questions: list[Question] = []
    while len(questions) < QUESTIONS_PER_STORY[task]:
        for _ in range(_FACTS_BETWEEN):
            event = world.act()
            # Grabbing always ends with "there" in qa2 and qa5.
            often = event.kind == GRAB and task in ("qa2", "qa5")
            there = event.kind in (GRAB, DROP) and (often or dice.chance(_THERE))
            facts.append(sentence(event, dice.choose(VERBS[event.kind]), there))
        asked = _ASK[task](world, dice)
        if asked is not None:
            text, answer, supporting = asked
            questions.append(Question(tuple(facts), text, answer, task, supporting))
    return tuple(questions)


_Asked = tuple[str, str, tuple[int, ...]] | None


def _ask_where_is_actor(world: World, dice: Dice) -> _Asked:
    actor = dice.choose(world.events[-RECENT_FACTS:]).subject
    return f"Where is {actor}? ", world.place_of[actor], (world.moves[actor][-1],)


def _recent(world: World, kinds: Sequence[str]) -> list[str]:
    """Objects whose last event of these kinds is among the last facts, in order."""
    first = len(world.events) - RECENT_FACTS
    return [
        thing
        for thing, touched in sorted(world.touched.items())
        if touched[-1] >= first and world.events[touched[-1]].kind in kinds
    ]


def _ask_where_is_object(world: World, dice: Dice) -> _Asked:
    possible = []
    for thing in _recent(world, (GRAB, DROP)):
        last = world.touched[thing][-1]
        event = world.events[last]
        # Where it was dropped, or where its holder has gone since.
        moves = [i for i in world.moves[event.subject] if (i > last) == (event.kind == GRAB)]
        if moves:
            possible.append((thing, last, moves[-1]))
    if not possible:
        return None
    thing, last, move = dice.choose(possible)
    return f"Where is the {thing}? ", world.place_of_object(thing), (last, move)


def _ask_where_was_object(world: World, dice: Dice) -> _Asked:
    possible = []
    for thing in _recent(world, (GRAB, DROP)):
        touched = world.touched[thing]
        last = touched[-1]
        event = world.events[last]
        taken = last if event.kind == GRAB else touched[-2]
        end = len(world.events) if event.kind == GRAB else last
        carried = [i for i in world.moves[event.subject] if taken < i < end]
        if len(carried) > 1:
            possible.append((thing, last, carried))
    if not possible:
        return None
    thing, last, carried = dice.choose(possible)
    place = world.events[dice.choose(carried[1:])].target
    # A place that was visited twice is asked about as it was visited last.
    at = max(i for i, move in enumerate(carried) if world.events[move].target == place)
    before = world.events[carried[at - 1]].target
    text = f"Where was the {thing} before the {place}? "
    return text, before, (last, carried[at], carried[at - 1])


def _ask_who_gave(world: World, dice: Dice) -> _Asked:
    first = len(world.events) - RECENT_FACTS
    gifts = {
        event.target: index
        for index, event in enumerate(world.events)
        if event.kind == GIVE and index >= first
    }
    if not gifts:
        return None
    index = gifts[dice.choose(sorted(gifts))]
    _, giver, thing, receiver = world.events[index]
    what = (f"What did {giver} give to {receiver}? ", thing)
    text, answer = dice.choose(
        (
            what,
            what,  # twice as likely in v1.2
            (f"Who gave the {thing}? ", giver),
            (f"Who received the {thing}? ", receiver),
            (f"Who gave the {thing} to {receiver}? ", giver),
            (f"Who did {giver} give the {thing} to? ", receiver),
        )
    )
    return text, answer, (index,)


_ASK = {
    "qa1": _ask_where_is_actor,
    "qa2": _ask_where_is_object,
    "qa3": _ask_where_was_object,
    "qa5": _ask_who_gave,
}


def _relations(dice: Dice) -> tuple[Question, ...]:
    rooms = list(LOCATIONS)
    middle, one, other = (rooms.pop(dice.below(len(rooms))) for _ in range(3))
    direction = dice.choose(tuple(OPPOSITE))
    events = []
    for room, where in ((one, direction), (other, OPPOSITE[direction])):
        if dice.chance(_MIDDLE_FIRST):
            events.append(Event(RELATION, middle, room, OPPOSITE[where]))
        else:
            events.append(Event(RELATION, room, middle, where))
    index = dice.below(2)
    answer, target, where = events[index].subject, events[index].target, events[index].other
    forms = (f"What is {where} of the {target}?", f"What is the {target} {OPPOSITE[where]} of?")
    facts = tuple(sentence(event, "", False) for event in events)
    return (Question(facts, dice.choose(forms), answer, "qa4", (index,)),)
