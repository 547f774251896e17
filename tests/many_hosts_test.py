"""A run of two processes: stopped, killed and continued, it ends as one that was left alone."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from armt_jax.config import ConfigError, MeshConfig
from armt_jax.evaluation.results import read_results
from armt_jax.models import create_model
from armt_jax.sharding import create_mesh, mesh
from armt_jax.training.checkpoints import Checkpoints, Restored
from armt_jax.training.metrics import WALL_CLOCK
from armt_jax.training.optimizer import create_optimizer
from armt_jax.training.state import abstract_state
from armt_jax.training.workdir import read_config
from tests.several_processes import Process, launch_flags, module, started, wait_until

# Two stages of one shape, so that one compilation serves both; AdamW compiles faster than Muon.
SMALL = (
    "--config=configs/ar_remember.py:tiny",
    "--config.mesh.data=4",
    "--config.model.d_model=8",
    "--config.model.d_mem=2",
    "--config.model.num_mem_tokens=1",
    "--config.model.d_ff=16",
    "--config.optimizer.name=adamw",
    "--config.curriculum.variant=('remember', 'rewrite')",
    "--config.curriculum.num_pairs=(2, 2)",
    "--config.curriculum.target=(1.1, 1.1)",
    "--config.train.batch_size=8",
    "--config.train.eval_samples=16",
    "--config.train.memory_contexts=2",
    "--config.evaluation.num_pairs=(2,)",
    "--config.evaluation.batch_size=16",
    "--config.evaluation.samples=20",
)
SHORT = ("--config.curriculum.max_steps=(6, 6)", "--config.train.log_every=1")
LONG = ("--config.curriculum.max_steps=(24, 24)", "--config.train.log_every=2")
OFTEN = ("--config.train.checkpoint_every=3", "--config.train.eval_every=4")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Compiled programs and frozen sets are shared by the runs of this file."""
    folder = tmp_path_factory.mktemp("cache")
    return {
        "ARMT_CACHE_DIR": str(folder / "sets"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PLATFORMS": "cpu",
    }


class Runs:
    """Starts runs in folders of their own, each with its output beside it."""

    def __init__(self, folder: Path, environment: dict[str, str], *settings: str) -> None:
        self.folder, self.environment, self.settings = folder, environment, (*SMALL, *settings)
        self.sittings = 0

    def __call__(
        self, name: str, count: int, meanwhile: Callable[[list[Process]], None] | None = None
    ) -> list[Process]:
        """Run ``count`` processes to their end, with whatever is done to them meanwhile."""
        flags = launch_flags(count) if count > 1 else [[]]
        arguments = [[*self.settings, f"--workdir={self.folder / name}", *own] for own in flags]
        self.sittings += 1
        output = self.folder / f"output{self.sittings}"
        program = module("experiments.main")
        with started(program, arguments, output, **self.environment) as processes:
            if meanwhile is not None:
                meanwhile(processes)
            for process in processes:
                process.wait()
        return processes


def logged_step(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return whole[-1]["step"] if whole else 0


def numbers(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in WALL_CLOCK} for line in lines]


def newest(folder: Path) -> Restored:
    config = read_config(folder)
    template = abstract_state(create_model(config.model), create_optimizer(config.optimizer))
    found = Checkpoints(folder / "checkpoints", read_only=True).restore(template, warn=pytest.fail)
    assert found is not None
    found.meta.pop("seconds")
    for stage in found.meta["position"]["history"]:
        stage.pop("seconds")
    return found


def assert_bit_identical(a: Path, b: Path) -> None:
    first, second = newest(a), newest(b)
    assert (first.step, first.meta) == (second.step, second.meta)
    jax.tree.map(np.testing.assert_array_equal, first.state, second.state)
    assert numbers(a) == numbers(b)
    assert read_results(a / "evaluation/results.json") == read_results(
        b / "evaluation/results.json"
    )


def assert_silent(process: Process) -> None:
    """XLA alone may say something: that it compiles slowly."""
    assert process.out == ""
    said = [line for line in process.err.splitlines() if re.match("error|stage|first|stop", line)]
    assert said == []


def test_sigterm_to_one_process_stops_all_of_them_after_the_same_step(
    environment: dict[str, str], tmp_path: Path
) -> None:
    runs = Runs(tmp_path, environment, *LONG)

    def stop(processes: list[Process]) -> None:
        wait_until(lambda: logged_step(tmp_path / "run") >= 5, processes)
        processes[1].popen.send_signal(signal.SIGTERM)

    first, second = runs("run", 2, stop)
    assert (first.wait(), second.wait()) == (143, 143), first.said + second.said
    stopped = re.search(r"stopped by SIGTERM after step (\d+), saved; the same command", first.err)
    assert stopped, first.err
    assert newest(tmp_path / "run").step == int(stopped[1])
    assert_silent(second)


@pytest.mark.slow
def test_two_processes_end_as_one_process_with_as_many_devices(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """To rounding: a CPU adds four devices in one order, four of two processes in another.

    AdamW divides a gradient by its own size, and so makes whole steps of the rounding of gradients
    that should be 0 (a key's bias has none): ``eps = 1`` leaves them what they are.
    """
    smooth = ("--config.optimizer.eps=1.0", "--config.optimizer.learning_rate=0.05")
    runs = Runs(tmp_path, environment, *SHORT, *OFTEN, *smooth)
    first, second = runs("two", 2)
    (alone,) = runs("one", 1)
    assert [p.wait() for p in (first, second, alone)] == [0, 0, 0], first.said + alone.said
    one, two = newest(tmp_path / "one"), newest(tmp_path / "two")
    assert (one.step, one.meta["position"]) == (two.step, two.meta["position"])
    for a, b in zip(one.state, two.state, strict=True):  # parameters, moments, steps
        a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(part)]) for part in (a, b))
        assert np.linalg.norm(a - b) <= 1e-6 * np.linalg.norm(a)
    for a, b in zip(numbers(tmp_path / "one"), numbers(tmp_path / "two"), strict=True):
        assert a.keys() == b.keys()
        assert {k: pytest.approx(v, rel=1e-6) for k, v in a.items()} == b
    assert (
        first.out.splitlines()[-1].split("train_")[0]
        == alone.out.splitlines()[-1].split("train_")[0]
    )
    assert_silent(second)
    assert evaluate(tmp_path / "two", 2, environment) == evaluate(tmp_path / "two", 1, environment)


