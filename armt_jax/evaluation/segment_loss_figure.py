"""Loss against segment position: a line a model and one for its control (paper, Fig. 6)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from armt_jax.config import ConfigError
from armt_jax.evaluation import segment_loss_table
from armt_jax.evaluation.figures import MARKERS, PALETTE, REFERENCE, STYLE, save_figure
from armt_jax.evaluation.language_modelling_results import SegmentLossRow, read_rows
from armt_jax.evaluation.results import atomic_write

PATTERN = "language_modelling*.json"
_LINES = {"kept": "-", "reset": "--"}


class _Key(NamedTuple):
    """What the seeds of one line have in common."""

    model: str
    rule: str
    trained_memory: str
    memory: str


def segment_loss_figure(path: str | os.PathLike[str], rows: Sequence[SegmentLossRow]) -> None:
    """Bits per byte at each segment position; seeds put together as mean and range.

    A model has one colour and marker; its control, the memory reset in front of every segment, is
    dashed. The vertical line is the longest context of the training.

    Raises:
      ConfigError: no rows, or rows of several texts or sizes of segments.
      OSError: the file cannot be written.
    """
    texts = {(row.dataset, row.split, row.segment_size, row.vocab_size) for row in rows}
    if len(texts) != 1:
        raise ConfigError(
            f"rows of {len(texts)} texts, segment sizes and vocabularies: must be of one"
        )
    dataset, split, size, _ = texts.pop()
    groups: dict[_Key, list[SegmentLossRow]] = {}
    for row in rows:
        key = _Key(row.model, row.rule, row.trained_memory, row.memory)
        groups.setdefault(key, []).append(row)
    models = [*dict.fromkeys(key[:3] for key in groups)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for key, alike in groups.items():
            _draw(axes, key, alike, models.index(key[:3]))
        trained = max(row.trained_segments for row in rows)
        label = f"longest in training ({trained})"
        axes.axvline(trained, color=REFERENCE, ls=":", lw=1.2, label=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(
            xlabel=f"Segment of {size} tokens (position in the context)",
            ylabel=f"Loss on {dataset}, {split} (bits per byte)",
        )
        figure.legend(loc="outside upper left", ncols=2, alignment="left", fontsize="small")
        save_figure(figure, path)


def read_all(results: Path) -> list[SegmentLossRow]:
    """The rows of all ``language_modelling*.json`` of a folder.

    Raises:
      ConfigError: a file of another kind.
    """
    return [row for file in sorted(results.glob(PATTERN)) for row in read_rows(file)]


def longest_trained(rows: Sequence[SegmentLossRow]) -> list[SegmentLossRow]:
    """Those rows whose model was trained for as many steps as any: lines of one figure compare."""
    steps = max((row.step for row in rows), default=0)
    return [row for row in rows if row.step == steps]


def _draw(axes: Axes, key: _Key, rows: Sequence[SegmentLossRow], index: int) -> None:
    color, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
    values = list(zip(*(row.bits_per_byte for row in rows), strict=True))
    x = range(1, len(values) + 1)
    name = key.model if key.rule in key.model else f"{key.model}, {key.rule}"
    trained = ", trained with resets" if key.trained_memory == "reset" else ""
    control = ", memory reset" if key.memory == "reset" else ""
    seeds = f" ({len(rows)} seeds)" if len(rows) > 1 else ""
    mean = [sum(column) / len(column) for column in values]
    low, high = [min(column) for column in values], [max(column) for column in values]
    axes.fill_between(x, low, high, color=color, alpha=0.18, lw=0)
    label = f"{name}{trained}{control}{seeds}"
    axes.plot(x, mean, _LINES[key.memory], color=color, marker=marker, ms=3.5, label=label)


def fig6(results: Path, out: Path) -> None:
    """``fig6`` as PNG, Markdown and JSON in ``out``, of all ``language_modelling*.json``.

    The table has a line for every length of training, the figure shows the longest.

    Raises:
      ConfigError: no such file, or one of another kind.
    """
    rows = read_all(results)
    if not rows:
        raise ConfigError(
            f"--results = {str(results)!r}: has no {PATTERN}; experiments.evaluate writes "
            "evaluation/language_modelling.json in the folder of a run"
        )
    segment_loss_figure(out / "fig6.png", longest_trained(rows))
    text = segment_loss_table.markdown(rows)
    atomic_write(out / "fig6.md", text.encode())
    content = json.dumps(segment_loss_table.as_json(rows), indent=1) + "\n"
    atomic_write(out / "fig6.json", content.encode())
    print(text)
