"""Table 1 and Figure 3: every cell where it belongs, and no mixture of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from absl.testing import flagsaver

from armt_jax.config import ConfigError
from armt_jax.evaluation import babilong_table, published
from armt_jax.evaluation.babilong_results import Answer, BabilongCell, cell, write_cells
from experiments import report

ABOUT: dict[str, Any] = {
    "model": "armt-gpt2-4x128",
    "rule": "delta_hard",
    "seed": 0,
    "step": 7,
    "commit": "c",
    "noise": "books",
    "facts": "babi",
    "trained_tokens": 1024,
}


def made(task: str, length: str, correct: int, total: int = 10, **changes: Any) -> BabilongCell:
    answers = [
        Answer(
            task, length, "s", i, "Where is Mary?", "office", "office" if i < correct else "x", 7
        )
        for i in range(total)
    ]
    return cell(answers, **(ABOUT | changes))


CELLS = [made("qa1", "1M", 9), made("qa1", "4k", 10), made("qa2", "64k", 5)]


def test_published_rows_are_whole() -> None:
    assert {row.task for row in published.PUBLISHED} == {"qa1", "qa2", "qa3", "qa4", "qa5"}
    for row in published.PUBLISHED:
        assert len(row.values) == len(row.spread) == len(published.LENGTHS)
        assert all(v is None or 0 <= v <= 100 for v in row.values)
        for value, spread in zip(row.values, row.spread, strict=True):
            assert spread is None or value is not None
    best = {(row.task, row.model): row.values for row in published.PUBLISHED}
    assert best["qa1", "ARMT (145M), best run"][-1] == 79.9
    assert best["qa1", "ARMT (145M)"][-1] == 49.6


def test_our_cells_stand_in_their_column_with_interval_and_samples() -> None:
    lines = babilong_table.markdown(CELLS).splitlines()
    header = next(line for line in lines if line.startswith("| task"))
    columns = [part.strip() for part in header.strip("|").split("|")]
    assert columns[2:] == ["4k", "64k", "128k", "500k", "1M", "10M", "50M"]
    (ours,) = (line for line in lines if line.startswith("| qa1 | ours"))
    parts = [part.strip() for part in ours.strip("|").split("|")]
    assert parts[columns.index("1M")] == "90.0 [59.6, 98.2] (n=10)"
    assert parts[columns.index("4k")].startswith("100.0 [")
    assert parts[columns.index("10M")] == "-"
    (theirs,) = (line for line in lines if line.startswith("| qa1 | ARMT (145M) |"))
    parts = [part.strip() for part in theirs.strip("|").split("|")]
    assert parts[columns.index("50M")] == "49.6 +- 40.4"
    assert lines.index(ours) > lines.index(theirs)
    values = babilong_table.as_json(CELLS)
    one = values["ours"][0]["cells"][1]
    assert (one["length"], one["samples"], one["commit"]) == ("1M", 10, "c")
    assert (one["exact_match"], one["low"]) == (pytest.approx(90.0), pytest.approx(59.585, abs=0.1))


def test_contradictory_cells_are_refused() -> None:
    with pytest.raises(ConfigError, match="is there twice"):
        babilong_table.markdown([*CELLS, made("qa1", "1M", 3)])
    with pytest.raises(ConfigError, match=r"has cells of steps \[7, 8\]"):
        babilong_table.markdown([*CELLS, made("qa1", "10M", 3, step=8)])
    # Another seed is another row.
    assert "seed 1" in babilong_table.markdown([*CELLS, made("qa1", "1M", 3, seed=1)])


def test_the_command_writes_what_it_names(tmp_path: Path) -> None:
    write_cells(tmp_path / "babilong_qa1.json", CELLS)
    with flagsaver.flagsaver(results=str(tmp_path), out=None):
        report.main(["report", "table1", "fig3"])
        with pytest.raises(
            ConfigError, match=r"reports = \['fig9'\]: must be some of table1, fig3"
        ):
            report.main(["report", "fig9"])
    folder = tmp_path / "report"
    assert "ours: armt-gpt2-4x128" in (folder / "table1.md").read_text()
    assert (folder / "table1.json").is_file()
    assert (folder / "fig3.png").read_bytes().startswith(b"\x89PNG")
    with (
        flagsaver.flagsaver(results=str(tmp_path / "none"), out=str(tmp_path)),
        pytest.raises(ConfigError, match=r"has no babilong_\*.json"),
    ):
        report.main(["report", "table1"])
