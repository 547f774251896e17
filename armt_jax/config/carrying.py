"""How difficult it is to keep invented people and things apart (BABILong's qa2 and qa3)."""

from __future__ import annotations

from typing import NamedTuple

# What can be asked: a person's place, a thing's holder, its place, and where each was before.
WHERE_IS_PERSON, WHO_HAS, WHERE_IS_THING, PERSON_BEFORE, THING_BEFORE = range(5)


class Carrying(NamedTuple):
    """What happens in invented stories of a difficulty, and what is asked about it.

    Attributes:
      asked: the kinds of questions, of the five above.
      chances: of a move, of taking a thing, of leaving one.
      most: people and things at most; a third of the facts, where it is None.
      places: at most so many, that are gone to again and again; 0: a new one for each move.
      first_ones: a share of the first two questions that is asked. Both are known by the time that
        few are told of again and again, and would be most of what is asked: a model that takes a
        thing that was left to be where who left it is now would look better than it is.
    """

    asked: tuple[int, ...]
    chances: tuple[float, float, float] = (0.4, 0.3, 0.3)
    most: tuple[int, int] | None = None
    places: int = 0
    first_ones: float = 1.0

    def sizes(self, facts: int) -> tuple[int, int, int]:
        """People, things and places of a story of so many facts, at most."""
        third = -(-facts // 3)  # more, and all of them are told of once
        return *(self.most or (third, third)), self.places or facts


_QA2 = (
    Carrying((WHERE_IS_PERSON, WHO_HAS), (0.4, 0.6, 0.0)),
    Carrying((WHERE_IS_PERSON, WHO_HAS, WHERE_IS_THING), (0.4, 0.6, 0.0)),
    Carrying((WHERE_IS_PERSON, WHO_HAS, WHERE_IS_THING)),
    Carrying((WHERE_IS_PERSON, WHO_HAS, WHERE_IS_THING), most=(4, 6), places=8, first_ones=0.2),
)
_ALL = (WHERE_IS_PERSON, WHO_HAS, WHERE_IS_THING, PERSON_BEFORE, THING_BEFORE)
# Which of two neighbours on a path came first is learnt where no place is visited twice.
_QA3 = (
    *_QA2,
    Carrying(_ALL[:4], (0.8, 0.1, 0.1), most=(3, 3), first_ones=0.2),
    Carrying(_ALL, (0.6, 0.25, 0.15), most=(3, 3), first_ones=0.2),
    Carrying(_ALL, most=(4, 6), places=8, first_ones=0.2),
)
CARRYING = {"qa2": _QA2, "qa3": _QA3}
