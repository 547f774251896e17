"""The commands as a user types them: results, resuming after kills, and clear errors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from armt_jax.evaluation.results import read_results

ROOT = Path(__file__).parent.parent
CONFIG = "--config=configs/ar_remember.py:tiny"
# Two stages of one shape, so that one compilation serves both.
SMALL = (
    "--config.model.d_model=8",
    "--config.model.d_mem=2",
    "--config.model.num_mem_tokens=1",
    "--config.model.d_ff=16",
    "--config.curriculum.variant=('remember', 'rewrite')",
    "--config.curriculum.num_pairs=(2, 2)",
    "--config.curriculum.max_steps=(40, 40)",
    "--config.curriculum.target=(1.1, 1.1)",
    "--config.train.log_every=5",
    "--config.train.checkpoint_every=7",
    "--config.evaluation.num_pairs=(2,)",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Compiled programs and frozen sets are shared by the commands of this file."""
    folder = tmp_path_factory.mktemp("cache")
    return os.environ | {
        "ARMT_CACHE_DIR": str(folder / "sets"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }


def start(environment: dict[str, str], module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(environment: dict[str, str], module: str, *arguments: str) -> tuple[int, str, str]:
    process = start(environment, module, *arguments)
    out, err = process.communicate(timeout=280)
    return process.returncode, out, err


def logged_step(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return whole[-1]["step"] if whole else 0


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def last_checkpoint(folder: Path) -> dict[str, object]:
    """Meta but for the clock, and the parameters' shapes, of the newest checkpoint."""
    newest = max((folder / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    content = json.loads(json.loads((newest / "description.json").read_text())["content"])
    content["meta"].pop("seconds")
    for stage in content["meta"]["position"]["history"]:
        stage.pop("seconds")
    return {"step": newest.name, "meta": content["meta"], "leaves": content["leaves"]}


def numbers(folder: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = ("seconds", "tokens_per_second", "evaluation_seconds")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


@pytest.mark.slow
def test_tiny_experiment_then_evaluation_of_its_best_checkpoint(
    environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    code, out, err = run(environment, "experiments.main", CONFIG, f"--workdir={folder}")
    assert code == 0, err
    last = out.splitlines()[-1]
    assert re.fullmatch(r"ar_remember: exact_match=[01]\.\d{3} pairs=2 train_seconds=\d+", last)
    assert {row.num_pairs for row in read_results(folder / "evaluation" / "results.json")} == {
        1,
        2,
        4,
    }
    for name in ("training.png", "evaluation/exact_match.png", "evaluation/capacity.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert list((folder / "tensorboard").iterdir())

    arguments = (f"--workdir={folder}", "--pairs=3,5", "--step=best", "--samples=20")
    code, out, err = run(environment, "experiments.evaluate", *arguments)
    assert code == 0, err
    rows = read_results(folder / "evaluation" / "results.json")  # what was there stays
    assert [row.num_pairs for row in rows] == [1, 2, 3, 4, 5]
    assert {row.num_pairs for row in rows if row.samples == 20} == {3, 5}


@pytest.mark.slow
def test_kills_and_signals_at_any_moment_change_nothing(
    environment: dict[str, str], tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, out, err = run(environment, "experiments.main", CONFIG, *SMALL, f"--workdir={whole}")
    assert code == 0, err
    command = ("experiments.main", CONFIG, *SMALL, f"--workdir={broken}")

    process = start(environment, *command)
    wait_for(lambda: logged_step(broken) >= 10, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=280)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command goes on from there" in err

    process = start(environment, *command)
    wait_for(lambda: logged_step(broken) >= 30, process)
    process.kill()
    process.communicate()

    process = start(environment, *command)  # killed while it saves, in the second stage
    wait_for(lambda: logged_step(broken) >= 50, process)
    wait_for(lambda: any((broken / "checkpoints").glob("*.saving")), process)
    process.kill()
    process.communicate()

    code, again, err = run(environment, *command)
    assert code == 0, err
    assert "going on from the checkpoint of step" in err
    assert re.sub(r"=\d+$", "", again) == re.sub(r"=\d+$", "", out)
    assert numbers(broken) == numbers(whole)
    assert last_checkpoint(broken) == last_checkpoint(whole)


def test_errors_are_one_line_and_exit_code_2(environment: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("three years of work")
    code, out, err = run(environment, "experiments.main", CONFIG, f"--workdir={other}")
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: workdir = ")
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
