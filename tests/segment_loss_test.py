"""Losses by segment: rows of a file, figure 6 and the table beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from armt_jax.config import ConfigError
from armt_jax.evaluation.language_modelling_results import read_rows, write_rows
from armt_jax.evaluation.segment_loss_figure import (
    fig6,
    longest_trained,
    segment_loss_figure,
)
from armt_jax.evaluation.segment_loss_table import lines, markdown
from tests.segment_loss_cases import segment_loss_row as row


def test_rows_are_checked_and_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "language_modelling_a.json"
    rows = [row(seed=0), row(memory="reset", gain=None)]
    write_rows(path, rows)
    assert read_rows(path) == rows
    for changes, message in (
        ({"tokens": [1]}, "tokens: must have 2 entries"),
        ({"first_segment": 3}, "first_segment = 3: must be from 1 to 2"),
        ({"memory": "half"}, "memory = 'half': must be one of kept, reset"),
        ({"gain": None}, "gain = None: must be there if memory = 'kept'"),
    ):
        with pytest.raises(ConfigError, match=message):
            row(**changes)
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(ConfigError, match=r"version 2, must be 'armt_jax.language_modelling'"):
        read_rows(path)
    path.write_text(json.dumps({"rows": []}))
    with pytest.raises(ConfigError, match="must be a file of segment losses"):
        read_rows(path)


def test_figure_6_needs_rows_of_one_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"has no language_modelling\*.json"):
        fig6(tmp_path, tmp_path)
    write_rows(tmp_path / "language_modelling_a.json", [row(), row(memory="reset", gain=None)])
    write_rows(tmp_path / "language_modelling_b.json", [row(seed=2), row(model="rmt", seed=2)])
    fig6(tmp_path, tmp_path)
    assert (tmp_path / "fig6.png").read_bytes().startswith(b"\x89PNG")
    table = json.loads((tmp_path / "fig6.json").read_text())["rows"]
    assert [one["seeds"] for one in table] == [[1, 2], [2]]
    assert (tmp_path / "fig6.md").read_text() == capsys.readouterr().out[:-1]
    with pytest.raises(ConfigError, match="of 2 texts, segment sizes and vocabularies"):
        segment_loss_figure(tmp_path / "x.png", [row(), row(segment_size=7)])


def test_the_table_compares_with_the_control_and_with_itself() -> None:
    """Two seeds of an ARMT, a control of one of them, and an RMT."""
    reset: dict[str, Any] = {"memory": "reset", "gain": None, "family": "armt"}
    rows = [
        row(seed=4, mean_loss=2.7, gain=0.10, horizons={"1": 2.8}),
        row(seed=3, mean_loss=2.9, gain=0.02, horizons={"1": 3.0}),
        row(seed=3, mean_loss=2.96, **reset),  # of the first model, read with resets: no line
        row(seed=3, mean_loss=3.0, trained_memory="reset", **reset),
        row(seed=9, mean_loss=3.2, trained_memory="reset", **reset),
        row(seed=3, mean_loss=3.1, trained_memory="reset", family="armt"),  # nor read otherwise
        row(seed=3, mean_loss=3.3, model="rmt", rule="rmt", gain=-0.01, horizons={}),
    ]
    best, control, rmt = lines(rows)
    assert (best.seeds, best.loss, best.loss_low, best.loss_high) == ([3, 4], 2.8, 2.7, 2.9)
    assert best.over_reset == pytest.approx(0.06)
    # Seed 3 has a control of its own, seed 4 the mean of both.
    assert best.over_control == pytest.approx((1 - 2.9 / 3.0 + 1 - 2.7 / 3.1) / 2)
    assert best.last_segment == pytest.approx(2.9)
    assert (control.seeds, control.loss) == ([3, 9], 3.1)
    assert control.over_reset is control.over_control is control.last_segment is None
    assert rmt.over_control == pytest.approx(1 - 3.3 / 3.0)
    assert rmt.last_segment is None
    text = markdown(rows)
    assert "| 2.8000 (2.7000, 2.9000) | 1.0000 | 6.00 % | 8.12 % | 2.9000 |" in text
    assert text.count("\n| ") == 4
    costs = [row(flops_per_token=1234567.6), row(model="old", flops_per_token=None)]
    heads, _, known, unknown = [line.split(" | ") for line in markdown(costs).splitlines()[-4:]]
    column = heads.index("FLOPs per token")
    assert (known[column], unknown[column]) == ("1,234,568", "-")
    assert lines(rows[:1])[0].over_control is None


def test_lengths_of_training_are_lines_of_their_own() -> None:
    """A control of one pass says nothing of two; the figure shows what was trained longest."""
    control: dict[str, Any] = {"trained_memory": "reset", "memory": "reset", "gain": None}
    once = [row(seed=0, mean_loss=3.0), row(family="armt", mean_loss=3.2, **control)]
    twice = [row(seed=0, step=2, mean_loss=2.7), row(seed=5, step=2, mean_loss=2.5)]
    long, short, reset = lines([*once, *twice])
    assert (long.steps, long.seeds, long.over_control) == (2, [0, 5], None)
    assert (short.steps, short.over_control) == (1, pytest.approx(1 - 3.0 / 3.2))
    assert reset.steps == 1
    assert longest_trained([*once, *twice]) == twice
    assert longest_trained([]) == []
