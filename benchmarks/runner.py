"""Run a list of benchmarks one after another, show how far it is, and keep what was measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from armt_jax.evaluation.results import git_commit
from benchmarks.process import OK, Job, run_job
from benchmarks.report import document, tables, write_report

FILE = "benchmarks.json"


def run_all(
    jobs: Sequence[Job],
    folder: Path,
    settings: dict[str, Any],
    left_out: Sequence[str] = (),
    json_only: bool = False,
) -> int:
    """Run ``jobs``, each in a process of its own, and print a table.

    ``folder/benchmarks.json`` is written anew after each of them, so that an interrupted run keeps
    what it has. Progress goes to the error stream, the table and the JSON line to the output.

    Returns:
      The exit code: 0, or 1 where a benchmark failed; the others are in the table all the same.

    Raises:
      ConfigError: the file is there and is not one of benchmarks.
      OSError: the file cannot be written.
    """
    path, commit = folder / FILE, git_commit(__file__)
    settings = {**settings, "left_out": list(left_out)}
    rows: list[dict[str, Any]] = []
    # Before anything is measured: where it cannot be written, that is known at once.
    write_report(path, document(rows, commit, settings))
    for index, job in enumerate(jobs):
        print(f"[{index + 1}/{len(jobs)}] {job.label} ...", file=sys.stderr, flush=True)
        row = run_job(job)
        rows.append(row)
        write_report(path, document(rows, commit, settings))
        how = row["status"] if row["error"] is None else f"{row['status']}: {row['error']}"
        print(f"    {how}, {row['wall_seconds']:.0f} s", file=sys.stderr, flush=True)
    failed = sum(row["status"] != OK for row in rows)
    if not json_only:
        print(tables(rows))
        for words in left_out:
            print(f"left out: {words}")
        print(f"written to {path}")
    print(json.dumps({"file": str(path), "benchmarks": len(rows), "failed": failed}))
    return 1 if failed else 0
