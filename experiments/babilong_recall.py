"""How often retrieval finds all facts that a question of BABILong needs; no model is asked.

    python -m experiments.babilong_recall --tasks=qa1,qa2 --lengths=4k,64k --samples=20

Prints a table and writes ``results/retrieval_recall.json`` (``--out`` names another file). With
``--methods=bm25,embeddings`` also by sentence embeddings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table

from armt_jax.evaluation.babilong_retrieval import UNITS, set_recall
from armt_jax.evaluation.results import atomic_write, git_commit
from armt_jax.tasks.babilong.babi import TASKS
from experiments import errors
from experiments.babilong_retriever import retriever
from experiments.babilong_samples import sample_source
from experiments.command_line import parse_flags
from experiments.shared_flags import OUT

SCHEMA = "armt_jax.babilong_recall"
_METHODS = flags.DEFINE_string("methods", "bm25", "Some of bm25,embeddings.")
_UNITS = flags.DEFINE_string("units", ",".join(UNITS), "Some of sentences,chunks.")


def main(argv: list[str]) -> None:
    """Measure what the flags name; what is measured is written at once."""
    parse_flags(argv)
    finders = [
        retriever(method.strip(), unit.strip())
        for method in _METHODS.value.split(",")
        for unit in _UNITS.value.split(",")
    ]
    source = sample_source()
    out = Path(OUT.value or "results/retrieval_recall.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    about = {**source.about, "commit": git_commit()}
    for task, length, chosen in source.sets(TASKS):
        for finder in finders:
            recall = set_recall(finder, chosen)
            name = {"task": task, "length": length, "retriever": finder.name}
            rows.append({**name, **recall._asdict(), **about})
            content = {"schema": SCHEMA, "schema_version": 1, "rows": rows}
            atomic_write(out, (json.dumps(content, indent=1) + "\n").encode())
            print(
                f"{task}, {length}, {finder.name}: {recall.found} of {recall.samples}", flush=True
            )
    _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(title="Questions with all supporting facts retrieved")
    for header in ("task", "tokens", "retrieved", "share, % [95 % CI]", "samples"):
        table.add_column(header)
    for row in rows:
        share = f"{100 * row['share']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        table.add_row(row["task"], row["length"], row["retriever"], share, str(row["samples"]))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
