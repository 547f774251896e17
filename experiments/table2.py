"""Table 2, what each model can do, derived from measured figures by the thresholds below.

Nothing is typed in but what the paper prints, which stands beside it. A figure that is missing, or
a model without runs in it, is a question mark.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.evaluation.language_modelling_results import SegmentLossRow
from armt_jax.evaluation.segment_loss_figure import longest_trained, read_all
from armt_jax.evaluation.segment_loss_table import lines
from armt_jax.evaluation.tables import to_markdown
from armt_jax.models import create_model
from armt_jax.models.protocol import Segment
from experiments.figure_claims import best_capacity
from experiments.figure_data import FigureData, load_figure

MODELS = ("mamba", "rmt", "prmt", "armt")
COLUMNS = ("Segmentation", "Memory capacity", "Working memory", "LM", "Length extrapolation")
YES, WELL, NO, OPEN = "✓", "✓✓", "✗", "?"
# What the paper prints (arXiv 2407.04841, Table 2).
PUBLISHED = {
    "mamba": (NO, YES, YES, WELL, YES),
    "rmt": (YES, OPEN, YES, OPEN, YES),
    "armt": (YES, WELL, YES, OPEN, WELL),
}
# Shares of the pairs that were trained on which are stored, at best (Figure 2a).
STORED, STORED_WELL = 0.3, 0.8
# Exact match at the trained number of updates (Figure 2b).
WORKING = 0.95
# Share of the loss that a memory saves over its own reset (Figure 6).
SAVED, SAVED_WELL = 0.01, 0.02
# The longest context with that exact match, over the trained one (Figure 2b).
LONGER, LONGER_WELL = 2.0, 10.0
THRESHOLDS = (
    f"Segmentation: {YES} what was said in one segment reaches the next (a small random model, "
    "read segment by segment; the paper means the implementation of Mamba that it used).",
    f"Memory capacity (Figure 2a): {YES} stores at best {100 * STORED:.0f} % of the pairs that "
    f"were trained on, {WELL} {100 * STORED_WELL:.0f} %.",
    f"Working memory (Figure 2b): {YES} exact match of {100 * WORKING:.0f} % at the trained "
    "number of updates.",
    f"LM (Figure 6): {YES} the memory saves {100 * SAVED:.0f} % of the loss over the same model's "
    f"with its memory reset in front of every segment, {WELL} {100 * SAVED_WELL:.0f} %.",
    f"Length extrapolation (Figure 2b): {YES} that exact match at {LONGER:.0f} times the trained "
    f"number of updates and at all measured below, {WELL} at {LONGER_WELL:.0f} times.",
)


class Mark(NamedTuple):
    """``mark``: one of ``YES``, ``WELL``, ``NO``, ``OPEN``; ``why``: the numbers."""

    mark: str
    why: str


@dataclasses.dataclass(frozen=True)
class Table2:
    """Attributes: marks by model, in the order of ``COLUMNS``; and which figures were missing."""

    marks: dict[str, tuple[Mark, ...]]
    missing: tuple[str, ...]


def derive(results: Path, *, mixed_versions: bool = False) -> Table2:
    """The table of what ``results`` holds.

    Raises:
      ConfigError: none of the figures is there, or as ``load_figure`` and ``read_all``.
    """
    figures: dict[str, FigureData] = {}
    missing = []
    for name in ("fig2a", "fig2b"):
        if not (results / "figures" / f"{name}.json").is_file():
            missing.append(f"{name} was not swept")
            continue
        figures[name] = data = load_figure(results, name, mixed_versions=mixed_versions)
        missing += [f"{name}: {one}" for one in data.missing]
    modelled = longest_trained(read_all(results))
    if not modelled:
        missing.append("fig6 has no language_modelling*.json")
    if not figures and not modelled:
        raise ConfigError(
            f"--results = {str(results)!r}: has neither figures/fig2a.json nor figures/fig2b.json, "
            "which experiments.sweep writes, nor a language_modelling*.json: table2 needs one"
        )
    remember, rewrite = figures.get("fig2a"), figures.get("fig2b")
    marks = {
        model: (
            _segmentation(model),
            _capacity(remember, model),
            _working(rewrite, model),
            _language_modelling(modelled, model),
            _extrapolation(rewrite, model),
        )
        for model in MODELS
    }
    return Table2(marks, tuple(missing))


def _segmentation(model: str) -> Mark:
    """Whether what a segment says reaches a later segment that is read after it."""
    config = ModelConfig(
        family=model, n_layer=1, n_head=1, d_model=8, vocab_size=8, n_positions=32, d_mem=4
    )
    made = create_model(config)
    shapes = jax.eval_shape(made.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    # At random: as they start, some matrices of a memory are zero and nothing is remembered.
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)
    step = jax.jit(made.step)
    mask = jnp.ones((1, 3), bool)
    later = Segment(jnp.array([[5, 6, 7]], jnp.int32), mask)
    hidden = []
    for first in ([1, 2, 3], [4, 2, 0]):
        state = made.init_state(1)
        state, _ = step(params, state, Segment(jnp.array([first], jnp.int32), mask))
        hidden.append(np.asarray(step(params, state, later)[1]))
    reaches = bool(np.abs(hidden[0] - hidden[1]).max() > 1e-3)
    why = f"a segment {'changes' if reaches else 'does not change'} the next one's hidden states"
    return Mark(YES if reaches else NO, why)


def _capacity(data: FigureData | None, model: str) -> Mark:
    best = None if data is None else best_capacity(data, model)
    if data is None or best is None:
        return Mark(OPEN, "no run in fig2a")
    share = best.mean / data.plan.trained_pairs
    why = f"{best.mean:.1f} pairs stored, {100 * share:.0f} % of {data.plan.trained_pairs}"
    return Mark(_graded(share, STORED, STORED_WELL), why)


def _working(data: FigureData | None, model: str) -> Mark:
    match = None if data is None else data.match(model, data.plan.trained_pairs)
    if data is None or match is None:
        return Mark(OPEN, "no run in fig2b")
    why = f"{100 * match.mean:.1f} % at {data.plan.trained_pairs} updates"
    return Mark(YES if match.mean >= WORKING else NO, why)


def _language_modelling(rows: Sequence[SegmentLossRow], model: str) -> Mark:
    """What the memory saves, of the family's best model: mean over its seeds."""
    found = [one for one in lines(rows) if one.family == model and one.over_reset is not None]
    if not found:
        return Mark(OPEN, "no run in fig6")
    best = found[0]
    saved = float(best.over_reset or 0.0)
    why = f"{best.loss:.3f} nats/token, {100 * saved:.2f} % saved, seeds {len(best.seeds)}"
    return Mark(_graded(saved, SAVED, SAVED_WELL), why)


