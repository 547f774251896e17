"""What a training wrote to its ``metrics.jsonl``, as the points of its curves."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

from armt_jax.config import ConfigError


class Point(NamedTuple):
    """A value at an optimizer step."""

    step: int
    value: float


class Stage(NamedTuple):
    """A stage of the curriculum and the first logged step of it."""

    step: int
    label: str


class TrainingLog(NamedTuple):
    """Curves of a training: loss (nats per token), exact match (fraction), stages; by step."""

    loss: list[Point]
    exact_match: list[Point]
    stages: list[Stage]


def read_training_log(
    path: str | os.PathLike[str],
    *,
    step: str = "step",
    loss: str = "loss",
    exact_match: str = "exact_match",
    stage: str = "stage",
    stage_labels: tuple[str, ...] | None = None,
) -> TrainingLog:
    """Read JSON lines, one object a line, any of them with any of the keys.

    A killed and resumed run logs some steps twice: the later line wins. A last line cut short by
    the kill is left out. Objects without a step are no points and are skipped, as are values
    that are missing, null or not finite.

    Args:
      path: the ``metrics.jsonl``.
      step: name of the key of the optimizer step, an integer.
      loss: name of the key of the loss, in nats per token.
      exact_match: name of the key of the exact match, a fraction.
      stage: name of the key of the curriculum's stage, an integer from 0.
      stage_labels: text of each stage, indexed by the stage's number; by default ``stage 0``.

    Raises:
      ConfigError: a line that is no JSON object, a step, stage or value that is no number, a
        stage without a label; the message names file and line.
      OSError: the file cannot be read.
    """
    merged: dict[int, dict[str, Any]] = {}
    for where, record in _records(Path(path)):
        values = {name: record[name] for name in (step, loss, exact_match, stage) if name in record}
        values = {name: value for name, value in values.items() if value is not None}
        if step not in values:
            continue
        _check(where, values, whole=(step, stage))
        number = values.get(stage)
        if stage_labels is not None and number is not None and not 0 <= number < len(stage_labels):
            last = len(stage_labels) - 1
            raise ConfigError(f"{where}: {stage} = {number}: must be from 0 to {last}, the labels")
        merged.setdefault(values[step], {}).update(values)
    ordered = sorted(merged.items())
    return TrainingLog(
        _points(ordered, loss), _points(ordered, exact_match), _stages(ordered, stage, stage_labels)
    )


def _check(where: str, values: dict[str, Any], whole: tuple[str, ...]) -> None:
    for name, value in values.items():
        accepted, kind = (int, "an integer") if name in whole else (int | float, "a number")
        if isinstance(value, bool) or not isinstance(value, accepted):
            raise ConfigError(f"{where}: {name} = {value!r}: must be {kind}")


def _records(path: Path) -> list[tuple[str, dict[str, Any]]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        where = f"{path}, line {index + 1}"
        try:
            record = json.loads(line)
        except ValueError as error:
            if index == len(lines) - 1:
                break
            raise ConfigError(f"{where}: not JSON ({error})") from None
        if not isinstance(record, dict):
            raise ConfigError(f"{where}: must be a JSON object, not {type(record).__name__}")
        records.append((where, record))
    return records


def _points(ordered: list[tuple[int, dict[str, Any]]], name: str) -> list[Point]:
    values = ((step, record.get(name)) for step, record in ordered)
    return [Point(step, float(v)) for step, v in values if v is not None and math.isfinite(v)]


def _stages(
    ordered: list[tuple[int, dict[str, Any]]], name: str, labels: tuple[str, ...] | None
) -> list[Stage]:
    stages: list[Stage] = []
    current = None
    for step, record in ordered:
        number = record.get(name)
        if number is not None and number != current:
            current = number
            stages.append(Stage(step, f"stage {number}" if labels is None else labels[number]))
    return stages
