"""Cutting a text into segments: left, right or center alignment."""

from __future__ import annotations

import numpy as np

from armt_jax.config import ConfigError

ALIGNMENTS = ("left", "right", "center")


def segment_lengths(length: int, segment_size: int, alignment: str = "left") -> list[int]:
    """Lengths of the segments of a text of ``length`` tokens.

    ``left``: the last one is ragged; ``right``: the first one is; ``center``:
    ``ceil(length / segment_size)`` chunks as equal as ``torch.chunk`` makes them (all but the last
    ``ceil(length / chunks)`` long).

    Raises:
      ConfigError: empty text, or a size or alignment that cannot be.
    """
    if alignment not in ALIGNMENTS:
        raise ConfigError(f"alignment = {alignment!r}: must be one of {', '.join(ALIGNMENTS)}")
    if segment_size < 1:
        raise ConfigError(f"segment_size = {segment_size}: must be at least 1")
    if length < 1:
        raise ConfigError(f"text length = {length}: there is nothing to read")
    if alignment == "center":
        chunks = -(-length // segment_size)
        segment_size = -(-length // chunks)
    full, rest = divmod(length, segment_size)
    ragged = [rest] if rest else []
    sizes = [segment_size] * full
    return ragged + sizes if alignment == "right" else sizes + ragged


def check_overlap(segment_size: int, overlap: int) -> None:
    """Segments of ``segment_size`` may repeat ``overlap`` tokens of the one before.

    Raises:
      ConfigError: they may not.
    """
    if not 0 <= overlap < segment_size:
        raise ConfigError(
            f"segment_overlap = {overlap}: must be from 0 to {segment_size - 1}, below the segment"
        )


def count_overlapping(length: int, segment_size: int, overlap: int) -> int:
    """Whole segments of a text of ``length`` tokens, of which each repeats ``overlap``."""
    return max(0, (length - overlap) // (segment_size - overlap))


def overlapping(tokens: np.ndarray, segment_size: int, overlap: int) -> np.ndarray:
    """The whole segments ``[..., s, t]`` of ``tokens [..., n]``; each repeats ``overlap`` tokens.

    What of a text is no longer than ``overlap + 1`` tokens stands whole in one of them.
    """
    if count_overlapping(tokens.shape[-1], segment_size, overlap) == 0:
        return np.zeros((*tokens.shape[:-1], 0, segment_size), tokens.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, segment_size, axis=-1)
    return windows[..., :: segment_size - overlap, :]


def front_padding(length: int, segment_size: int, overlap: int, held: int = 0) -> int:
    """Tokens in front of a text of ``length`` so that whole segments hold all of it.

    ``held`` tokens stand before it: the last ``overlap`` of what was read, or more.
    """
    total = held + length
    if length > 0 and total < segment_size:
        return segment_size - total
    return (overlap - total) % (segment_size - overlap)


def groups(lengths: list[int]) -> list[tuple[int, int, int]]:
    """Runs of equal segments as ``(first token, number of segments, length)``."""
    runs: list[tuple[int, int, int]] = []
    start = 0
    for length in lengths:
        if runs and runs[-1][2] == length:
            first, count, _ = runs[-1]
            runs[-1] = (first, count + 1, length)
        else:
            runs.append((start, 1, length))
        start += length
    return runs
