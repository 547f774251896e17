"""Figures of result rows and of a training, as PNG files written whole or not at all.

Colours are Okabe and Ito's (2008), told apart by colour-blind readers; every series has its own
marker too, so that a figure survives a black-and-white printer. No global state of matplotlib is
used or changed, and no display is needed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from armt_jax.config import ConfigError
from armt_jax.evaluation.results import ResultRow, atomic_write
from armt_jax.evaluation.series import Series, collect_series, labels
from armt_jax.evaluation.training_log import Point, Stage, TrainingLog
from armt_jax.memory.rules import PRESETS

PALETTE = (
    "#0072B2",  # blue
    "#D55E00",  # vermillion
    "#009E73",  # bluish green
    "#CC79A7",  # reddish purple
    "#E69F00",  # orange
    "#56B4E9",  # sky blue
    "#000000",  # black
    "#F0E442",  # yellow
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
REFERENCE = "#666666"
STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 5.0,
    "lines.markeredgecolor": "white",
    "lines.markeredgewidth": 0.6,
    "legend.fontsize": 8.0,
    "legend.title_fontsize": 8.0,
    "legend.frameon": False,
}
DPI = 300
COUNTED = {"remember": "Key-value pairs in the context", "rewrite": "Memory updates"}


def capacity_figure(
    path: str | os.PathLike[str], rows: Sequence[ResultRow], *, trained_pairs: int | None = None
) -> None:
    """Estimated stored pairs against pairs in the context, beside the identity (paper, Fig. 2a).

    Args:
      path: of the PNG.
      rows: of any models and rules, one checkpoint per seed; only ``remember`` is drawn.
      trained_pairs: the longest context of the training, marked by a vertical line.

    Raises:
      ConfigError: no row of remember, or two rows of one seed at one length.
      OSError: the file cannot be written.
    """

    def capacity(row: ResultRow) -> tuple[float, float, float]:
        values = (row.capacity, row.capacity_low, row.capacity_high)
        value, low, high = (0.0 if x is None else x for x in values)
        return value, low, high

    series = collect_series(rows, "remember", capacity)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.4), layout="constrained")
        axes = figure.add_subplot()
        longest = max(max(line.x) for line in series)
        axes.plot(
            [0, longest], [0, longest], "--", color=REFERENCE, lw=1.0, label="all pairs stored"
        )
        _draw(axes, series)
        _mark_trained(axes, trained_pairs)
        axes.set(xlabel=f"{COUNTED['remember']} (count)", ylabel="Estimated stored pairs (count)")
        axes.set_xlim(0, 1.04 * longest)
        axes.set_ylim(0, 1.04 * longest)
        _legend(figure, series)
        save_figure(figure, path)


def exact_match_figure(
    path: str | os.PathLike[str],
    rows: Sequence[ResultRow],
    *,
    variant: str,
    trained_pairs: int | None = None,
) -> None:
    """Exact match against the number of updates or pairs, on a log axis (paper, Figs. 2b, 4a).

    Args:
      path: of the PNG.
      rows: of any models and rules, one checkpoint per seed; only ``variant`` is drawn.
      variant: ``rewrite`` (the axis counts updates) or ``remember`` (pairs).
      trained_pairs: the longest context of the training, marked by a vertical line.

    Raises:
      ConfigError: unknown variant, no row of it, or two rows of one seed at one length.
      OSError: the file cannot be written.
    """
    if variant not in COUNTED:
        raise ConfigError(f"variant = {variant!r}: must be one of {', '.join(COUNTED)}")

    def percent(row: ResultRow) -> tuple[float, float, float]:
        return 100 * row.exact_match, 100 * row.exact_match_low, 100 * row.exact_match_high

    series = collect_series(rows, variant, percent)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.9), layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, series)
        _mark_trained(axes, trained_pairs)
        axes.set_xscale("log")
        lengths = [x for line in series for x in line.x]
        # Labels at 1, 2 and 5 run into each other over more than three decades.
        wide = max(lengths) > 1000 * min(lengths)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel=f"{COUNTED[variant]} (count, log scale)", ylabel="Exact match (%)")
        lowest = min(min(line.low) for line in series)
        # Room above 100 % for the markers; a flat line at 100 % still gets a readable scale.
        bottom = max(0.0, min(lowest - 0.05 * (100 - lowest), 98.0))
        axes.set_ylim(bottom, 100 + 0.03 * (100 - bottom))
        _legend(figure, series)
        save_figure(figure, path)


def training_figure(path: str | os.PathLike[str], log: TrainingLog) -> None:
    """Exact match and loss against optimizer steps, the curriculum's stages marked.

    Raises:
      ConfigError: a log with neither losses nor exact matches.
      OSError: the file cannot be written.
    """
    if not log.loss and not log.exact_match:
        raise ConfigError("log: has neither losses nor exact matches to draw")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.2), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        for piece in _by_stage(log.exact_match, log.stages):
            steps, values = [p.step for p in piece], [100 * p.value for p in piece]
            upper.plot(steps, values, "o-", color=PALETTE[0], ms=3.5, lw=1.2)
        upper.set(ylabel="Exact match (%)", ylim=(-3, 103))
        lower.plot([p.step for p in log.loss], [p.value for p in log.loss], color=PALETTE[1], lw=1)
        lower.set(xlabel="Optimizer step (count)", ylabel="Loss (nats per token)")
        if any(point.value > 0 for point in log.loss):
            lower.set_yscale("log", nonpositive="mask")
        last = max(point.step for point in (*log.loss, *log.exact_match, *log.stages))
        lower.set_xlim(0, 1.01 * max(1, last))
        lower.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        _mark_stages(upper, lower, log, last)
        save_figure(figure, path)


def _draw(axes: Axes, series: Sequence[Series]) -> None:
    names = labels([line.key for line in series])
    rules = [line.key.rule for line in series]
    # A rule keeps its colour from figure to figure where the rule alone tells the lines apart.
    by_rule = len(set(rules)) == len(rules) and all(rule in PRESETS for rule in rules)
    for index, (line, name) in enumerate(zip(series, names, strict=True)):
        label = f"{name} ({line.seeds} seeds)" if line.seeds > 1 else name
        style = list(PRESETS).index(rules[index]) if by_rule else index
        color = PALETTE[style % len(PALETTE)]
        marker = MARKERS[style % len(MARKERS)]
        dashes = "-" if style < len(PALETTE) else ":"
        axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.18, lw=0)
        if line.seeds > 1:
            axes.scatter(*zip(*line.each, strict=True), s=6, color=color, alpha=0.6, lw=0)
        axes.plot(
            line.x, line.y, dashes, marker=marker, color=color, label=label, clip_on=False, zorder=3
        )


def _legend(figure: Figure, series: Sequence[Series]) -> None:
    """Above the axes, where it hides nothing whatever the lines do."""
    title = _legend_title(series)
    figure.legend(loc="outside upper left", ncols=2, title=title, alignment="left")


def _legend_title(series: Sequence[Series]) -> str:
    bands = {line.seeds > 1: None for line in series}
    single, several = "band: 95 % interval", "mean and range over seeds"
    if len(bands) == 2:
        return f"{several} (one seed: 95 % interval)"
    return several if True in bands else single


def _mark_trained(axes: Axes, trained_pairs: int | None) -> None:
    if trained_pairs is None:
        return
    if trained_pairs < 1:
        raise ConfigError(f"trained_pairs = {trained_pairs}: must be at least 1")
    label = f"longest in training ({trained_pairs:,})"
    axes.axvline(trained_pairs, color=REFERENCE, ls=":", lw=1.2, label=label)


def _by_stage(points: Sequence[Point], stages: Sequence[Stage]) -> list[list[Point]]:
    """Exact match of one stage and the next answer different questions: no line joins them."""
    pieces: list[list[Point]] = [[] for _ in range(len(stages) + 1)]
    for point in points:
        pieces[sum(stage.step <= point.step for stage in stages)].append(point)
    return pieces


def _mark_stages(upper: Axes, lower: Axes, log: TrainingLog, last: int) -> None:
    """Shade every other stage and name each above the upper panel, labels kept apart."""
    ends = [*(stage.step for stage in log.stages[1:]), last][: len(log.stages)]
    place = -1.0
    for index, (stage, end) in enumerate(zip(log.stages, ends, strict=True)):
        start = 0 if index == 0 else stage.step
        for axes in (upper, lower):
            if index % 2 == 1:
                axes.axvspan(start, end, color="#000000", alpha=0.05, lw=0)
        place = max(start / max(1, last), place + 0.035)
        upper.text(
            place, 1.02, stage.label, transform=upper.transAxes, rotation=45,
            fontsize=7, color=REFERENCE, ha="left", va="bottom", rotation_mode="anchor",
        )  # fmt: skip


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG, whole or not at all."""
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(content, format="png", dpi=DPI)
    atomic_write(path, content.getvalue())
