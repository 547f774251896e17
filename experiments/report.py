"""Tables and figures of the paper, from what ``results/`` holds.

    python -m experiments.report table1 fig3 fig2a fig2b fig4a fig4b fig6 table2 ablations

Table 1 and Figure 3 are made of the cells of ``results/babilong_*.json``, Figure 6 of the rows of
``results/language_modelling*.json``, the others of the runs
of ``experiments.sweep`` in ``results/figures`` (``--results`` names another folder than
``results``). Markdown and JSON, and PNGs of the figures, go into ``results/report``; what the paper
reports, or claims, stands beside it, and what is missing is named.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags

from armt_jax.config import ConfigError
from armt_jax.evaluation import babilong_table
from armt_jax.evaluation.babilong_results import BabilongCell, read_cells
from armt_jax.evaluation.results import atomic_write
from armt_jax.evaluation.segment_loss_figure import fig6
from experiments import errors, figure_report
from experiments.command_line import parse_flags
from experiments.figure_claims import CLAIMS
from experiments.shared_flags import OUT

_RESULTS = flags.DEFINE_string("results", "results", "Folder of the results.")
_MIXED = flags.DEFINE_bool(
    "mixed_versions", False, "Put runs of several versions of the code into one figure."
)


def _table1(results: Path, out: Path) -> None:
    cells = _cells(results)
    text = babilong_table.markdown(cells)
    atomic_write(out / "table1.md", text.encode())
    content = json.dumps(babilong_table.as_json(cells), indent=1) + "\n"
    atomic_write(out / "table1.json", content.encode())
    print(text)


def _fig3(results: Path, out: Path) -> None:
    babilong_table.figure(out / "fig3.png", _cells(results))


def _table2(results: Path, out: Path) -> None:
    print(figure_report.write_table2(results, out, mixed_versions=_MIXED.value))


def _figure(name: str) -> Callable[[Path, Path], None]:
    def report(results: Path, out: Path) -> None:
        print(figure_report.write_figure(results, out, name, mixed_versions=_MIXED.value))

    return report


# What a report does with the folder of results and its own.
REPORTS: dict[str, Callable[[Path, Path], None]] = {
    "table1": _table1,
    "fig3": _fig3,
    **{name: _figure(name) for name in CLAIMS},
    "table2": _table2,
    "fig6": fig6,
}


def main(argv: list[str]) -> None:
    """Write each report that is named on the command line."""
    names = parse_flags(argv, names=True)
    unknown = [name for name in names if name not in REPORTS]
    if unknown or not names:
        raise ConfigError(f"reports = {unknown or names}: must be some of {', '.join(REPORTS)}")
    results = Path(_RESULTS.value)
    out = Path(OUT.value) if OUT.value else results / "report"
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        REPORTS[name](results, out)
        print(f"{name}: written to {out}")


def _cells(results: Path) -> list[BabilongCell]:
    files = sorted(results.glob("babilong_*.json"))
    if not files:
        raise ConfigError(
            f"--results = {str(results)!r}: has no babilong_*.json; experiments.evaluate writes "
            "evaluation/babilong.json in the folder of a run"
        )
    return [cell for file in files for cell in read_cells(file)]


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
