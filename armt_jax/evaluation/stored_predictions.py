"""Answers that were stored by others, as BABILong publishes them: CSV files in a folder.

A file is named ``TASK_LENGTH_....csv`` and has the columns ``target``, ``output``, ``question``.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

from armt_jax.config import ConfigError
from armt_jax.evaluation.babilong_metric import TASK_LABELS
from armt_jax.evaluation.babilong_results import Answer, BabilongCell
from armt_jax.tasks.babilong.sample import tokens_of_length

# What the benchmark's own metric (label-constrained) gives for stored answers: right answers in
# percent, mostly without decimals, qa1 to qa5.
KNOWN_SCORES: dict[str, dict[str, tuple[float, ...]]] = {
    "gemini-3-flash-preview": {
        "0k": (100, 98, 87, 100, 97),
        "4k": (99.5, 84, 70, 97, 94),
        "16k": (91, 59, 45, 88, 89),
        "32k": (77, 50, 30, 79, 82),
        "64k": (75, 44, 27, 74, 77),
        "128k": (66, 31, 21, 62, 62),
        "512k": (61, 35, 21, 74, 67),
        "1M": (57, 28, 30, 71, 67),
    },
}
_NAME = re.compile(r"(qa\d+)_(\d+[kM]?)_.*\.csv")


def read_predictions(folder: str | os.PathLike[str]) -> Iterator[list[Answer]]:
    """The answers of each file, in order of task and length.

    Raises:
      ConfigError: no such folder or no such files, two of one task and length, a damaged file.
    """
    files: dict[tuple[int, int], Path] = {}
    for path in sorted(Path(folder).glob("*.csv")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        place = (int(match.group(1)[2:]), tokens_of_length(match.group(2)))
        if place in files:
            raise ConfigError(f"{path}: is of the task and length of {files[place].name}")
        files[place] = path
    if not files:
        raise ConfigError(f"{folder}: must be a folder of predictions, such as qa1_64k_x.csv")
    for _, path in sorted(files.items()):
        yield _read(path)


def difference_from_known(model: str, cell: BabilongCell) -> str | None:
    """What is wrong with the score of stored answers; None where nothing is.

    Sets of 100 must agree exactly; larger ones, whose scores are known rounded, within 0.5.

    Raises:
      KeyError: no score is known of this model, task and length.
    """
    want = dict(zip(TASK_LABELS, KNOWN_SCORES[model][cell.length], strict=True))[cell.task]
    correct = cell.label_correct
    if correct is None:
        raise KeyError(cell.task)
    percent = 100 * correct / cell.samples
    agrees = correct == want if cell.samples == 100 else abs(percent - want) <= 0.5
    return None if agrees else f"{cell.task}, {cell.length}: {percent:.1f} %, known {want} %"


def _read(path: Path) -> list[Answer]:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        if not rows:
            raise ConfigError(f"{path}: has no answers")
        return [
            Answer(
                task=match.group(1),
                length=match.group(2),
                set=path.name,
                id=index,
                question=row["question"],
                target=row["target"],
                output=row["output"],
                step=None,
            )
            for index, row in enumerate(rows)
            if _is_whole(path, index, row)
        ]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise ConfigError(
            f"{path}: must be a CSV file with the columns target, output, question ({error})"
        ) from error


def _is_whole(path: Path, index: int, row: dict[str | None, str | None]) -> bool:
    if any(row[name] is None for name in ("target", "output", "question")):
        raise ConfigError(f"{path}, answer {index + 1}: has not all columns; cut short?")
    return True
