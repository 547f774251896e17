"""Result rows as tables: Markdown for files, rich for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from armt_jax.evaluation.intervals import (
    Interval,
    MeanInterval,
    mean_interval,
    wilson_interval,
)
from armt_jax.evaluation.results import ResultRow
from armt_jax.evaluation.series import group_rows, labels

RESULTS = ("pairs", "exact match, % [95 % CI]", "stored pairs [95 % CI]")
# Header, and whether the column holds numbers (set flush right).
COLUMNS = (
    ("task", False),
    ("model", False),
    ("rule", False),
    ("parameters", True),
    ("key size", True),
    ("value size", True),
    *((name, True) for name in RESULTS),
    ("samples", True),
    ("seed", True),
    ("step", True),
)
ABSENT = "-"


def sort_rows(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """Rows by task, sizes and number of pairs, so that rules stand beside each other."""

    def order(row: ResultRow) -> tuple[str | int, ...]:
        sizes = (row.variant, row.key_size, row.value_size, row.num_pairs)
        return (*sizes, row.model, row.rule, row.seed, row.step)

    return sorted(rows, key=order)


def markdown_table(rows: Iterable[ResultRow]) -> str:
    """Every row and column as a GitHub-flavoured Markdown table, ending with a newline."""
    body = [_cells(row) for row in sort_rows(rows)]
    return to_markdown(COLUMNS, body)


def markdown_summary(rows: Iterable[ResultRow], variant: str) -> str:
    """Exact match of ``variant`` with a line per number of pairs and a column per model and rule.

    Of several seeds it is their mean (``mean_and_interval``).

    Raises:
      ConfigError: no row of ``variant``, or two rows of one seed at one length.
    """
    groups = group_rows(rows, variant)
    counted = "updates" if variant == "rewrite" else "pairs"
    columns = [(counted, True), *((name, True) for name in labels(list(groups)))]
    lengths = sorted({length for group in groups.values() for length in group})
    body = [
        [f"{length:,}", *(_mean_cell(group.get(length, [])) for group in groups.values())]
        for length in lengths
    ]
    return to_markdown(columns, body)


def print_table(
    rows: Iterable[ResultRow], *, title: str | None = None, console: Console | None = None
) -> None:
    """Print the rows to the terminal, or to the ``console`` given.

    A column whose rows all say the same is told once, below the table: it fits 80 columns then.
    """
    body = [_cells(row) for row in sort_rows(rows)]
    common = []
    table = Table(title=None if title is None else escape(title))
    kept = []
    for index, (name, numeric) in enumerate(COLUMNS):
        values = {cells[index] for cells in body}
        absent = values == {ABSENT}
        if len(values) == 1 and (absent or name not in RESULTS):
            if not absent:
                common.append(f"{name} {body[0][index]}")
            continue
        kept.append(index)
        table.add_column(escape(name), justify="right" if numeric else "left")
    for cells in body:
        # Names come from configs: brackets in them are text, not rich's markup.
        table.add_row(*(escape(cells[index]) for index in kept))
    console = console or Console()
    console.print(table)
    if common:
        console.print(escape(", ".join(common)), highlight=False)


def _cells(row: ResultRow) -> list[str]:
    capacity = ABSENT
    if row.capacity is not None and row.capacity_low is not None and row.capacity_high is not None:
        capacity = _with_interval(row.capacity, Interval(row.capacity_low, row.capacity_high), 1)
    return [
        row.variant,
        row.model,
        row.rule,
        f"{row.num_params:,}",
        str(row.key_size),
        str(row.value_size),
        f"{row.num_pairs:,}",
        _percent(row.exact_match, row.exact_match_low, row.exact_match_high),
        capacity,
        f"{row.samples:,}",
        str(row.seed),
        f"{row.step:,}",
    ]


def mean_and_interval(rows: Sequence[ResultRow]) -> MeanInterval:
    """Exact match over the seeds of ``rows``, one or more, all of one length.

    Of one seed its 95 % Wilson interval; of several the mean, and the wider of what the seeds and
    the questions say of it at either end.
    """
    pooled = wilson_interval(sum(row.correct for row in rows), sum(row.samples for row in rows))
    if len(rows) == 1:
        return MeanInterval(rows[0].exact_match, *pooled, 1)
    mean = mean_interval([row.exact_match for row in rows], bounds=(0.0, 1.0))
    return mean._replace(low=min(mean.low, pooled.low), high=max(mean.high, pooled.high))


def _mean_cell(rows: Sequence[ResultRow]) -> str:
    if not rows:
        return ABSENT
    mean = mean_and_interval(rows)
    seeds = f", {mean.count} seeds" if len(rows) > 1 else ""
    return _percent(mean.mean, mean.low, mean.high) + seeds


def _percent(value: float, low: float, high: float) -> str:
    return _with_interval(100 * value, Interval(100 * low, 100 * high), 2)


def _with_interval(value: float, interval: Interval, digits: int) -> str:
    return f"{value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def to_markdown(columns: Sequence[tuple[str, bool]], body: Sequence[Sequence[str]]) -> str:
    """A GitHub-flavoured table; ``columns`` are headers, and whether they are set flush right."""
    header = [name for name, _ in columns]
    rule = ["---:" if numeric else ":---" for _, numeric in columns]
    lines = [[cell.replace("|", "\\|") for cell in cells] for cells in (header, *body)]
    lines.insert(1, rule)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
