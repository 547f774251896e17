"""Reading a document with a bar on the terminal, and stopping where a signal asks to."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from armt_jax.reading import Document, Memory, Progress
from armt_jax.training.interruption import Interrupted, SignalWatch


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


class _Rate(ProgressColumn):
    """Tokens a second of this reading, without those of an earlier one."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f} tokens/s")


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
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} tokens"),
        _Rate(),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with (
        SignalWatch() as watch,
        Bar(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task(document.name, total=document.num_tokens, completed=before)

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.tokens)
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
