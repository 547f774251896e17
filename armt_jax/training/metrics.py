"""Metrics of a run as JSON lines (``metrics.jsonl``) and for TensorBoard."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from armt_jax.evaluation.results import atomic_write

FILE_NAME = "metrics.jsonl"
# What differs between two runs of the same experiment: all else is a function of the settings.
WALL_CLOCK = ("seconds", "tokens_per_second", "evaluation_seconds", "stage_seconds")


class MetricsWriter:
    """Writes a line per call, at once, so that a killed run loses at most the line it was at."""

    def __init__(self, folder: Path, step: int) -> None:
        """Go on after ``step`` finished steps: lines of later steps are dropped, they come again.

        Raises:
          OSError: the folder cannot be written.
        """
        self._path = folder / FILE_NAME
        if self._path.exists():
            kept = [line for line in _lines(self._path) if line["step"] <= step]
            atomic_write(self._path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = self._path.open("ab", buffering=0)
        self._board = SummaryWriter(
            str(folder / "tensorboard"), purge_step=step + 1, filename_suffix=f".from_{step}"
        )

    def write(self, step: int, values: dict[str, Any]) -> None:
        """A line ``{"step": step, **values}``; numbers go to TensorBoard too.

        Raises:
          OSError: the disk is full.
        """
        line = json.dumps({"step": step, **values}, allow_nan=False) + "\n"
        try:
            self._file.write(line.encode())
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(self._path)) from error
        for name, value in values.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what is buffered."""
        self._file.close()
        self._board.close()


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of the file; a last one cut short by a kill is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
