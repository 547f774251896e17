"""Sweeps: what is run, in which order, and what a failure, a signal or another host changes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from armt_jax.config import ConfigError, from_config_dict
from armt_jax.evaluation.sweep_results import read_run
from experiments import huge_pages
from experiments.sweep_grid import Cell, cell, tuning_cells
from experiments.sweep_run import BUSY
from experiments.sweep_runner import (
    State,
    Status,
    Stopped,
    best_rate,
    run_cell,
    start,
    state_of,
)
from experiments.sweep_runs import Runs, survey
from experiments.sweep_summary import summary_lines
from tests.sweep_cases import finish, made_result, small_sweep, tuned_sweep

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # ``base`` is named from there


def one_cell(folder: Path, **changes: Any) -> Cell:
    return cell(small_sweep(folder, **changes), "armt", 0, "muon_5e-3")


def python(code: str) -> Any:
    """``launch`` of ``run_cell``: a process that does ``code`` with ``cell``, its cell.json."""

    def launch(path: Path, log: Any) -> subprocess.Popen[bytes]:
        program = (
            f"import json, os, sys, time, signal\ncell = json.load(open({str(path)!r}))\n{code}"
        )
        command = [sys.executable, "-S", "-c", program]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    return launch


def test_states_of_a_run(tmp_path: Path) -> None:
    one = one_cell(tmp_path)
    assert state_of(one).status is Status.MISSING
    (one.folder / "run").mkdir(parents=True)
    assert state_of(one).status is Status.STARTED
    (one.folder / "error.txt").write_text("diverged\n\nmore")
    assert state_of(one) == State(Status.FAILED, "diverged")
    finish(one)
    assert state_of(one).status is Status.FINISHED
    (one.folder / "error.txt").unlink()
    finish(one, {1: 50})
    assert state_of(one) == State(Status.STARTED, "lengths 3 are missing")


def test_a_run_is_a_process_with_huge_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text('#!/bin/sh\necho "$WITH $*"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(huge_pages, "environment", lambda found: {**found, "WITH": "huge pages"})
    with log.open("wb") as output:
        assert start(Path("cell.json"), output).wait(timeout=30) == 0
    assert log.read_text() == "huge pages -m experiments.sweep_run --cell_file=cell.json\n"


def test_a_result_of_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    finish(one_cell(tmp_path))
    other = one_cell(tmp_path, models={"armt": {"model": {"d_mem": 4}}})
    with pytest.raises(ConfigError, match=r"other settings: model.d_mem = 8 there, 4 here; delete"):
        state_of(other)


def test_a_finished_process_leaves_its_result_and_its_log(tmp_path: Path) -> None:
    one = one_cell(tmp_path)
    finish(one, {1: 50})  # of an earlier sweep of other lengths
    whole = tmp_path / "made.json"
    content = made_result(one, {1: 50, 3: 40})
    finish(dataclasses.replace(one, result=whole), {1: 50, 3: 40})
    copy = f"""
assert cell["config"]["evaluation"]["num_pairs"] == [1, 3]
print("learning")
os.replace({str(whole)!r}, cell["result"])
"""
    assert run_cell(one, python(copy)) == State(Status.FINISHED)
    assert read_run(one.result) == content
    assert (one.folder / "log.txt").read_text() == "learning\n"
    written = json.loads((one.folder / "cell.json").read_text())
    assert (written["entry"], written["rate"]) == ("armt", "muon_5e-3")
    assert from_config_dict(written["config"]) == one.config


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('step 1')\nprint('error: loss = nan')\nsys.exit(1)", "loss = nan"),
        ("raise ValueError('no such thing')", "ValueError: no such thing"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by the system (out of memory?)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("sys.exit(3)", "exit code 3, and nothing printed"),
        ("print('all is well')", "all is well"),  # and yet no result
    ],
)
def test_a_failure_is_kept_with_its_reason(tmp_path: Path, code: str, reason: str) -> None:
    one = one_cell(tmp_path)
    assert run_cell(one, python(code)) == State(Status.FAILED, reason)
    assert state_of(one) == State(Status.FAILED, reason)
    text = (one.folder / "error.txt").read_text()
    assert "exit code" in text
    assert not one.result.exists()


def test_a_run_of_another_process_and_one_stopped_from_outside_are_no_failures(
    tmp_path: Path,
) -> None:
    one = one_cell(tmp_path)
    assert run_cell(one, python(f"sys.exit({BUSY})")).status is Status.BUSY
    assert run_cell(one, python("sys.exit(143)")).status is Status.STARTED
    assert not (one.folder / "error.txt").exists()


def test_a_signal_reaches_the_run_which_saves_itself(tmp_path: Path) -> None:
    one = one_cell(tmp_path)
    ready = one.folder / "ready"
    code = f"""
