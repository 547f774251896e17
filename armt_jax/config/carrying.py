"""How difficult it is to keep invented people and things apart (BABILong's qa2 and qa3)."""

from __future__ import annotations

from typing import NamedTuple

# What can be asked: a person's place, a thing's holder, its place, who went to a place, and where a
# person and a thing were before they were at one.
WHERE_IS_PERSON, WHO_HAS, WHERE_IS_THING, WHO_WENT, PERSON_BEFORE, THING_BEFORE = range(6)


class Carrying(NamedTuple):
    """What happens in invented stories of a difficulty, and what is asked about it.

    Attributes:
      asked: the kinds of questions, of those above.
      chances: of a move, of taking a thing, of leaving one.
      most: people and things at most; a third of the facts, where it is None.
      places: at most so many, that are gone to again and again; 0: a new one for each move.
      seldom: kinds of which only a fifth is asked. They are known by then, and would be most of
        what is asked: a model that takes a thing that was left to be where who left it is now
        would look better than it is.
    """

    asked: tuple[int, ...]
    chances: tuple[float, float, float] = (0.4, 0.3, 0.3)
    most: tuple[int, int] | None = None
    places: int = 0
    seldom: tuple[int, ...] = ()

    def sizes(self, facts: int) -> tuple[int, int, int]:
        """People, things and places of a story of so many facts, at most."""
        third = -(-facts // 3)  # more, and all of them are told of once
        return *(self.most or (third, third)), self.places or facts


_FIRST = (WHERE_IS_PERSON, WHO_HAS)
_QA2 = (
    Carrying(_FIRST, (0.4, 0.6, 0.0)),
    Carrying((*_FIRST, WHERE_IS_THING), (0.4, 0.6, 0.0)),
    Carrying((*_FIRST, WHERE_IS_THING)),
    Carrying((*_FIRST, WHERE_IS_THING), most=(4, 6), places=8, seldom=_FIRST),
)
_BEFORE = (PERSON_BEFORE, THING_BEFORE)
_WENT = (*_FIRST, WHO_WENT)
# Who was where before is again two steps: who came, and where they were then. On paths that go
# nowhere twice a place says both. To be written under a place as well as under a person is learnt
# from the first step, or hardly ever: qa2's difficulties are no way to get here.
_QA3 = (
    Carrying(_WENT, (0.8, 0.1, 0.1), (3, 3)),
    Carrying((*_WENT, PERSON_BEFORE), (0.8, 0.1, 0.1), (3, 3), seldom=_WENT),
    Carrying((*_FIRST, WHERE_IS_THING, *_BEFORE), (0.6, 0.25, 0.15), (3, 3), seldom=_FIRST),
    Carrying((*_FIRST, WHERE_IS_THING, *_BEFORE), most=(4, 6), places=8, seldom=_FIRST),
)
CARRYING = {"qa2": _QA2, "qa3": _QA3}