def evaluate(folder: Path, count: int, environment: dict[str, str]) -> list[Any]:
    flags = launch_flags(count) if count > 1 else [[]]
    arguments = [[f"--workdir={folder}", "--pairs=1,2", "--samples=30", *own] for own in flags]
    program, output = module("experiments.evaluate"), folder.parent / f"evaluated{count}"
    with started(program, arguments, output, **environment) as processes:
        assert [process.wait() for process in processes] == [0] * count, processes[0].said
    assert [process.out != "" for process in processes] == [True, *[False] * (count - 1)]
    rows = read_results(folder / "evaluation/results.json")
    assert [(row.num_pairs, row.samples) for row in rows] == [(1, 30), (2, 30)]
    return rows


@pytest.mark.slow
def test_divergence_stops_all_with_one_message(environment: dict[str, str], tmp_path: Path) -> None:
    runs = Runs(tmp_path, environment, *SHORT, "--config.optimizer.learning_rate=1e38")
    first, second = runs("run", 2)
    assert (first.wait(), second.wait()) == (1, 1), first.said + second.said
    assert re.search(r"^error: step \d+ \(stage 1: .*\): loss = ", first.err, re.MULTILINE)
    assert_silent(second)


@pytest.mark.slow
def test_kills_of_any_process_at_any_moment_change_nothing(
    environment: dict[str, str], tmp_path: Path
) -> None:
    runs = Runs(tmp_path, environment, *LONG, "--config.train.checkpoint_every=7")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert [process.wait() for process in runs("whole", 2)] == [0, 0]

    def killed(victim: int, step: int, *, saving: bool = False) -> None:
        def kill(processes: list[Process]) -> None:
            wait_until(lambda: logged_step(broken) >= step, processes)
            if saving:
                checkpoints = broken / "checkpoints"
                wait_until(lambda: any(checkpoints.glob("*.saving")), processes)
            processes[victim].kill()
            other = processes[1 - victim]
            assert other.wait(55) in (1, -signal.SIGABRT), other.said  # JAX may be faster
            if other.popen.returncode == 1:
                assert f"error: process {victim} ended before the run did" in other.err

        runs("broken", 2, kill)

    killed(victim=1, step=4)  # before anything was saved
    killed(victim=0, step=12, saving=True)
    killed(victim=1, step=20, saving=True)
    killed(victim=0, step=30)
    first, second = runs("broken", 2)
    assert (first.wait(), second.wait()) == (0, 0), first.said + second.said
    assert "going on from the checkpoint of step" in first.err
    assert_bit_identical(whole, broken)


@pytest.mark.slow
def test_what_is_impossible_for_two_processes_is_said_once(
    environment: dict[str, str], tmp_path: Path
) -> None:
    runs = Runs(tmp_path, environment, *SHORT, "--config.train.batch_size=9")
    first, second = runs("run", 2)
    assert first.err == (
        "error: train.batch_size / train.grad_accum = 9: must be a multiple of 2, "
        "the number of processes\n"
    )
    assert (first.wait(), second.wait(), second.err) == (2, 2, "")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("three years of work")
    first, second = runs("mine", 2)
    assert first.err.startswith(f"error: workdir = {str(folder)!r}: holds files but no config.json")
    assert (first.wait(), second.wait(), second.err) == (2, 2, "")
    assert os.listdir(folder) == ["thesis.txt"]


@pytest.mark.parametrize(
    ("data", "batch_size", "size", "line"),
    [
        (-1, 12, 6, None),
        (-1, 8, 8, None),
        (4, 8, 4, None),
        (-1, 7, None, r"^train\.batch_size / train\.grad_accum = 7: must be a multiple of 2, the"),
        (1, 8, None, r"^mesh\.data = 1: must be a multiple of 2, the number of processes$"),
    ],
)
def test_a_mesh_has_as_many_devices_of_every_process(
    monkeypatch: pytest.MonkeyPatch, data: int, batch_size: int, size: int | None, line: str | None
) -> None:
    monkeypatch.setattr(mesh, "process_count", lambda: 2)
    monkeypatch.setattr(mesh, "_first_devices", lambda count: jax.devices()[:count])
    config = MeshConfig(data=data, fsdp=1, tensor=1, stage=1)
    if line is None:
        assert create_mesh(config, batch_size).size == size
        return
    with pytest.raises(ConfigError, match=line):
        create_mesh(config, batch_size)
