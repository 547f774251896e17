"""Results on BABILong: answers as they come, and cells of task and length with their intervals."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from armt_jax.config import ConfigError
from armt_jax.evaluation.babilong_metric import label_match, strict_match, task_labels
from armt_jax.evaluation.intervals import wilson_interval
from armt_jax.evaluation.results import atomic_write
from armt_jax.tasks.babilong.sample import tokens_of_length

SCHEMA = "armt_jax.babilong"
SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model said to one question.

    Attributes:
      task: such as ``qa1``.
      length: of the context, as it was asked for: ``64k``.
      set: all that the contexts of this length depend on, as a hash (``frozen.set_name``).
      id: position of the question in its test file.
      question, target, output: as text.
      step: of the checkpoint; None for a model that was not trained here.
    """

    task: str
    length: str
    set: str
    id: int
    question: str
    target: str
    output: str
    step: int | None


class AnswerFile:
    """Answers as JSON lines, appended as they come: a stopped evaluation goes on behind the last.

    A last line that was cut short is dropped.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def read(self) -> list[Answer]:
        """All answers so far.

        Raises:
          ConfigError: a line, but not the last one, that is no answer.
        """
        if not self._path.is_file():
            return []
        answers, lines = [], self._path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                answers.append(Answer(**json.loads(line)))
            except (ValueError, TypeError) as error:
                if number == len(lines):  # no line end: the process was stopped while it wrote
                    break
                raise ConfigError(
                    f"{self._path}, line {number}: is not an answer ({error}); delete the line, or "
                    "the file to evaluate anew"
                ) from None
        return answers

    def append(self, answers: Iterable[Answer]) -> None:
        """Write answers and see them on the disk; ``read`` is called before the first one."""
        whole = self._path.read_bytes() if self._path.is_file() else b""
        with self._path.open("ab") as file:
            if whole and not whole.endswith(b"\n"):
                file.truncate(whole.rfind(b"\n") + 1)
            for answer in answers:
                file.write((json.dumps(dataclasses.asdict(answer)) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())


@dataclasses.dataclass(frozen=True)
class BabilongCell:
    """One task at one length.

    Attributes:
      task, length: as in ``Answer``.
      samples, correct: questions, and strictly right answers.
      exact_match, exact_match_low, exact_match_high: fractions; 95 % Wilson interval.
      label_match: share that is right by the label-constrained metric; None where the task has no
        labels.
      model, commit: whose answers they are, and the code that asked.
      noise, facts: where the contexts come from, such as ``books`` and ``babi``.
      rule, seed, step, trained_tokens: memory rule, seed and checkpoint of a model trained here,
        and the longest context of its training; None for any other model.
      given: what any other model was given, such as ``few-shot, whole context``; else None.
    """

    task: str
    length: str
    samples: int
    correct: int
    exact_match: float
    exact_match_low: float
    exact_match_high: float
    label_match: float | None
    model: str
    commit: str
    noise: str
    facts: str
    rule: str | None = None
    seed: int | None = None
    step: int | None = None
    trained_tokens: int | None = None
    given: str | None = None

    def __post_init__(self) -> None:
        training = (self.rule, self.seed, self.step, self.trained_tokens)
        if (None in training) == (self.given is None) or len({v is None for v in training}) > 1:
            raise ConfigError(
                f"cell of {self.model!r}: must have rule, seed, step and trained_tokens, or none "
                "of them and given"
            )

    @property
    def label_correct(self) -> int | None:
        """Right answers by the label-constrained metric."""
        return None if self.label_match is None else round(self.label_match * self.samples)


def cell(answers: Sequence[Answer], **about: Any) -> BabilongCell:
    """The cell of the answers of one task and length; ``about`` are the fields from ``model`` on.

    Raises:
      ConfigError: no answers, or those of several tasks or lengths.
    """
    places = {(answer.task, answer.length) for answer in answers}
    if len(places) != 1:
        raise ConfigError(f"answers of {sorted(places)}: must be of one task and length")
    task, length = places.pop()
    correct = sum(strict_match(answer.output, answer.target) for answer in answers)
    interval = wilson_interval(correct, len(answers))
    try:
        labels = task_labels(task)
        by_label = [label_match(a.output, a.target, a.question, labels) for a in answers]
        label_share = sum(by_label) / len(answers)
    except ConfigError:  # tasks from qa6 on
        label_share = None
    return BabilongCell(
        task=task,
        length=length,
        samples=len(answers),
        correct=correct,
        exact_match=correct / len(answers),
        exact_match_low=interval.low,
        exact_match_high=interval.high,
        label_match=label_share,
        **about,
    )


def write_cells(path: str | os.PathLike[str], cells: Iterable[BabilongCell]) -> None:
    """``{"schema": ..., "schema_version": 1, "cells": [...]}``, whole or not at all."""
    content = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "cells": [dataclasses.asdict(one) for one in cells],
    }
    atomic_write(Path(path), (json.dumps(content, indent=1) + "\n").encode())


def cells_of(path: str | os.PathLike[str], **about: Any) -> list[BabilongCell]:
    """Cells in a file whose fields are ``about``; none where there is no file.

    Raises:
      ConfigError: another kind or version of file.
    """
    cells = read_cells(path) if Path(path).exists() else []
    return [one for one in cells if all(getattr(one, name) == v for name, v in about.items())]


def with_cell(cells: Iterable[BabilongCell], new: BabilongCell) -> list[BabilongCell]:
    """``cells`` and ``new``, which takes the place of one of its length; the shortest first."""
    tokens = tokens_of_length(new.length)
    others = (one for one in cells if tokens_of_length(one.length) != tokens)
    return sorted([*others, new], key=lambda one: tokens_of_length(one.length))


def read_cells(path: str | os.PathLike[str]) -> list[BabilongCell]:
    """What ``write_cells`` wrote.

    Raises:
      ConfigError: no such file, or another kind or version of file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if (content["schema"], content["schema_version"]) != (SCHEMA, SCHEMA_VERSION):
            raise ConfigError(
                f"{path}: is of schema {content['schema']!r} version "
                f"{content['schema_version']!r}, must be {SCHEMA!r} version {SCHEMA_VERSION}"
            )
        return [BabilongCell(**one) for one in content["cells"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: must be a file of BABILong cells ({error})") from error
