"""What the paper says of its figures, and whether the runs here show it.

The paper's figures carry no numbers; its claims do without them too. Every claim is decided by
stated thresholds and by the spread of the seeds, and says which numbers decided it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from armt_jax.evaluation.intervals import MeanInterval
from experiments.figure_data import FigureData

EXACT = 0.99  # exact match that counts as exact
BROKEN = 0.9  # exact match below which a memory has broken
LOSS = 0.01  # of exact match, which counts as degrading
HOLDS, FAILS, OPEN = "holds here", "does not hold here", "not decided here"


class Verdict(NamedTuple):
    """``outcome``: one of ``HOLDS``, ``FAILS``, ``OPEN``; ``numbers``: what decided it."""

    outcome: str
    numbers: str


class Claim(NamedTuple):
    """``text``: what the paper says; ``decide``: what the runs say of it."""

    text: str
    decide: Callable[[FigureData], Verdict]


def more_stored(first: str, second: str) -> Callable[[FigureData], Verdict]:
    """Whether ``first`` stores more pairs than ``second``, each at the length it stores most."""

    def decide(data: FigureData) -> Verdict:
        one, other = best_capacity(data, first), best_capacity(data, second)
        if one is None or other is None:
            return _not_there(data, first, second)
        numbers = f"{first} {_pairs(one)}, {second} {_pairs(other)}"
        if one.low > other.high:
            return Verdict(HOLDS, numbers)
        return Verdict(FAILS if other.mean >= one.mean else OPEN, numbers)

    return decide


def not_more_stored(first: str, second: str) -> Callable[[FigureData], Verdict]:
    """Whether ``first`` stores no more pairs than ``second``."""

    def decide(data: FigureData) -> Verdict:
        one, other = best_capacity(data, first), best_capacity(data, second)
        if one is None or other is None:
            return _not_there(data, first, second)
        numbers = f"{first} {_pairs(one)}, {second} {_pairs(other)}"
        return Verdict(FAILS if one.low > other.high else HOLDS, numbers)

    return decide


def exact_to(model: str, length: int) -> Callable[[FigureData], Verdict]:
    """Whether ``model`` is exact at every length to ``length``."""

    def decide(data: FigureData) -> Verdict:
        lengths = [n for n in data.plan.lengths if n <= length]
        found = [(n, data.match(model, n)) for n in lengths]
        if length not in lengths or any(match is None for _, match in found):
            return _not_there(data, model)
        worst, match = min(((n, m) for n, m in found if m is not None), key=lambda nm: nm[1].mean)
        numbers = f"{model}: lowest {percent(match)} at {worst}"
        return Verdict(HOLDS if match.mean >= EXACT else FAILS, numbers)

    return decide


def degrades(model: str, length: int) -> Callable[[FigureData], Verdict]:
    """Whether ``model`` loses exact match between the trained length and ``length``."""

    def decide(data: FigureData) -> Verdict:
        trained = data.plan.trained_pairs
        before, after = data.match(model, trained), data.match(model, length)
        if before is None or after is None:
            return _not_there(data, model)
        numbers = f"{model}: {percent(before)} at {trained}, {percent(after)} at {length}"
        return Verdict(HOLDS if after.mean < before.mean - LOSS else FAILS, numbers)

    return decide


def breaks(model: str, length: int) -> Callable[[FigureData], Verdict]:
    """Whether ``model`` is right at the trained length and broken somewhere up to ``length``."""

    def decide(data: FigureData) -> Verdict:
        trained = data.plan.trained_pairs
        before = data.match(model, trained)
        lengths = [n for n in data.plan.lengths if trained < n <= length]
        later = [(n, match) for n in lengths if (match := data.match(model, n)) is not None]
        if before is None or not later:
            return _not_there(data, model)
        numbers = (
            f"{model}: {percent(before)} at {trained}, {percent(later[-1][1])} at {later[-1][0]}"
        )
        if before.mean < BROKEN:
            return Verdict(OPEN, f"{numbers}: not learnt at the trained length")
        broken = [n for n, match in later if match.mean < BROKEN]
        if broken:
            return Verdict(HOLDS, f"{numbers}: below {100 * BROKEN:.0f} % from {broken[0]} on")
        return Verdict(FAILS, numbers)

    return decide


def best_capacity(data: FigureData, model: str) -> MeanInterval | None:
    """Of the figure's lengths, the one at which most pairs are stored on average."""
    found = [data.capacity(model, length) for length in data.plan.lengths]
    there = [capacity for capacity in found if capacity is not None]
    return max(there, key=lambda capacity: capacity.mean) if there else None


def percent(match: MeanInterval) -> str:
    """``99.8 % [99.4, 100.0]``."""
    return f"{100 * match.mean:.1f} % [{100 * match.low:.1f}, {100 * match.high:.1f}]"


def _pairs(capacity: MeanInterval) -> str:
    return f"{capacity.mean:.1f} pairs [{capacity.low:.1f}, {capacity.high:.1f}]"


def _not_there(data: FigureData, *models: str) -> Verdict:
    names = [name for name in models if not data.of(name)]
    return Verdict(OPEN, f"no run of {', '.join(names)}" if names else "lengths are missing")


CLAIMS: dict[str, tuple[Claim, ...]] = {
    "fig2a": (
        Claim("ARMT stores more than Mamba at equal state", more_stored("armt", "mamba")),
        Claim("Mamba stores more than RMT", more_stored("mamba", "rmt")),
        Claim("PRMT stores no more than RMT", not_more_stored("prmt", "rmt")),
    ),
    "fig2b": (
        Claim("ARMT, trained on 50 updates, is exact to 500", exact_to("armt", 500)),
        Claim("Mamba loses beyond the trained length", degrades("mamba", 500)),
        Claim("RMT loses beyond the trained length", degrades("rmt", 500)),
    ),
    "fig4a": (
        Claim("with gamma ARMT is exact to 500 updates", exact_to("armt", 500)),
        Claim("without gamma it breaks after hundreds of updates", breaks("armt_no_gamma", 500)),
    ),
    "fig4b": (
        Claim("PRMT stores no more than RMT", not_more_stored("prmt", "rmt")),
        Claim("nor does PRMT as described", not_more_stored("prmt_layerwise", "rmt")),
        Claim("ARMT stores more than PRMT", more_stored("armt", "prmt")),
    ),
    "ablations": (),
}
