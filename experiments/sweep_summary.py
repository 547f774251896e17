"""Where a sweep stands, for people: a table, and what is missing by name."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.sweep_grid import Sweep
from experiments.sweep_runner import State, Status


def print_summary(
    sweep: Sweep, states: Sequence[tuple[str, State]], console: Console | None = None
) -> None:
    """A line a run, then counts, missing runs by name, failures with their errors."""
    console = console or Console()
    table = Table(title=f"{sweep.figure}: lengths {', '.join(map(str, sweep.lengths))}")
    table.add_column("run")
    table.add_column("state")
    for name, state in states:
        note = f": {state.note}" if state.note and state.status is not Status.FAILED else ""
        table.add_row(escape(name), escape(f"{state.status.value}{note}"))
    console.print(table)
    for line in summary_lines(sweep, states):
        console.print(escape(line), highlight=False, soft_wrap=True)


def summary_lines(sweep: Sweep, states: Sequence[tuple[str, State]]) -> list[str]:
    """What stands below the table."""
    done = [name for name, state in states if state.status is Status.FINISHED]
    missing = [name for name, state in states if state.status is not Status.FINISHED]
    lines = [f"{len(done)} of {len(states)} runs are finished, in {sweep.results_folder}"]
    if missing:
        lines.append(f"missing: {', '.join(missing)}")
    failed = [(name, state) for name, state in states if state.status is Status.FAILED]
    lines += [f"failed: {name}: {state.note}" for name, state in failed]
    if failed:
        lines.append(f"errors: error.txt in {sweep.runs}/{sweep.pool}/RUN; --retry tries again")
    elif not missing:
        where = "" if sweep.results == "results" else f" --results={sweep.results}"
        lines.append(f"next: python -m experiments.report {sweep.figure}{where}")
    return lines
