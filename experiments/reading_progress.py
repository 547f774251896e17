"""Reading a document with its progress shown, and stopping where a signal asks to."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from armt_jax.reading import Document, Memory, Progress
from armt_jax.training.interruption import Interrupted, SignalWatch
from experiments.reading_bar import ReadingBar


class ReadingInterruptedError(Interrupted):
    """A reading was asked to stop, and its memory is saved."""

    def __init__(self, signal_number: int, progress: Progress) -> None:
        Exception.__init__(
            self,
            f"stopped by {signal.Signals(signal_number).name} after {progress.tokens:,} of "
            f"{progress.total or 0:,} tokens",
        )
        self.signal_number = signal_number
        self.step = progress.tokens


def read_with_progress(
    memory: Memory, document: Document, path: Path, snapshot_seconds: float
) -> None:
    """Read ``document`` to its end; ``path`` keeps the memory now and then, and at the end.

    Raises:
      Interrupted: SIGTERM or SIGINT came; the memory is saved.
      ConfigError, OSError: as ``Memory.read``.
    """
    before = memory.texts[-1].tokens if memory.is_reading else 0
    if before:
        print(f"{path}: going on from token {before:,}", file=sys.stderr)
    started = time.monotonic()
    with SignalWatch() as watch, ReadingBar() as bar:
        total = document.num_tokens

        def show(progress: Progress) -> None:
            bar.update(document.name, progress.tokens, total)
            if watch.received is not None:
                raise ReadingInterruptedError(watch.received, progress)

        memory.read(document, snapshot=path, snapshot_seconds=snapshot_seconds, on_progress=show)
    seconds = time.monotonic() - started
    tokens = document.num_tokens - before
    print(
        f"{document.name}: {tokens:,} tokens read in {seconds:.1f} s "
        f"({tokens / max(seconds, 1e-9):,.0f} tokens/s), memory in {path}",
        file=sys.stderr,
    )
