"""What a person sees of a training: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import dataclasses
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn

from armt_jax.processes import is_main
from armt_jax.training.curriculum import Stage


@dataclasses.dataclass(frozen=True)
class Status:
    """What the bar shows.

    Attributes:
      step: finished steps of the run.
      step_in_stage: finished steps of the stage.
      loss: of the last logged step, nats per token.
      exact_match: of the last evaluation, None before the first of the stage.
      tokens_per_second: tokens read, contexts and queries, padding not counted.
      seconds_left: until the stage's ``max_steps``; it ends earlier where its target is reached.
    """

    step: int
    step_in_stage: int
    loss: float
    exact_match: float | None
    tokens_per_second: float
    seconds_left: float

    def describe(self) -> str:
        """For people, on one line."""
        match = "-" if self.exact_match is None else f"{self.exact_match:.3f}"
        return (
            f"loss {self.loss:.4f}  exact match {match}  {self.tokens_per_second:,.0f} tokens/s"
            f"  ETA {clock_time(self.seconds_left)}"
        )


class BarOrLines:
    """A context manager: a bar in a terminal, and messages on the error stream.

    Of several processes only the first one shows anything.
    """

    def __init__(self, console: Console | None, *columns: ProgressColumn) -> None:
        """``console`` is the error stream by default; ``columns`` are the bar's."""
        self._console = console or Console(stderr=True, highlight=False, quiet=not is_main())
        self._live = self._console.is_terminal
        self._bar = Progress(*columns, console=self._console, disable=not self._live)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def message(self, text: str) -> None:
        """One line that stays."""
        self._bar.console.print(text, markup=False, soft_wrap=True)


class ProgressDisplay(BarOrLines):
    """Shows stages and statuses of a training."""

    def __init__(self, num_stages: int, console: Console | None = None) -> None:
        self._num_stages = num_stages
        super().__init__(
            console,
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[status]}"),
        )
        self._task: TaskID | None = None
        self._prefix = ""

    def stage(self, stage: Stage, step_in_stage: int) -> None:
        """A stage begins, or goes on after ``step_in_stage`` steps."""
        self._prefix = f"stage {stage.index + 1}/{self._num_stages}"
        since = f", from step {step_in_stage}" if step_in_stage else ""
        self.message(f"{self._prefix}: {stage.label}, at most {stage.max_steps:,} steps{since}")
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(
            escape(self._prefix), total=stage.max_steps, completed=step_in_stage, status=""
        )

    def tick(self, step_in_stage: int) -> None:
        """The bar alone moves on; nothing is printed outside a terminal."""
        if self._live and self._task is not None:
            self._bar.update(self._task, completed=step_in_stage)

    def status(self, status: Status) -> None:
        """New numbers: in the bar, or as a line."""
        text = status.describe()
        if self._live and self._task is not None:
            self._bar.update(self._task, completed=status.step_in_stage, status=escape(text))
        else:
            self.message(f"{self._prefix}  step {status.step:,}  {text}")


def clock_time(seconds: float) -> str:
    """Seconds as ``m:ss``, or ``h:mm:ss``."""
    minutes, second = divmod(round(max(0.0, seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
