"""The two metrics of BABILong: strict equality, and a match by the labels of a task.

Fine-tuned models answer with the label alone, and are right where the text is equal (the paper's
tables). General language models answer in sentences; for them the benchmark looks which labels of
the task the first sentence names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from armt_jax.config import ConfigError

_ROOMS = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
TASK_LABELS = {
    "qa1": _ROOMS,
    "qa2": _ROOMS,
    "qa3": _ROOMS,
    "qa4": _ROOMS,
    "qa5": ("bill", "fred", "jeff", "mary", "apple", "football", "milk"),
}


class BabilongScores(NamedTuple):
    """Right answers of both metrics, and questions asked."""

    strict: int
    labelled: int
    total: int


def strict_match(output: str, target: str) -> bool:
    """Whether the generated text is the answer, letter by letter."""
    return output == target


def label_match(output: str, target: str, question: str, labels: Iterable[str]) -> bool:
    """Whether the target is the only label that the answer names.

    Lower case, the text before the first full stop; labels are found as substrings; those that the
    question names do not count.

    Args:
      output: what the model said.
      target: the right answer.
      question: as it was asked.
      labels: all answers of the task, ``TASK_LABELS[task]`` for qa1 to qa5.
    """
    said = output.lower().split(".")[0]
    asked, target = question.lower(), target.lower()
    named = {label.lower() for label in labels if label.lower() in said}
    return named - {label for label in named if label in asked} == {target}


def task_labels(task: str) -> tuple[str, ...]:
    """The labels of qa1 to qa5, in lower case.

    Raises:
      ConfigError: another task, whose labels are the answers of its files.
    """
    if task not in TASK_LABELS:
        raise ConfigError(f"task = {task!r}: must be one of {', '.join(TASK_LABELS)}")
    return TASK_LABELS[task]


def score_answers(
    task: str, answers: Iterable[tuple[str, str, str]], labels: Iterable[str] | None = None
) -> BabilongScores:
    """Both metrics of ``(output, target, question)`` triples.

    Args:
      task: ``qa1`` to ``qa5``, or any with ``labels``.
      answers: what was generated, what is right, what was asked.
      labels: None for the task's own.
    """
    known = tuple(task_labels(task) if labels is None else labels)
    strict = labelled = total = 0
    for output, target, question in answers:
        strict += strict_match(output, target)
        labelled += label_match(output, target, question, known)
        total += 1
    return BabilongScores(strict, labelled, total)
