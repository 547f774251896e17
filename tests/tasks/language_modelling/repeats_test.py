"""Everything stands twice, in pieces of many lengths, and a context stays what it was."""

from __future__ import annotations

import numpy as np
import pytest

from armt_jax.tasks.language_modelling import Contexts, TokenDocuments
from armt_jax.tasks.language_modelling.repeats import said_twice


def pieces(found: np.ndarray) -> list[int]:
    """Lengths of the pieces of a text whose tokens were 0, 1, 2, ... before it was said twice."""
    lengths, start = [], 0
    while start < found.size:
        again = int(np.flatnonzero(found[start:] == found[start])[-1])
        if again == 0:  # cut off behind its first time
            break
        piece, second = found[start : start + again], found[start + again : start + 2 * again]
        np.testing.assert_array_equal(piece, np.arange(piece[0], piece[0] + again))
        np.testing.assert_array_equal(second, piece[: second.size])
        lengths.append(again)
        start += 2 * again
    return lengths


def test_every_piece_is_said_twice_in_a_row() -> None:
    text = np.arange(5000)
    found = said_twice(text, 16, np.random.default_rng(0))
    lengths = pieces(found)
    assert found.size == text.size
    assert sorted({*lengths}) == list(range(6, 17)), "all lengths from 6 to the longest"
    assert np.unique(found).size == pytest.approx(2500, abs=16), "half of the text, all of it"
    assert found[0] == 0
    assert (np.diff(np.unique(found)) == 1).all()


@pytest.mark.parametrize("size", [0, 1, 2, 5, 7, 40])
def test_a_text_keeps_its_length(size: int) -> None:
    found = said_twice(np.arange(size), 6, np.random.default_rng(size))
    assert found.size == size
    assert (found < max(1, size)).all()


def test_a_context_with_repeats_is_one_of_the_same_place_and_the_same_every_time() -> None:
    documents = TokenDocuments(np.arange(1000), np.array([0, 300, 1000]))
    plain, twice = Contexts(documents, 4, 16), Contexts(documents, 4, 16, repeats=9)
    assert len(plain) == len(twice)
    lengths = []
    for index in range(len(twice)):
        found, before = twice[index], plain[index]
        np.testing.assert_array_equal(found.context_mask, before.context_mask)
        count = twice.predicted(index)
        read, targets = found.context.reshape(-1)[:count], found.targets.reshape(-1)[:count]
        np.testing.assert_array_equal(read[1:], targets[:-1])
        assert read[0] == before.context.reshape(-1)[0]
        assert {*targets.tolist()} <= {*before.context.flat, *before.targets.flat}
        lengths.append(tuple(pieces(np.append(read, targets[-1]))))
        np.testing.assert_array_equal(found.context, twice[index].context)
    assert len({*lengths}) > 1, "not the same lengths in every context"
