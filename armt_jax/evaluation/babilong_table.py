"""Table 1 and Figure 3 of the paper: published rows, and ours beside them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from armt_jax.config import ConfigError
from armt_jax.evaluation.babilong_results import BabilongCell
from armt_jax.evaluation.figures import DPI, MARKERS, PALETTE, STYLE, save_figure
from armt_jax.evaluation.intervals import wilson_interval
from armt_jax.evaluation.published import LENGTHS, PUBLISHED, SOURCE
from armt_jax.tasks.babilong.sample import tokens_of_length

_ABSENT = "-"
_TRAINED: dict[str, Any] = {"lw": 2.0, "ms": 9.0}
_MEASURED: dict[str, Any] = {"lw": 1.0, "ms": 6.0}


class Headline(NamedTuple):
    """What a table shows of a cell, in percent; ``by_label`` says by which metric."""

    value: float
    low: float
    high: float
    by_label: bool


def headline(cell: BabilongCell) -> Headline:
    """Strict exact match; of a model that was not trained here, the label-constrained metric.

    Such a model may say the right thing in other words.
    """
    if cell.given is None or cell.label_correct is None:
        values = (cell.exact_match, cell.exact_match_low, cell.exact_match_high)
        return Headline(*(100 * value for value in values), by_label=False)
    interval = wilson_interval(cell.label_correct, cell.samples)
    share = 100 * cell.label_correct / cell.samples
    return Headline(share, 100 * interval.low, 100 * interval.high, by_label=True)


def name_of(cell: BabilongCell) -> str:
    """Whose cell it is.

    Such as ``ours: armt-gpt2-4x128, delta_hard, seed 0, trained to 1,024 tokens``, or for a model
    that was not trained here ``measured: gpt-4, few-shot, whole context``.
    """
    if cell.given is not None:
        return f"measured: {cell.model}, {cell.given}"
    trained = f"trained to {cell.trained_tokens:,} tokens"
    return f"ours: {cell.model}, {cell.rule}, seed {cell.seed}, {trained}"


def group_cells(cells: Sequence[BabilongCell]) -> dict[tuple[str, str], dict[str, BabilongCell]]:
    """Cells by (task, name), then by length, in order of task and length.

    Raises:
      ConfigError: two cells of one model at one length, or cells of several checkpoints of it.
    """
    groups: dict[tuple[str, str], dict[str, BabilongCell]] = {}
    for cell in sorted(cells, key=lambda c: (int(c.task[2:]), tokens_of_length(c.length))):
        group = groups.setdefault((cell.task, name_of(cell)), {})
        if cell.length in group:
            raise ConfigError(f"{cell.task}, {cell.length}, {name_of(cell)}: is there twice")
        group[cell.length] = cell
        steps = {one.step for one in group.values() if one.step is not None}
        if len(steps) > 1:
            raise ConfigError(
                f"{cell.task}, {name_of(cell)}: has cells of steps {sorted(steps)}; must be of one"
            )
    return groups


def markdown(cells: Sequence[BabilongCell]) -> str:
    """Exact match in percent; ours with 95 % interval and number of samples."""
    groups = group_cells(cells)
    lengths = sorted({*LENGTHS, *(cell.length for cell in cells)}, key=tokens_of_length)
    lines = [
        f"Exact match, %. Published: {SOURCE} (+-: standard deviation of the runs). Ours: 95 % "
        "Wilson interval, number of samples; another model and tokenizer, trained from scratch. "
        "Measured: models of others, by the label-constrained metric, exact match behind it.",
        "",
        f"| task | model | {' | '.join(lengths)} |",
        f"|---|---|{'---:|' * len(lengths)}",
    ]
    tasks = [*dict.fromkeys(row.task for row in PUBLISHED)]
    tasks += [task for task in dict.fromkeys(task for task, _ in groups) if task not in tasks]
    for task in tasks:
        for row in (row for row in PUBLISHED if row.task == task):
            values: dict[str, tuple[float | None, float | None]] = dict(
                zip(LENGTHS, zip(row.values, row.spread, strict=True), strict=True)
            )
            columns = (_published(*values.get(length, (None, None))) for length in lengths)
            lines.append(f"| {task} | {row.model} | {' | '.join(columns)} |")
        for (owner, name), group in groups.items():
            if owner == task:
                columns = (_ours(group.get(length)) for length in lengths)
                lines.append(f"| {task} | {name} | {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


def as_json(cells: Sequence[BabilongCell]) -> dict[str, Any]:
    """The table as plain values: ``published`` and ``ours``, a row for each task and model."""
    published = [
        {"task": r.task, "model": r.model, **dict(zip(LENGTHS, r.values, strict=True))}
        for r in PUBLISHED
    ]
    ours = [
        {
            "task": task,
            "model": name,
            "cells": [
                {
                    "length": cell.length,
                    "exact_match": 100 * cell.exact_match,
                    "low": 100 * cell.exact_match_low,
                    "high": 100 * cell.exact_match_high,
                    "label_match": None if cell.label_match is None else 100 * cell.label_match,
                    "samples": cell.samples,
                    "commit": cell.commit,
                }
                for cell in group.values()
            ],
        }
        for (task, name), group in group_cells(cells).items()
    ]
    return {"source": SOURCE, "lengths": list(LENGTHS), "published": published, "ours": ours}


def figure(path: str | os.PathLike[str], cells: Sequence[BabilongCell]) -> None:
    """Exact match (``headline``) against tokens, a panel for each task (paper, Fig. 3).

    Raises:
      ConfigError: no cells, or contradictory ones.
      OSError: the file cannot be written.
    """
    groups = group_cells(cells)
    tasks = [*dict.fromkeys(task for task, _ in groups)]
    if not tasks:
        raise ConfigError("cells = []: must hold at least one")
    models = [*dict.fromkeys(row.model for row in PUBLISHED if row.task in tasks)]
    styles = {
        model: {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)]}
        for i, model in enumerate(models)
    }
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(4.4 * len(tasks) + 2.6, 3.4), layout="constrained")
        panels = drawing.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
        for axes, task in zip(panels, tasks, strict=True):
            _draw_published(axes, task, styles)
            for (owner, name), group in groups.items():
                if owner == task:
                    _draw_ours(axes, name, group)
            axes.set(title=task, xlabel="Tokens in the context", xscale="log")
            axes.set_ylim(0, 104)
        panels[0].set_ylabel("Exact match (%)")
        handles = {h.get_label(): h for axes in panels for h in axes.get_lines()}
        handles = {name: line for name, line in handles.items() if not name.startswith("_")}
        drawing.legend(handles=list(handles.values()), loc="outside right center")
        drawing.set_dpi(DPI)
        save_figure(drawing, path)


def _draw_published(axes: Axes, task: str, styles: dict[str, dict[str, str]]) -> None:
    for row in (row for row in PUBLISHED if row.task == task):
        points = [
            (tokens_of_length(length), value, spread or 0.0)
            for length, value, spread in zip(LENGTHS, row.values, row.spread, strict=True)
            if value is not None
        ]
        x, y, spread = zip(*points, strict=True)
        axes.plot(x, y, "--", lw=1.0, label=row.model, **styles[row.model])  # pyright: ignore
        low = [value - s for value, s in zip(y, spread, strict=True)]
        high = [value + s for value, s in zip(y, spread, strict=True)]
        axes.vlines(x, low, high, lw=0.8, color=styles[row.model]["color"])


def _draw_ours(axes: Axes, name: str, group: dict[str, BabilongCell]) -> None:
    x = [max(1, tokens_of_length(length)) for length in group]
    shown = [headline(cell) for cell in group.values()]
    # Of others' models: a thinner line, so that the trained ones stand out.
    style = _TRAINED if next(iter(group.values())).given is None else _MEASURED
    axes.plot(x, [one.value for one in shown], "-", color="black", marker="*", label=name, **style)
    low, high = [one.low for one in shown], [one.high for one in shown]
    axes.fill_between(x, low, high, color="black", alpha=0.12, lw=0)


def _published(value: float | None, spread: float | None) -> str:
    if value is None:
        return _ABSENT
    return f"{value:.1f}" if spread is None else f"{value:.1f} +- {spread:.1f}"


def _ours(cell: BabilongCell | None) -> str:
    if cell is None:
        return _ABSENT
    value, low, high, by_label = headline(cell)
    exact = f", exact {100 * cell.exact_match:.1f}" if by_label else ""
    return f"{value:.1f} [{low:.1f}, {high:.1f}] (n={cell.samples}{exact})"
