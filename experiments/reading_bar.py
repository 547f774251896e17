"""How far a long reading is: a bar on a terminal, in a log a line a minute."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from armt_jax.training.progress import BarOrLines, clock_time

SECONDS_BETWEEN_LINES = 60.0


class _Rate(ProgressColumn):
    """Units a second of this reading, without those of an earlier one."""

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        return Text("" if task.speed is None else f"{task.speed:,.0f} {unit}/s")


class ReadingBar(BarOrLines):
    """How much of a reading is done.

    Hours of reading on a machine without a terminal leave a line a minute in the log.
    """

    def __init__(
        self,
        unit: str = "tokens",
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``unit`` is what is counted; ``now`` tells seconds."""
        super().__init__(
            console,
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn(f"{{task.completed:,.0f}}/{{task.total:,.0f}} {escape(unit)}"),
            _Rate(),
            TimeRemainingColumn(),
        )
        self._unit, self._now = unit, now
        self._task = self._bar.add_task("", total=None, visible=False, unit=unit)
        self._description = ""
        self._since: tuple[float, float] | None = None

    def update(self, description: str, completed: float, total: float) -> None:
        """So many of ``total`` are read of ``description``; another one begins a new bar.

        The first call of a bar says what an earlier process had read: its units are in no rate.
        """
        if description != self._description or self._since is None:
            self._description, self._since = description, (self._now(), completed)
            self._bar.reset(
                self._task,
                description=escape(description),
                total=total,
                completed=int(completed),
                visible=True,
            )
            return
        if self._live:
            self._bar.update(self._task, completed=completed, total=total)
            return
        then, before = self._since
        seconds = self._now() - then
        if seconds >= SECONDS_BETWEEN_LINES:
            rate = (completed - before) / seconds
            self._since = (then + seconds, completed)
            self.message(self._line(completed, total, rate))

    def _line(self, completed: float, total: float, rate: float) -> str:
        left = f", {clock_time((total - completed) / rate)} left" if rate > 0 else ""
        share = 100 * completed / total if total else 100.0
        return (
            f"{self._description}: {completed:,.0f} of {total:,.0f} {self._unit} "
            f"({share:.0f} %), {rate:,.0f} {self._unit}/s{left}"
        )
