"""Score stored answers of a model to BABILong, and compare with the scores that are known of them.

    python -m experiments.babilong_scores --predictions=FOLDER [--out=results/babilong_NAME.json]

The folder is named after the model and holds BABILong's CSV files (``qa1_64k_....csv``). Ends with
an error where a score is not the known one. With ``--out`` the cells go into a file that
``experiments.report table1`` reads.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from armt_jax.config import ConfigError
from armt_jax.evaluation.babilong_results import BabilongCell, cell, write_cells
from armt_jax.evaluation.results import git_commit
from armt_jax.evaluation.stored_predictions import (
    KNOWN_SCORES,
    difference_from_known,
    read_predictions,
)
from experiments import errors
from experiments.babilong_report import print_cells
from experiments.command_line import parse_flags
from experiments.shared_flags import OUT

_PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder of stored answers.")


def main(argv: list[str]) -> None:
    """Score, print, compare."""
    parse_flags(argv)
    if _PREDICTIONS.value is None:
        raise ConfigError("--predictions is missing: must name a folder of stored answers")
    folder = Path(_PREDICTIONS.value)
    model = folder.resolve().name
    about = {"model": model, "commit": git_commit(), "noise": "books", "facts": "babi"}
    cells = [cell(a, **about, given="stored answers") for a in read_predictions(folder)]
    if OUT.value is not None:
        Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
        write_cells(OUT.value, cells)
    print_cells(cells, f"{model}, stored answers")
    compare(model, cells)


def compare(model: str, cells: list[BabilongCell]) -> None:
    """Say how many cells have the scores that are known.

    Raises:
      ConfigError: one that does not.
    """
    known = [one for one in cells if one.length in KNOWN_SCORES.get(model, {})]
    wrong = [text for text in (difference_from_known(model, one) for one in known) if text]
    if wrong:
        raise ConfigError(f"{model}: not the known scores: {'; '.join(wrong)}")
    print(f"{model}: {len(known)} of {len(cells)} scores are known, all of them agree")


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
