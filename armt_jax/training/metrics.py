"""Metrics of a run as JSON lines (``metrics.jsonl``) and for TensorBoard."""

from __future__ import annotations

import json
import math
import os
import struct
import time
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from armt_jax.evaluation.results import atomic_write

FILE_NAME = "metrics.jsonl"
# What differs between two runs of the same experiment: all else is a function of the settings.
WALL_CLOCK = ("seconds", "tokens_per_second", "evaluation_seconds", "stage_seconds")
# Protocol buffers make their classes at import, where a type checker does not see them.
_EVENT = cast(Any, event_pb2).Event


class MetricsWriter:
    """Writes a line per call, at once, so that a killed run loses at most the line it was at."""

    def __init__(self, folder: Path, step: int) -> None:
        """Go on after ``step`` finished steps: lines of later steps are dropped, they come again.

        Raises:
          OSError: the folder cannot be written.
        """
        path = folder / FILE_NAME
        if path.exists():
            kept = [line for line in _lines(path) if line["step"] <= step]
            atomic_write(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = FileIO(path, "ab")
        self._board = _EventFile(folder / "tensorboard", step)

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, step: int, values: dict[str, Any]) -> None:
        """A line ``{"step": step, **values}``; numbers go to TensorBoard too.

        A number that is not finite is written as ``null``: JSON has no other way to say it.

        Raises:
          OSError: the disk is full; names the file.
        """
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        nulls = dict.fromkeys(numbers.keys() - finite.keys())
        line = json.dumps({"step": step, **values, **nulls}, allow_nan=False) + "\n"
        _write(self._file, line.encode())
        if finite:
            self._board.write(step, finite)

    def close(self) -> None:
        """Close the files; everything is in them already."""
        self._file.close()
        self._board.close()


class NoMetrics:
    """In place of a ``MetricsWriter`` where another process writes."""

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class _EventFile:
    """TensorBoard's event file, each event written before the call returns.

    tensorboardX's own ``SummaryWriter`` writes from a thread. On a full disk that thread dies, the
    queue to it fills, and the training waits for ever.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{os.getpid()}.from_{step}"
        self._file = FileIO(folder / name, "ab")
        self._append(file_version="brain.Event:2")
        # TensorBoard then hides what an earlier sitting logged from this step on.
        self._append(step=step + 1, session_log={"status": "START"})

    def write(self, step: int, values: Mapping[str, float]) -> None:
        scalars = [{"tag": name, "simple_value": value} for name, value in values.items()]
        self._append(step=step, summary={"value": scalars})

    def close(self) -> None:
        self._file.close()

    def _append(self, **fields: Any) -> None:
        data = _EVENT(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        _write(self._file, length + _checksum(length) + data + _checksum(data))


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))


def _write(file: FileIO, data: bytes) -> None:
    """Write all of it; the disk takes a part of the last piece that fits and says nothing."""
    try:
        while data:
            data = data[file.write(data) :]
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(file.name)) from error


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of the file; one that a kill or a full disk cut short is left out."""
    lines = []
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines
