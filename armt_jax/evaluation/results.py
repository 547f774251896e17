"""Results of evaluation as rows, and their JSON file.

A file is ``{"schema": ..., "schema_version": ..., "rows": [{...}, ...]}``. Files of another
version are never read, mixed with or overwritten: what their numbers mean may have changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import subprocess
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

from armt_jax.config import VARIANTS, ConfigError
from armt_jax.evaluation.capacity import estimate_capacity, num_values
from armt_jax.evaluation.intervals import as_count, wilson_interval

SCHEMA = "armt_jax.results"
SCHEMA_VERSION = 1
RESULT_VARIANTS = (*VARIANTS, "mqar", "entity_events")
UNKNOWN_COMMIT = "unknown"


@dataclasses.dataclass(frozen=True)
class ResultRow:
    """Exact match of one checkpoint at one number of pairs. Build it with ``result_row``.

    Attributes:
      variant: ``remember`` or ``rewrite``; ``mqar`` or ``entity_events``.
      model, rule: name of the model and of its memory rule.
      num_params: number of parameters.
      num_pairs: pairs in the context; for rewrite, the number of updates, else that of events.
      key_size, value_size: digits of a key, of a value.
      samples, correct: contexts asked (one query each), and exactly right answers.
      exact_match, exact_match_low, exact_match_high: fractions; 95 % Wilson interval.
      capacity, capacity_low, capacity_high: estimated stored pairs and 95 % interval; None for
        rewrite, whose repeated keys the estimate is not made for.
      seed: of the training.
      step: optimizer steps of the checkpoint.
      commit: of the code that evaluated, as ``git_commit`` gives it.
    """

    variant: str
    model: str
    rule: str
    num_params: int
    num_pairs: int
    key_size: int
    value_size: int
    samples: int
    correct: int
    exact_match: float
    exact_match_low: float
    exact_match_high: float
    capacity: float | None
    capacity_low: float | None
    capacity_high: float | None
    seed: int
    step: int
    commit: str

    def __post_init__(self) -> None:
        if self.variant not in RESULT_VARIANTS:
            known = ", ".join(RESULT_VARIANTS)
            raise ConfigError(f"variant = {self.variant!r}: must be one of {known}")
        for name in ("num_params", "num_pairs", "key_size", "value_size", "samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 0 <= self.correct <= self.samples:
            raise ConfigError(
                f"correct = {self.correct}: must be from 0 to samples = {self.samples}"
            )
        if not math.isclose(self.exact_match, self.correct / self.samples, abs_tol=1e-9):
            raise ConfigError(
                f"exact_match = {self.exact_match}: must be correct / samples ="
                f" {self.correct / self.samples}"
            )

    @property
    def identity(self) -> tuple[str | int, ...]:
        """What a row measures: two rows of equal identity are the same measurement, repeated."""
        return (*self.series, self.num_pairs)

    @property
    def series(self) -> tuple[str | int, ...]:
        """What rows have in common that differ in ``num_pairs`` alone."""
        what = (self.variant, self.model, self.rule, self.key_size, self.value_size)
        return (*what, self.seed, self.step)


def result_row(
    *,
    variant: str,
    model: str,
    rule: str,
    num_params: SupportsIndex,
    num_pairs: SupportsIndex,
    key_size: SupportsIndex,
    value_size: SupportsIndex,
    samples: SupportsIndex,
    correct: SupportsIndex,
    seed: SupportsIndex,
    step: SupportsIndex,
    commit: str,
) -> ResultRow:
    """A row from counts: exact match, its interval, and for remember the capacity estimate.

    Raises:
      ConfigError: impossible counts or sizes, or some that are not integers.
    """
    counts = {
        "num_params": num_params,
        "num_pairs": num_pairs,
        "key_size": key_size,
        "value_size": value_size,
        "samples": samples,
        "correct": correct,
        "seed": seed,
        "step": step,
    }
    # JSON knows the ints of Python only, not those of NumPy and JAX.
    ints = {name: as_count(name, value) for name, value in counts.items()}
    right, asked = ints["correct"], ints["samples"]
    alpha = wilson_interval(right, asked)
    capacity: Sequence[float | None] = (None, None, None)
    if variant == "remember":
        values = num_values(ints["value_size"])
        capacity = estimate_capacity(right, asked, ints["num_pairs"], values)
    return ResultRow(
        variant=variant,
        model=model,
        rule=rule,
        exact_match=right / asked,
        exact_match_low=alpha.low,
        exact_match_high=alpha.high,
        capacity=capacity[0],
        capacity_low=capacity[1],
        capacity_high=capacity[2],
        commit=commit,
        **ints,
    )


def write_results(path: str | os.PathLike[str], rows: Iterable[ResultRow]) -> None:
    """Write rows as JSON, whole or not at all. An existing file of this version is replaced.

    Raises:
      ConfigError: the existing file is no results file, or of another schema version.
      OSError: the file cannot be written; what was there before is untouched.
    """
    path = Path(path)
    if path.exists():
        read_results(path)
    content = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    atomic_write(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def update_results(path: str | os.PathLike[str], rows: Iterable[ResultRow]) -> list[ResultRow]:
    """Add rows to a results file, made if missing; a repeated measurement replaces its old row.

    Rows of one model stand together, by their number of pairs, whenever they were measured. Two
    processes must not update one file at a time. Returns all rows now in the file.

    Raises: as ``write_results``.
    """
    path = Path(path)
    merged = {row.identity: row for row in (read_results(path) if path.exists() else [])}
    merged.update({row.identity: row for row in rows})
    series = list(dict.fromkeys(row.series for row in merged.values()))
    ordered = sorted(merged.values(), key=lambda row: (series.index(row.series), row.num_pairs))
    write_results(path, ordered)
    return ordered


def read_results(*paths: str | os.PathLike[str]) -> list[ResultRow]:
    """The rows of one or several results files, in order.

    Raises:
      ConfigError: not a results file, another schema version, or a row with a missing, unknown
        or impossible field; the message names the file.
      OSError: a file cannot be read.
    """
    return [row for path in paths for row in _read_file(Path(path))]


def _read_file(path: Path) -> list[ResultRow]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:  # of JSON and of UTF-8
        raise ConfigError(f"{path}: not a results file ({error})") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ConfigError(f"{path}: not a results file (needs schema = {SCHEMA!r})")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ConfigError(f"{path}: schema_version = {version!r}: must be {SCHEMA_VERSION}")
    if not isinstance(content.get("rows"), list):
        raise ConfigError(f"{path}: rows must be a list")
    return [to_row(f"{path}: rows[{i}]", values) for i, values in enumerate(content["rows"])]


def to_row(where: str, values: Any) -> ResultRow:
    """The row of a JSON object.

    Raises:
      ConfigError: a missing, unknown or impossible field; the message begins with ``where``.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where} = {values!r}: must be an object")
    kinds = typing.get_type_hints(ResultRow)
    for name in kinds.keys() ^ values.keys():
        raise ConfigError(f"{where}.{name} is {'missing' if name in kinds else 'an unknown field'}")
    for name, kind in kinds.items():
        value = values[name]
        # JSON has one kind of number: 1 may stand for 1.0, but True is no number.
        accepted = kind | int if kind not in (int, str) else kind
        if isinstance(value, bool) or not isinstance(value, accepted):
            raise ConfigError(
                f"{where}.{name} = {value!r}: must be {getattr(kind, '__name__', kind)}"
            )
    try:
        return ResultRow(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from None


def atomic_write(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace a file whole or not at all, also when interrupted or when the disk is full.

    Raises:
      OSError: the folder is missing or unwritable, or the disk is full; names ``path``.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = f"cannot be written, nothing was changed: {error.strerror}"
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def git_commit(file: str | os.PathLike[str] = __file__) -> str:
    """Commit of the repository that tracks ``file``, with ``-dirty`` where tracked files differ.

    ``unknown`` without git, outside a repository, before the first commit, and where the
    repository around the file does not track it (a package installed below another project).
    """
    folder = Path(file).resolve().parent

    def git(*arguments: str) -> str:
        # Inside a git hook these variables point at the hook's repository instead of ours.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10, env=environment
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(file).resolve().name)
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN_COMMIT
    return f"{commit}-dirty" if changed else commit
