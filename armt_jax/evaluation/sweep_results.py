"""What one run of a sweep measured, and its file: a run a file, so that hosts never share one.

``{"schema": ..., "schema_version": ..., "about": {...}, "settings": {...}, "rows": [{...}, ...]}``;
a row is a ``ResultRow``. The file stands only once the run is finished.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from armt_jax.config import ConfigError
from armt_jax.evaluation.results import ResultRow, atomic_write, to_row

SCHEMA = "armt_jax.sweep_run"
SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class About:
    """What was trained, and what it cost.

    Attributes:
      entry: the sweep's name of the model, such as ``armt_no_gamma``.
      family: of the model.
      seed: of the training.
      rate: the sweep's name of optimizer and learning rate, such as ``muon_5e-3``.
      optimizer: ``muon`` or ``adamw``.
      learning_rate, muon_learning_rate: of AdamW; of Muon, None without it.
      num_params: number of parameters.
      state_floats: floats that one text leaves (``armt_jax.state_size``).
      flops_per_token: of reading a context of the trained length, matrix products only.
      trained_pairs: longest context of the training.
      step: optimizer steps.
      stages_reached: for each stage of the curriculum, whether its target was reached.
      train_seconds: over all sittings.
      version: of the installed library, such as ``0.1.0``.
      code: ``code_version`` of what evaluated.
      commit: as ``git_commit`` gives it.
    """

    entry: str
    family: str
    seed: int
    rate: str
    optimizer: str
    learning_rate: float
    muon_learning_rate: float | None
    num_params: int
    state_floats: int
    flops_per_token: float
    trained_pairs: int
    step: int
    stages_reached: tuple[bool, ...]
    train_seconds: float
    version: str
    code: str
    commit: str


@dataclasses.dataclass(frozen=True)
class RunResult:
    """A finished run of a sweep.

    Attributes:
      about: see ``About``.
      settings: the whole experiment, as ``armt_jax.config.to_dict`` gives it.
      rows: exact match at each length.
    """

    about: About
    settings: dict[str, Any]
    rows: tuple[ResultRow, ...]

    @property
    def name(self) -> str:
        """Such as ``armt seed 0``."""
        return f"{self.about.entry} seed {self.about.seed}"

    def row(self, length: int) -> ResultRow | None:
        """The row of that many pairs (updates); None where there is none."""
        return next((row for row in self.rows if row.num_pairs == length), None)

    def missing(self, lengths: Iterable[int]) -> list[int]:
        """Those of ``lengths`` without a row."""
        return [length for length in lengths if self.row(length) is None]


def write_run(path: str | os.PathLike[str], result: RunResult) -> None:
    """Write the file, whole or not at all; its folder is made.

    Raises:
      OSError: it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "about": dataclasses.asdict(result.about),
        "settings": result.settings,
        "rows": [dataclasses.asdict(row) for row in result.rows],
    }
    atomic_write(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_run(path: str | os.PathLike[str]) -> RunResult:
    """What ``write_run`` wrote.

    Raises:
      ConfigError: another kind or version of file, or a missing, unknown or impossible field.
      OSError: the file cannot be read.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path}: must be the result of a run of a sweep ({error})") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ConfigError(f"{path}: must be the result of a run of a sweep (schema {SCHEMA!r})")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ConfigError(f"{path}: schema_version = {version!r}: must be {SCHEMA_VERSION}")
    for key, kind in {"about": dict, "settings": dict, "rows": list}.items():
        if not isinstance(content.get(key), kind):
            raise ConfigError(f"{path}: {key} must be {kind.__name__}")
    rows = [to_row(f"{path}: rows[{i}]", row) for i, row in enumerate(content["rows"])]
    return RunResult(_about(f"{path}: about", content["about"]), content["settings"], tuple(rows))


def _about(where: str, values: dict[str, Any]) -> About:
    kinds = typing.get_type_hints(About)
    for name in kinds.keys() ^ values.keys():
        raise ConfigError(f"{where}.{name} is {'missing' if name in kinds else 'an unknown field'}")
    values = {**values, "stages_reached": tuple(values["stages_reached"])}
    for name, kind in kinds.items():
        value = values[name]
        if name == "stages_reached":
            right = all(isinstance(one, bool) for one in value)
        else:
            accepted = kind | int if kind not in (int, str) else kind
            right = isinstance(value, accepted) and not isinstance(value, bool)
        if not right or (isinstance(value, float) and not math.isfinite(value)):
            raise ConfigError(f"{where}.{name} = {value!r}: must be {kind}")
    return About(**values)
