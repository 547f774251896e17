"""Writing a figure of associative retrieval: PNG, Markdown and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from armt_jax.evaluation.figures import capacity_figure, exact_match_figure
from armt_jax.evaluation.results import atomic_write
from experiments import figure_tables, table2
from experiments.figure_data import load_figure


def write_figure(results: Path, out: Path, figure: str, *, mixed_versions: bool = False) -> str:
    """``NAME.png``, ``NAME.md`` and ``NAME.json`` in ``out``; returns the Markdown.

    Without a single run there is no PNG, and all runs are named as missing.

    Raises:
      ConfigError: as ``load_figure``.
      OSError: a file cannot be written.
    """
    data = load_figure(results, figure, mixed_versions=mixed_versions)
    text = figure_tables.markdown(data)
    _write(out / figure, text, figure_tables.as_json(data))
    rows = data.drawn_rows()
    if not rows:
        return text
    trained = data.plan.trained_pairs
    if data.plan.variant == "remember":
        capacity_figure(out / f"{figure}.png", rows, trained_pairs=trained)
    else:
        exact_match_figure(out / f"{figure}.png", rows, variant="rewrite", trained_pairs=trained)
    return text


def write_table2(results: Path, out: Path, *, mixed_versions: bool = False) -> str:
    """``table2.md`` and ``table2.json`` in ``out``; returns the Markdown.

    Raises: as ``table2.derive``.
    """
    table = table2.derive(results, mixed_versions=mixed_versions)
    text = table2.markdown(table)
    _write(out / "table2", text, table2.as_json(table))
    return text


def _write(path: Path, text: str, values: object) -> None:
    atomic_write(path.with_suffix(".md"), text.encode())
    atomic_write(path.with_suffix(".json"), (json.dumps(values, indent=1) + "\n").encode())
