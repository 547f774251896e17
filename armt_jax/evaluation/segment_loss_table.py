"""Figure 6 as a table: what a memory saves, against itself reset and against a model without one.

A model that relies on its memory reads worse without it, so a loss that its own reset raises is not
yet a gain. The control is a model of the same shape that was trained with its memory reset.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from armt_jax.evaluation.language_modelling_results import SegmentLossRow

PAPER = (
    "The paper: ARMT performs similarly to RMT (Fig. 6), and tends to keep only the last segment "
    "in memory (limitations)."
)
_ABSENT = "-"


class Line(NamedTuple):
    """One model, its seeds put together.

    Attributes:
      model, rule, family, trained_memory: as in ``SegmentLossRow``.
      steps: of the training, the same for all seeds.
      num_params, state_size, flops_per_token: of it.
      seeds: of the trainings, ascending.
      loss, loss_low, loss_high: mean, lowest and highest mean loss of the seeds, nats a token.
      bits_per_byte: mean over seeds.
      over_reset: share of the loss that the memory saves over the same checkpoint with its memory
        reset, mean over seeds; None where it was trained with resets.
      over_control: share saved over the models that were trained with resets for as many steps,
        those of the same seed where there are; None without one, or of the control itself.
      last_segment: mean loss with a memory of the last segment only; None where not measured.
    """

    model: str
    rule: str
    family: str
    trained_memory: str
    steps: int
    num_params: int
    state_size: int
    flops_per_token: float | None
    seeds: list[int]
    loss: float
    loss_low: float
    loss_high: float
    bits_per_byte: float
    over_reset: float | None
    over_control: float | None
    last_segment: float | None


def lines(rows: Sequence[SegmentLossRow]) -> list[Line]:
    """A line for each model, rule, way and length of training, best first."""
    controls: dict[int, dict[int, float]] = {}
    groups: dict[tuple[str, str, str, int, int], list[SegmentLossRow]] = {}
    for row in rows:
        if row.memory == row.trained_memory:
            key = (row.model, row.rule, row.trained_memory, row.step, row.state_size)
            groups.setdefault(key, []).append(row)
            if row.memory == "reset" and row.family == "armt":
                controls.setdefault(row.step, {})[row.seed] = row.mean_loss
    found = (_line(group, controls.get(group[0].step, {})) for group in groups.values())
    return sorted(found, key=lambda one: one.loss)


def _line(rows: Sequence[SegmentLossRow], controls: dict[int, float]) -> Line:
    rows = sorted(rows, key=lambda row: row.seed)
    first, losses = rows[0], [row.mean_loss for row in rows]
    gains = [row.gain for row in rows if row.gain is not None]
    last = [row.horizons["1"] for row in rows if "1" in row.horizons]
    saved = None
    if controls and first.trained_memory == "kept":
        usual = fmean(controls.values())
        saved = fmean(1 - row.mean_loss / controls.get(row.seed, usual) for row in rows)
    return Line(
        model=first.model,
        rule=first.rule,
        family=first.family,
        trained_memory=first.trained_memory,
        steps=first.step,
        num_params=first.num_params,
        state_size=first.state_size,
        flops_per_token=first.flops_per_token,
        seeds=[row.seed for row in rows],
        loss=fmean(losses),
        loss_low=min(losses),
        loss_high=max(losses),
        bits_per_byte=fmean(row.mean_bits_per_byte for row in rows),
        over_reset=fmean(gains) if gains and first.trained_memory == "kept" else None,
        over_control=saved,
        last_segment=fmean(last) if last and first.trained_memory == "kept" else None,
    )


def as_json(rows: Sequence[SegmentLossRow]) -> dict[str, Any]:
    """What ``markdown`` shows, with the paper's claim."""
    return {"paper": PAPER, "rows": [one._asdict() for one in lines(rows)]}


def markdown(rows: Sequence[SegmentLossRow]) -> str:
    """The table; ``rows`` are of one text."""
    first = rows[0]
    part = f"{first.first_segment} to {len(first.losses)}"
    header = (
        "model",
        "memory in training",
        "steps",
        "seeds",
        "parameters",
        "state, floats",
        "FLOPs per token",
        "nats/token (lowest, highest)",
        "bits/byte",
        "saved over its own reset",
        "saved over the control",
        "last segment only",
    )
    text = [
        f"# Figure 6: {first.dataset}, {first.split} split, mean loss over segments {part}",
        "",
        f"Segments of {first.segment_size} tokens, vocabulary of {first.vocab_size:,}. The control "
        "is a model of the same shape that was trained, for as many steps, with its memory reset "
        "in front of every segment.",
        "",
        f"{PAPER}",
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * 2}{'---:|' * (len(header) - 2)}",
    ]
    text += [f"| {' | '.join(_cells(one))} |" for one in lines(rows)]
    return "\n".join(text) + "\n"


def _cells(one: Line) -> list[str]:
    name = one.model if one.rule in one.model else f"{one.model}, {one.rule}"
    return [
        name,
        one.trained_memory,
        f"{one.steps:,}",
        ", ".join(map(str, one.seeds)),
        f"{one.num_params:,}",
        f"{one.state_size:,}",
        _ABSENT if one.flops_per_token is None else f"{one.flops_per_token:,.0f}",
        f"{one.loss:.4f} ({one.loss_low:.4f}, {one.loss_high:.4f})",
        f"{one.bits_per_byte:.4f}",
        _percent(one.over_reset),
        _percent(one.over_control),
        _ABSENT if one.last_segment is None else f"{one.last_segment:.4f}",
    ]


def _percent(share: float | None) -> str:
    return _ABSENT if share is None else f"{100 * share:.2f} %"
