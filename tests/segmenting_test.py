"""Where a text is cut: the lengths of left, right and center alignment, and runs of equal ones."""

from __future__ import annotations

import itertools

import pytest

from armt_jax import ConfigError
from armt_jax.recurrence.segmenting import groups, segment_lengths

SIZES = [(length, size) for length in range(1, 41) for size in range(1, 15)]


def _torch_split(length: int, size: int) -> list[int]:
    """``torch.split``: pieces of ``size`` until the text ends."""
    pieces = []
    while length > 0:
        pieces.append(min(size, length))
        length -= pieces[-1]
    return pieces


def _torch_chunk(length: int, chunks: int) -> list[int]:
    """``torch.chunk``: the smallest piece size that needs no more than ``chunks`` pieces."""
    size = next(size for size in range(1, length + 1) if size * chunks >= length)
    return _torch_split(length, size)


@pytest.mark.parametrize("alignment", ["left", "right", "center"])
def test_lengths_equal_the_torch_functions(alignment: str) -> None:
    """The authors split left to right, split the reversed text, or chunk it."""
    for length, size in SIZES:
        pieces = _torch_split(length, size)
        expected = {
            "left": pieces,
            "right": pieces[::-1],
            "center": _torch_chunk(length, len(pieces)),
        }[alignment]
        assert segment_lengths(length, size, alignment) == expected, (length, size)


def test_center_evens_out_as_many_segments_as_left_has() -> None:
    assert segment_lengths(9, 8, "center") == [5, 4]
    assert segment_lengths(21, 10, "center") == [7, 7, 7]
    # All but the last are equal, which need not be as even as it could be.
    assert segment_lengths(16, 5, "center") == [4, 4, 4, 4]
    assert segment_lengths(13, 4, "center") == [4, 4, 4, 1]
    for length, size in SIZES:
        center = segment_lengths(length, size, "center")
        assert len(center) == len(segment_lengths(length, size, "left")), (length, size)


def test_alignment_is_left_by_default() -> None:
    assert segment_lengths(10, 4) == [4, 4, 2]


def test_groups_are_the_longest_runs_of_equal_segments() -> None:
    for length, size in SIZES:
        for alignment in ("left", "right", "center"):
            lengths = segment_lengths(length, size, alignment)
            runs = groups(lengths)
            assert [n for _, count, n in runs for _ in range(count)] == lengths
            starts = [sum(lengths[: sum(c for _, c, _ in runs[:i])]) for i in range(len(runs))]
            assert [first for first, _, _ in runs] == starts
            assert all(a[2] != b[2] for a, b in itertools.pairwise(runs))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 4, "middle"), "alignment = 'middle': must be one of left, right, center"),
        ((10, 0, "left"), "segment_size = 0: must be at least 1"),
        ((10, -3, "left"), "segment_size = -3: must be at least 1"),
        ((0, 4, "center"), "text length = 0: there is nothing to read"),
    ],
)
def test_what_cannot_be_cut_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        segment_lengths(*arguments)
    assert str(error.value) == message
