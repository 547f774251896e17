"""The memory benchmark measures what is allocated, and prints what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from benchmarks import memory, peak
from benchmarks.sizes import RETRIEVAL

SIZE = memory.Size(
    {**RETRIEVAL, "n_layer": 1, "d_model": 16, "d_mem": 4, "vocab_size": 20}, 3, 2, (4,), 2
)


def test_a_peak_is_what_was_allocated_since_and_is_gone() -> None:
    megabyte = 2**20
    for size in (96, 32):
        before = peak.start_of_peak()
        if before is None:
            pytest.skip("this system does not let a process begin its peak again")
        block = np.ones(size * megabyte, np.uint8)
        del block
        found = (peak.peak_since_start() - before) / megabyte
        # The second is not the first's: the peak began again.
        assert size - 1 <= found <= size + 16


@pytest.mark.slow
def test_one_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = memory.measure(SIZE, "sequential, segment", 4, 2, 1, limit=2.0**30)
    assert all(value is not None and value > 0 for value in cell.values())
    # Above the limit, as by the compiler's figure, nothing is run.
    monkeypatch.setattr(memory, "start_of_peak", lambda: 1 / 0)
    cell = memory.measure(SIZE, "sequential, segment", 4, 2, 1, limit=1.0)
    assert (cell["peak_memory_bytes"], cell["seconds"]) == (None, None)
    assert memory.cell_text(cell).startswith("- (")


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    numbers: dict[str, Any] = {"estimated_bytes": 3 * 2**20, "seconds": 0.5}
    one = {"method": "a", "segments": 8, "peak_memory_bytes": 4 * 2**20, **numbers}
    cells = [one, {**one, "segments": 16, "seconds": None}, {**one, "method": "b"}]
    memory.print_table([*cells, {**cells[1], "method": "b", "seconds": 2.0}])
    table = capsys.readouterr().out.splitlines()[1:]
    assert table == [
        "| method | S = 8 | S = 16 |",
        "|---|---|---|",
        "| a | 4 (3) 0.50 s | - (3) |",
        "| b | 4 (3) 0.50 s | 4 (3) 2.00 s |",
    ]


@pytest.mark.slow
def test_memory_prints_one_json_line_last() -> None:
    command = [sys.executable, "-m", "benchmarks.memory", "--segments=4", "--steps=1", "--json"]
    command += ["--method=chunked", "--method=sequential, 4 pieces", "--batch=4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert [cell["method"] for cell in result["cells"]] == ["chunked", "sequential, 4 pieces"]
    for cell in result["cells"]:
        assert min(cell["estimated_bytes"], cell["peak_memory_bytes"], cell["seconds"]) > 0
