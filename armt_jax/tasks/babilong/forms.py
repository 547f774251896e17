"""bAbI's sentences as ids with places for names: what invented facts are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from armt_jax.config import ConfigError


class Form(NamedTuple):
    """A sentence with places for names.

    Attributes:
      ids: of the sentence with some names in it.
      slots: positions of the names, in the order of the sentence.
    """

    ids: tuple[int, ...]
    slots: tuple[int, ...]

    def of(self, *names: int) -> list[int]:
        """The sentence about ``names``."""
        filled = [*self.ids]
        for slot, name in zip(self.slots, names, strict=True):
            filled[slot] = name
        return filled


def form_of(one: Sequence[int], other: Sequence[int], slots: int, words: Sequence[str]) -> Form:
    """The form of one sentence, given twice: its names are where the two differ.

    Args:
      one: ids of the sentence.
      other: of the same with other names.
      slots: how many names it has.
      words: what stands in those places, for the message.

    Raises:
      ConfigError: a name is not one token, or not the same wherever it stands.
    """
    differ = tuple(at for at, pair in enumerate(zip(one, other, strict=False)) if len({*pair}) > 1)
    if len(differ) != slots or len(one) != len(other):
        raise ConfigError(
            "curriculum.names: needs a tokenizer with "
            + " and ".join(map(repr, words))
            + " as one token each, within a sentence"
        )
    return Form(tuple(one), differ)
