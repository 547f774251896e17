"""What an evaluation leaves of the one before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from armt_jax.evaluation.results import ResultRow, read_results
from experiments import retrieval_report
from tests.results_test import make_row


def test_other_lengths_of_a_checkpoint_stay_and_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[ResultRow]] = []

    def figure(path: Path, rows: Any, **options: Any) -> None:
        del path, options
        drawn.append(list(rows))

    monkeypatch.setattr(retrieval_report, "exact_match_figure", figure)
    monkeypatch.setattr(retrieval_report, "capacity_figure", figure)
    earlier = [make_row(step=1), make_row(num_pairs=100), make_row(key_size=1), make_row()]
    again = make_row(correct=900)
    for rows in (earlier, [make_row(num_pairs=5000), again]):
        retrieval_report.write_report(tmp_path, rows, rows[0].variant, 50)
    found = read_results(tmp_path / "results.json")
    assert found == [earlier[0], again, earlier[1], make_row(num_pairs=5000), earlier[2]]
    # Of one checkpoint and size of keys: a figure has one point for each length.
    assert drawn[-1] == [again, earlier[1], make_row(num_pairs=5000)]