def _extrapolation(data: FigureData | None, model: str) -> Mark:
    if data is None or not data.of(model):
        return Mark(OPEN, "no run in fig2b")
    reached = 0
    for length in sorted(data.plan.lengths):
        match = data.match(model, length)
        if match is None:
            return Mark(OPEN, f"{length} updates are missing")
        if match.mean < WORKING:
            break
        reached = length
    factor = reached / data.plan.trained_pairs
    why = f"{100 * WORKING:.0f} % to {reached} updates, {factor:g} times the trained"
    return Mark(_graded(factor, LONGER, LONGER_WELL), why)


def _graded(value: float, enough: float, well: float) -> str:
    return WELL if value >= well else YES if value >= enough else NO


def markdown(table: Table2) -> str:
    """Ours and the paper's marks, the numbers behind ours, and the thresholds."""
    columns = [("model", False), *((name, False) for name in COLUMNS)]
    body = []
    for model, marks in table.marks.items():
        body.append([f"{model}, here", *(mark.mark for mark in marks)])
        if model in PUBLISHED:
            body.append([f"{model}, paper", *PUBLISHED[model]])
    numbers = [[model, *(mark.why for mark in marks)] for model, marks in table.marks.items()]
    parts = ["# Table 2: what the models can do\n", to_markdown(columns, body)]
    parts += ["## The numbers behind it\n", to_markdown(columns, numbers)]
    parts += ["## Thresholds\n", "".join(f"- {line}\n" for line in THRESHOLDS)]
    parts += ["## Missing\n", "".join(f"- {line}\n" for line in table.missing)]
    return "\n".join(parts)


def as_json(table: Table2) -> dict[str, Any]:
    """What ``markdown`` shows."""
    return {
        "columns": list(COLUMNS),
        "here": {m: [mark._asdict() for mark in marks] for m, marks in table.marks.items()},
        "paper": {model: list(marks) for model, marks in PUBLISHED.items()},
        "thresholds": list(THRESHOLDS),
        "missing": list(table.missing),
    }