def save(number, frame):
    open({str(one.folder / "saved")!r}, "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
open({str(ready)!r}, "w").close()
time.sleep(60)
"""

    def interrupt() -> None:
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Stopped, match="SIGTERM"):
        run_cell(one, python(code))
    thread.join()
    assert (one.folder / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (one.folder / "error.txt").exists()


def run_of(fails: str = "", seen: list[str] | None = None) -> Any:
    """``run`` of ``Runs``: finishes every run but one, which fails."""

    def run(one: Cell) -> State:
        if seen is not None:
            seen.append(one.name)
        if one.name == fails:
            one.folder.mkdir(parents=True, exist_ok=True)
            (one.folder / "error.txt").write_text("diverged\n")
            return State(Status.FAILED, "diverged")
        finish(one)
        return state_of(one)

    return run


def test_a_failure_stops_nothing_and_is_not_tried_again_unasked(tmp_path: Path) -> None:
    sweep, seen = small_sweep(tmp_path), []
    runs = Runs(sweep, run=run_of("armt_seed0", seen))
    runs.go()
    assert seen == ["armt_seed0", "rmt_seed0", "armt_seed1", "rmt_seed1"]
    assert runs.unfinished == ["armt_seed0"]
    lines = summary_lines(sweep, survey(sweep))
    assert lines[0].startswith("3 of 4 runs are finished")
    assert lines[1] == "missing: armt_seed0"
    assert lines[2] == "failed: armt_seed0: diverged"

    again = Runs(sweep, run=run_of(seen=seen))
    again.go()
    assert len(seen) == 4
    assert again.unfinished == ["armt_seed0"]

    retried = Runs(sweep, retry=True, run=run_of(seen=seen))
    retried.go()
    assert seen[4:] == ["armt_seed0"]
    assert retried.unfinished == []


def test_shards_share_the_runs(tmp_path: Path) -> None:
    seen: list[str] = []
    sizes = []
    for part in (1, 2, 3):
        before = len(seen)
        Runs(small_sweep(tmp_path, seeds=(0, 1, 2, 3)), part, 3, run=run_of(seen=seen)).go()
        sizes.append(len(seen) - before)
    assert sizes == [3, 3, 2]
    assert len(set(seen)) == len(seen) == 8


def test_every_model_is_trained_with_its_best_rate(tmp_path: Path) -> None:
    sweep = tuned_sweep(tmp_path)
    scores = {
        "tuning/armt_muon_5e-3": 60,
        "tuning/armt_adamw_3e-3": 40,
        "tuning/rmt_muon_5e-3": 30,
        "tuning/rmt_adamw_3e-3": 31,
    }
    trained = []

    def run(one: Cell) -> State:
        trained.append((one.name, one.rate))
        finish(one, scores.get(one.name, 50))
        return state_of(one)

    Runs(sweep, run=run).go()
    assert [name for name, _ in trained[:4]] == list(scores)
    assert trained[4:6] == [("armt_seed0", "muon_5e-3"), ("rmt_seed0", "adamw_3e-3")]
    assert {status.status for _, status in survey(sweep)} == {Status.FINISHED}
    optimizer = read_run(cell(sweep, "rmt", 0, "adamw_3e-3").result).settings["optimizer"]
    assert optimizer["name"] == "adamw"


@pytest.mark.parametrize(("steps", "best"), [((40, 30), "adamw_3e-3"), ((30, 40), "muon_5e-3")])
def test_of_equal_rates_the_one_that_learns_sooner(
    tmp_path: Path, steps: tuple[int, int], best: str
) -> None:
    sweep = tuned_sweep(tmp_path, models={"armt": {"model": {"family": "armt"}}})
    cells = tuning_cells(sweep)
    assert [one.rate for one in cells] == ["muon_5e-3", "adamw_3e-3"]
    for one, step in zip(cells, steps, strict=True):
        finish(one, 50, step=step)
    assert best_rate(cells) == best


def test_a_rate_that_fails_has_lost_and_a_model_without_any_fails(tmp_path: Path) -> None:
    sweep = tuned_sweep(tmp_path, seeds=(0,))
    runs = Runs(sweep, run=run_of("tuning/armt_muon_5e-3"))
    runs.go()
    assert runs.unfinished == ["tuning/armt_muon_5e-3"]
    assert best_rate([one for one in tuning_cells(sweep) if one.model == "armt"]) == "adamw_3e-3"

    folder = tmp_path / "other"
    sweep = tuned_sweep(folder, seeds=(0,), models={"armt": {"model": {"family": "armt"}}})
    for one in tuning_cells(sweep):
        run_of(one.name)(one)
    runs = Runs(sweep, run=run_of())
    runs.go()
    assert runs.unfinished[-1] == "armt_seed0"
    assert (
        dict(survey(sweep))["armt_seed0"].note == "models.armt: failed with every rate of the sweep"
    )


def test_a_host_waits_for_rates_that_another_one_is_trying(tmp_path: Path) -> None:
    sweep = tuned_sweep(tmp_path, models={"armt": {"model": {"family": "armt"}}})
    first, second = tuning_cells(sweep)
    pauses: list[float] = []
    trained: list[tuple[str, str]] = []

    def run(one: Cell) -> State:
        if one.name == first.name:
            return State(Status.BUSY)
        trained.append((one.name, one.rate))
        finish(one)
        return state_of(one)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        finish(first, 90)  # the other host is done

    runs = Runs(sweep, 2, 2, run=run, pause=pause)
    runs.go()
    assert pauses == [30.0]
    assert trained == [(second.name, "adamw_3e-3"), ("armt_seed1", "muon_5e-3")]
    assert runs.unfinished == []
    assert dict(survey(sweep))["armt_seed0"].status is Status.MISSING
