"""What is measured of a BABILong model's memory: as JSON in its folder, and as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from armt_jax.config import BabilongExperiment
from armt_jax.evaluation.results import atomic_write, git_commit
from experiments.babilong_report import FOLDER
from experiments.retrieval_report import model_name


def write_measurement(
    config: BabilongExperiment,
    step: int,
    schema: tuple[str, int],
    file_name: str,
    content: dict[str, Any],
) -> None:
    """Write ``content`` and what it is of into the ``evaluation`` folder of the model.

    Args:
      config, step: of the model, see ``restoring.BabilongModel``.
      schema: name and version of the file's form.
      file_name: of the file.
      content: entries of it.
    """
    about = {
        "schema": schema[0],
        "schema_version": schema[1],
        "task": config.task.task,
        "model": model_name(config),
        "rule": config.model.memory_rule,
        "seed": config.seed,
        "step": step,
        "commit": git_commit(),
    }
    folder = Path(config.workdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**about, **content}, indent=1) + "\n"
    atomic_write(folder / file_name, text.encode())


def print_table(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table of numbers."""
    table = Table(title=title)
    for header in headers:
        table.add_column(header, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
