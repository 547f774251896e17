"""Rows of benchmarks as one JSON file and as tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from armt_jax.config import ConfigError
from armt_jax.evaluation.results import atomic_write
from benchmarks.process import FAILED, OK, TIMEOUT

SCHEMA = "armt_jax.benchmarks"
SCHEMA_VERSION = 1
ABSENT = "-"
_FIELDS: dict[str, tuple[type, ...]] = {
    "group": (str,),
    "label": (str,),
    "command": (str,),
    "status": (str,),
    "wall_seconds": (int, float),
    "result": (dict, type(None)),
    "error": (str, type(None)),
}
# What every benchmark says of the machine it ran on.
MACHINE = ("platform", "device", "devices", "cores", "jax", "python")


def document(
    rows: Sequence[dict[str, Any]], commit: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """What is written: the schema, the commit, the settings, the machine and the rows.

    The machine is described by the benchmarks themselves: the process that starts them must not
    take the device from them. ``machines`` has more than one entry where they differ, for instance
    in the number of devices that a CPU was made to show.
    """
    machines: list[dict[str, Any]] = []
    for row in rows:
        result = row["result"] or {}
        machine = {name: result[name] for name in MACHINE if name in result}
        if machine and machine not in machines:
            machines.append(machine)
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "commit": commit,
        "settings": settings,
        "machines": machines,
        "rows": list(rows),
    }


def write_report(path: Path, content: dict[str, Any]) -> None:
    """Write a document whole or not at all.

    Raises:
      ConfigError: ``path`` is there and is not such a document.
      OSError: the file cannot be written.
    """
    if path.exists():
        read_report(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_report(path: Path) -> dict[str, Any]:
    """A document, checked.

    Raises:
      ConfigError: not one of this schema, or a row with a missing, unknown or impossible field.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path}: not a file of benchmarks ({error})") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ConfigError(f"{path}: not a file of benchmarks (needs schema = {SCHEMA!r})")
    if content.get("schema_version") != SCHEMA_VERSION:
        version = content.get("schema_version")
        raise ConfigError(f"{path}: schema_version = {version!r}: must be {SCHEMA_VERSION}")
    if not isinstance(content.get("rows"), list):
        raise ConfigError(f"{path}: rows must be a list")
    for index, row in enumerate(content["rows"]):
        _check_row(f"{path}: rows[{index}]", row)
    return content


def _check_row(where: str, row: Any) -> None:
    if not isinstance(row, dict):
        raise ConfigError(f"{where} = {row!r}: must be an object")
    for name in sorted(_FIELDS.keys() ^ row.keys()):
        raise ConfigError(f"{where}.{name} is {'missing' if name in _FIELDS else 'unknown'}")
    for name, kinds in _FIELDS.items():
        if not isinstance(row[name], kinds) or isinstance(row[name], bool):
            raise ConfigError(f"{where}.{name} = {row[name]!r}: must be {kinds[0].__name__}")
    if row["status"] not in (OK, FAILED, TIMEOUT):
        known = f"{OK}, {FAILED} or {TIMEOUT}"
        raise ConfigError(f"{where}.status = {row['status']!r}: must be {known}")
    if (row["status"] == OK) != (row["result"] is not None and row["error"] is None):
        raise ConfigError(f"{where}: must have a result if status = {OK!r}, else an error")


def tables(rows: Iterable[dict[str, Any]]) -> str:
    """A Markdown table of all rows, and one for each that compares several things."""
    rows = list(rows)
    parts = [_table(_COLUMNS, [_summary(row) for row in rows])]
    for row in rows:
        inner = (row["result"] or {}).get("rows")
        if inner:
            parts.append(f"{row['label']}\n\n" + _comparison(inner))
    return "\n".join(parts)


_COLUMNS = ("benchmark", "measured", "share of sgemm", "sgemm, GFLOP/s", "peak memory", "compiling")


def _summary(row: dict[str, Any]) -> list[str]:
    if row["status"] != OK:
        return [row["label"], f"{row['status']}: {row['error']}", *[ABSENT] * 4]
    result = row["result"]
    return [
        row["label"],
        _measured(result),
        number(result, "sgemm_share", 100, "{:.0f} %"),
        number(result, "sgemm_flops_per_second", 1e-9, "{:.0f}"),
        number(result, "peak_memory_bytes", 2**-30, "{:.2f} GiB"),
        number(result, "compile_seconds", 1, "{:.1f} s"),
    ]


def _measured(result: dict[str, Any]) -> str:
    parts = [
        number(result, "seconds", 1, "{:.3g} s"),
        number(result, "tokens_per_second", 1, "{:,.0f} tokens/s"),
        number(result, "tokens_read", 1, "{:,.0f} tokens read"),
    ]
    if result.get("rows"):
        parts.append("see below")
    return ", ".join(part for part in parts if part != ABSENT) or ABSENT


def number(values: dict[str, Any], name: str, factor: float, form: str) -> str:
    """``values[name]`` times ``factor``, as ``form`` has it; ``-`` where there is none."""
    value = values.get(name)
    return ABSENT if value is None else form.format(value * factor)


def _comparison(inner: Sequence[dict[str, Any]]) -> str:
    """Rows of one benchmark: what they have in common as columns."""
    names = [name for name in _NUMBERS if any(name in row for row in inner)]
    key = next(name for name in ("schedule", "program", "segments") if name in inner[0])
    header = [key, *(_NUMBERS[name][0] for name in names)]
    body = []
    for row in inner:
        cells = [number(row, name, *_NUMBERS[name][1:]) for name in names]
        note = f" ({row['left_out']})" if "left_out" in row else ""
        body.append([f"{row[key]}{note}", *cells])
    return _table(header, body)


_NUMBERS: dict[str, tuple[str, float, str]] = {
    "seconds": ("seconds", 1, "{:.4g}"),
    "against_first": ("times the first's", 1, "{:.2f}"),
    "against_first_long": ("of a long text", 1, "{:.2f}"),
    "times_as_fast": ("times as fast", 1, "{:.2f}"),
    "tokens_per_second": ("tokens/s", 1, "{:,.0f}"),
    "sgemm_share": ("share of sgemm", 100, "{:.0f} %"),
    "steps": ("steps", 1, "{:.0f}"),
    "efficiency": ("S / (S + stages - 1)", 1, "{:.2f}"),
    "measured_efficiency": ("measured", 1, "{:.2f}"),
    "temporary_bytes": ("temporary memory, MiB", 2**-20, "{:,.1f}"),
    "compile_seconds": ("compiling, s", 1, "{:.1f}"),
    "difference": ("largest difference", 1, "{:.0e}"),
}


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = [":---", *["---:"] * (len(header) - 1)]
    rows = [header, rule, *body]
    return "".join(f"| {' | '.join(c.replace('|', '/') for c in cells)} |\n" for cells in rows)
