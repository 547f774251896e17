"""Running the cells of a sweep one after the other, each in a process of its own.

A finished cell is skipped; one that failed is kept apart with its error and not tried again unless
asked; one that was stopped goes on from its last checkpoint. Two sweeps over the same folders do
not disturb each other: a cell that another process has is left to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from armt_jax.config import ConfigError, to_dict
from armt_jax.evaluation.results import atomic_write
from armt_jax.evaluation.sweep_results import RunResult, read_run
from armt_jax.training.workdir import differing_settings
from experiments import huge_pages
from experiments.sweep_grid import Cell
from experiments.sweep_run import BUSY, CELL

ERROR = "error.txt"
LOG = "log.txt"
_STOPPED = {128 + number for number in (signal.SIGINT, signal.SIGTERM)}
_STOPPED |= {-number for number in (signal.SIGINT, signal.SIGTERM)}
_LAST_LINES = 40


class Status(enum.Enum):
    """Where a cell stands; the values are for people."""

    FINISHED = "finished"
    FAILED = "failed"
    STARTED = "started"
    MISSING = "not started"
    BUSY = "another process has it"
    WAITING = "waits for its learning rate"


@dataclasses.dataclass(frozen=True)
class State:
    """``status``, and in words what there is to say about it: the error, the lengths missing."""

    status: Status
    note: str = ""


def state_of(cell: Cell) -> State:
    """What the files of a cell say.

    Raises:
      ConfigError: its result is of other settings; the message names them.
    """
    result = finished_result(cell)
    missing: list[int] = []
    if result is not None:
        missing = result.missing(cell.config.evaluation.num_pairs)
        if not missing:
            return State(Status.FINISHED)
    error = cell.folder / ERROR
    if error.is_file():
        return State(Status.FAILED, error.read_text(encoding="utf-8").split("\n", 1)[0])
    if missing:
        return State(Status.STARTED, f"lengths {', '.join(map(str, missing))} are missing")
    return State(Status.STARTED if (cell.folder / "run").is_dir() else Status.MISSING)


def finished_result(cell: Cell) -> RunResult | None:
    """The result of a cell, whatever its lengths; None where there is none.

    Raises:
      ConfigError: as ``state_of``.
    """
    if not cell.result.is_file():
        return None
    result = read_run(cell.result)
    differing = differing_settings(result.settings, to_dict(cell.config))
    if differing:
        raise ConfigError(
            f"{cell.result}: holds a run of other settings: {'; '.join(differing[:6])}; delete it "
            f"(and {cell.folder}) to train anew, or name another pool"
        )
    return result


def write_cell(cell: Cell, known: RunResult | None) -> Path:
    """What ``experiments.sweep_run`` reads: the run, at its lengths and those it had already."""
    values = to_dict(cell.config)
    lengths = {row.num_pairs for row in known.rows} if known is not None else set()
    values["evaluation"]["num_pairs"] = sorted(lengths | set(cell.config.evaluation.num_pairs))
    content = {
        "entry": cell.model,
        "rate": cell.rate,
        "result": str(cell.result),
        "config": values,
    }
    cell.folder.mkdir(parents=True, exist_ok=True)
    atomic_write(cell.folder / CELL, (json.dumps(content, indent=1) + "\n").encode())
    return cell.folder / CELL


class NoRateError(ConfigError):
    """A model failed with every rate of the sweep."""


class Stopped(Exception):  # noqa: N818 (no error: the sweep was asked to stop)
    """A signal ended the sweep; what ran is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def start(cell_file: Path, log: Any) -> subprocess.Popen[bytes]:
    """The process of a cell, with a session of its own: Ctrl-C reaches it once, through us."""
    command = [sys.executable, "-m", "experiments.sweep_run", f"--cell_file={cell_file}"]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env=huge_pages.environment(os.environ),
    )


def run_cell(cell: Cell, launch: Callable[[Path, Any], subprocess.Popen[bytes]] = start) -> State:
    """Run a cell to its end; what it prints goes to ``log.txt`` of its folder.

    Raises:
      Stopped: SIGINT or SIGTERM arrived; the cell was told, and has saved itself.
    """
    path = write_cell(cell, finished_result(cell))
    (cell.folder / ERROR).unlink(missing_ok=True)
    received: list[int] = []
    with (cell.folder / LOG).open("ab") as log:
        before = log.tell()
        process = launch(path, log)

        def forward(number: int, frame: FrameType | None) -> None:
            del frame
            received.append(number)
            process.send_signal(number)

        with _handled(forward):
            code = process.wait()
    if received:
        raise Stopped(received[0])
    if code == BUSY:
        return State(Status.BUSY)
    if code in _STOPPED:
        return State(Status.STARTED, "was stopped from outside")
    if code == 0 and cell.result.is_file():
        return state_of(cell)
    return _failed(cell, code, (cell.folder / LOG).read_bytes()[before:])


@contextlib.contextmanager
def _handled(forward: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _failed(cell: Cell, code: int, printed: bytes) -> State:
    lines = [line for line in printed.decode(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error: ")]
    if code == -signal.SIGKILL:
        reason = "killed by the system (out of memory?)"
    elif code < 0:
        reason = f"ended by {signal.Signals(-code).name}"
    else:
        last = said[-1:] or lines[-1:] or [f"exit code {code}, and nothing printed"]
        reason = last[0].removeprefix("error: ")
    text = "\n".join([reason, "", f"exit code {code}; the end of {LOG}:", *lines[-_LAST_LINES:]])
    atomic_write(cell.folder / ERROR, (text + "\n").encode())
    return State(Status.FAILED, reason)


def best_rate(cells: list[Cell]) -> str | None:
    """The rate that a model's tuning runs prefer; None while one is neither done nor failed.

    The highest mean exact match over the lengths wins; of equals, the one that needed fewest steps
    for its stages. A run that failed has lost.

    Raises:
      ConfigError: a result of other settings.
      NoRateError: all of them failed.
    """
    scores: dict[str, tuple[float, int]] = {}
    for cell in cells:
        state = state_of(cell)
        if state.status is Status.FAILED:
            continue
        if state.status is not Status.FINISHED:
            return None
        result = finished_result(cell)
        assert result is not None
        lengths = cell.config.evaluation.num_pairs
        rows = [row for row in result.rows if row.num_pairs in lengths]
        mean = sum(row.exact_match for row in rows) / len(rows)
        scores[cell.rate] = (mean, -result.about.step)
    if not scores:
        raise NoRateError(f"models.{cells[0].model}: failed with every rate of the sweep")
    return max(scores, key=lambda rate: scores[rate])
