"""Tables and figures of the paper, from what ``results/`` holds.

    python -m experiments.report table1 fig3 fig6

Reads the cells of ``results/babilong_*.json`` and the rows of ``results/language_modelling*.json``
(``--results`` names another folder) and writes Markdown and JSON, or a PNG, into
``results/report``; published rows stand beside ours.
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
from experiments import errors
from experiments.shared_flags import OUT

_RESULTS = flags.DEFINE_string("results", "results", "Folder of the results.")


def _table1(results: Path, out: Path) -> None:
    cells = _cells(results)
    text = babilong_table.markdown(cells)
    atomic_write(out / "table1.md", text.encode())
    content = json.dumps(babilong_table.as_json(cells), indent=1) + "\n"
    atomic_write(out / "table1.json", content.encode())
    print(text)


def _fig3(results: Path, out: Path) -> None:
    babilong_table.figure(out / "fig3.png", _cells(results))


REPORTS: dict[str, Callable[[Path, Path], None]] = {
    "table1": _table1,
    "fig3": _fig3,
    "fig6": fig6,
}


def main(argv: list[str]) -> None:
    """Write each report that is named on the command line."""
    try:
        names = flags.FLAGS(argv)[1:]
    except flags.Error as error:
        raise ConfigError(str(error)) from None
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
