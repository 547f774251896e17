"""Where questions come from: bAbI's files, or the simulator."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.babi import (
    DATA_VARIABLE,
    Question,
    babi_folder,
    check_task,
    load_questions,
)
from armt_jax.tasks.babilong.events import SIMULATED_TASKS
from armt_jax.tasks.babilong.simulator import Simulator

# Simulated questions of a test set, as many as a test file has; its seed is no seed of a run.
TEST_QUESTIONS = 1_000
_TEST_SEED = 2**63


class QuestionSource(Protocol):
    """Questions by number; ``Simulator`` is one."""

    @property
    def num_questions(self) -> int:
        """Numbers are below it."""
        ...

    def question(self, index: int) -> Question:
        """Question ``index``: always the same."""
        ...


class QuestionList:
    """Questions of a file as a source.

    Raises:
      ConfigError: there is none.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        if not questions:
            raise ConfigError("questions = []: must hold at least one")
        self._questions = list(questions)

    @property
    def num_questions(self) -> int:
        """Number of questions."""
        return len(self._questions)

    def question(self, index: int) -> Question:
        """Question ``index``."""
        return self._questions[index]


def training_questions(
    task: str, seed: int, data_dir: str | os.PathLike[str] | None = None, simulated: bool = True
) -> QuestionSource:
    """What to train on: the simulator, or with ``simulated=False`` the training file.

    Args:
      task: ``qa1`` to ``qa20``; the simulator has ``qa1`` to ``qa5``.
      seed: of the simulator.
      data_dir: of the file; None for what ``ARMT_DATA_DIR`` names.
      simulated: which of the two.

    Raises:
      ConfigError: no simulator for the task; no data folder, or no such file in it.
    """
    check_task(task)
    if simulated:
        return Simulator(task, seed)
    folder = data_dir or os.environ.get(DATA_VARIABLE)
    if not folder:
        raise ConfigError(
            f"{DATA_VARIABLE}: not set; must name a folder with babi/en-10k to train on its files"
        )
    return QuestionList(load_questions(babi_folder(folder), task, "train"))


def evaluation_questions(
    task: str, data_dir: str | os.PathLike[str] | None = None
) -> list[Question]:
    """The 1,000 questions of the test file; without a data folder, simulated ones.

    Args:
      task: ``qa1`` to ``qa20``; without data ``qa1`` to ``qa5``.
      data_dir: None for what ``ARMT_DATA_DIR`` names, if it is set.

    Raises:
      ConfigError: neither a file nor a simulator.
    """
    check_task(task)
    folder = data_dir or os.environ.get(DATA_VARIABLE)
    if folder:
        return load_questions(babi_folder(folder), task, "test")
    if task not in SIMULATED_TASKS:
        raise ConfigError(
            f"{DATA_VARIABLE}: not set; {task} has no simulator, so it must name a folder with "
            "bAbI's files (babi/en-10k)"
        )
    simulator = Simulator(task, _TEST_SEED)
    return [simulator.question(index) for index in range(TEST_QUESTIONS)]
