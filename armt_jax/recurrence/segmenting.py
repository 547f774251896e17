"""Cutting a text into segments: left, right or center alignment."""

from __future__ import annotations

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
