"""Result rows as lines: the lengths of one model and rule, its seeds put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from armt_jax.config import ConfigError
from armt_jax.evaluation.results import ResultRow


class SeriesKey(NamedTuple):
    """What the rows of one line have in common."""

    model: str
    rule: str
    key_size: int
    value_size: int


class Series(NamedTuple):
    """One line of a figure: at ``x[i]`` pairs, ``y[i]`` inside the band ``low[i]..high[i]``.

    ``seeds`` is the largest number of seeds behind a point: for one seed the band is its 95 %
    interval, for several ``y`` is their mean and the band their range. ``each`` has every seed's
    ``(x, y)``.
    """

    key: SeriesKey
    x: list[int]
    y: list[float]
    low: list[float]
    high: list[float]
    seeds: int
    each: tuple[tuple[int, float], ...] = ()


# Rows of one number of pairs, one per seed, by number of pairs in rising order.
Lengths = dict[int, list[ResultRow]]
# A row's value and the ends of its 95 % interval.
Quantity = Callable[[ResultRow], tuple[float, float, float]]


def group_rows(rows: Iterable[ResultRow], variant: str) -> dict[SeriesKey, Lengths]:
    """Rows of ``variant`` by model, rule and sizes, in order of appearance.

    Raises:
      ConfigError: no row of ``variant``, or two rows of one seed at one length (checkpoints of
        different steps are not different seeds: choose one).
    """
    chosen = [row for row in rows if row.variant == variant]
    if not chosen:
        raise ConfigError(f"rows: none is of variant {variant!r}")
    groups: dict[SeriesKey, Lengths] = {}
    for row in chosen:
        key = SeriesKey(row.model, row.rule, row.key_size, row.value_size)
        alike = groups.setdefault(key, {}).setdefault(row.num_pairs, [])
        for other in alike:
            if other.seed == row.seed:
                raise ConfigError(
                    f"rows: {row.rule}, seed {row.seed}, {row.num_pairs} pairs is there twice"
                    f" (steps {other.step} and {row.step}): must be one row per seed and length"
                )
        alike.append(row)
    return {key: dict(sorted(lengths.items())) for key, lengths in groups.items()}


def collect_series(rows: Iterable[ResultRow], variant: str, quantity: Quantity) -> list[Series]:
    """``quantity`` of the rows of ``variant`` as lines, seeds put together.

    Raises:
      ConfigError: as ``group_rows``.
    """
    return [_aggregate(*group, quantity) for group in group_rows(rows, variant).items()]


def _aggregate(key: SeriesKey, lengths: Lengths, quantity: Quantity) -> Series:
    most = max(len(alike) for alike in lengths.values())
    points = []
    for length, alike in lengths.items():
        triples = [quantity(row) for row in alike]
        values = [value for value, _, _ in triples]
        if most == 1:
            points.append((length, *triples[0]))
        else:
            points.append((length, sum(values) / len(values), min(values), max(values)))
    x, y, low, high = (list(column) for column in zip(*points, strict=True))
    each = tuple((n, quantity(row)[0]) for n, alike in lengths.items() for row in alike)
    return Series(key, x, y, low, high, most, each)


def labels(keys: Sequence[SeriesKey]) -> list[str]:
    """The rule, and whatever else differs between the keys."""
    models, _, key_sizes, value_sizes = (set(column) for column in zip(*keys, strict=True))
    names = []
    for key in keys:
        parts = [key.rule]
        if len(models) > 1 and key.model != key.rule:
            parts.insert(0, key.model)
        if len(key_sizes) > 1:
            parts.append(f"key size {key.key_size}")
        if len(value_sizes) > 1:
            parts.append(f"value size {key.value_size}")
        names.append(", ".join(parts))
    return names
