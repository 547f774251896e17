"""bAbI tasks v1.2 (Weston et al. 2015, arXiv 1502.05698): files, stories, questions.

A line of a file is ``ID text``, or for a question ``ID text<TAB>answer<TAB>supporting ids``. Ids
count from 1 within a story. BABILong (arXiv 2406.10149) makes one sample of every question: all
earlier facts of its story, earlier questions left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from armt_jax.config import ConfigError

DATA_VARIABLE = "ARMT_DATA_DIR"
TASK_FILES = {
    "qa1": "qa1_single-supporting-fact",
    "qa2": "qa2_two-supporting-facts",
    "qa3": "qa3_three-supporting-facts",
    "qa4": "qa4_two-arg-relations",
    "qa5": "qa5_three-arg-relations",
    "qa6": "qa6_yes-no-questions",
    "qa7": "qa7_counting",
    "qa8": "qa8_lists-sets",
    "qa9": "qa9_simple-negation",
    "qa10": "qa10_indefinite-knowledge",
    "qa11": "qa11_basic-coreference",
    "qa12": "qa12_conjunction",
    "qa13": "qa13_compound-coreference",
    "qa14": "qa14_time-reasoning",
    "qa15": "qa15_basic-deduction",
    "qa16": "qa16_basic-induction",
    "qa17": "qa17_positional-reasoning",
    "qa18": "qa18_size-reasoning",
    "qa19": "qa19_path-finding",
    "qa20": "qa20_agents-motivations",
}
TASKS = tuple(TASK_FILES)
SPLITS = ("train", "test")


class Question(NamedTuple):
    """One question with the facts that stand before it.

    Attributes:
      facts: sentences of the story up to the question, in order, without ids.
      question: as in the file. v1.2 leaves a blank behind the question mark of most tasks, and the
        authors' samples keep it.
      answer: as in the file; a list is joined by commas (qa8, qa19).
      task: ``qa1`` to ``qa20``.
      supporting: positions in ``facts`` (from 0) of the facts that give the answer, in the file's
        order.
    """

    facts: tuple[str, ...]
    question: str
    answer: str
    task: str
    supporting: tuple[int, ...] = ()


def check_task(task: str, tasks: tuple[str, ...] = TASKS) -> None:
    """Raise ``ConfigError`` where ``task`` is none of ``tasks``."""
    if task not in tasks:
        raise ConfigError(f"task = {task!r}: must be one of {', '.join(tasks)}")


def babi_folder(data_dir: str | os.PathLike[str]) -> Path:
    """The folder of the 10k files under ``data_dir`` (``babi/en-10k``)."""
    return Path(data_dir) / "babi" / "en-10k"


def load_questions(
    folder: str | os.PathLike[str], task: str, split: str, num_questions: int | None = None
) -> list[Question]:
    """The questions of one file in file order; position ``i`` is BABILong's sample id ``i``.

    Args:
      folder: holds the files of bAbI v1.2 ``en-10k``.
      task: ``qa1`` to ``qa20``.
      split: ``train`` (10,000 questions) or ``test`` (1,000).
      num_questions: what the file must hold; None for what v1.2 holds.

    Raises:
      ConfigError: unknown task or split; a file that is missing, malformed or cut short.
    """
    check_task(task)
    if split not in SPLITS:
        raise ConfigError(f"split = {split!r}: must be one of {', '.join(SPLITS)}")
    path = Path(folder) / f"{TASK_FILES[task]}_{split}.txt"
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file; bAbI tasks v1.2 (tasks_1-20_v1-2.tar.gz, folder en-10k) has it"
        )
    questions = read_questions(path, task)
    wanted = num_questions or {"train": 10_000, "test": 1_000}[split]
    if len(questions) != wanted:
        raise ConfigError(f"{path}: {len(questions)} questions, must be {wanted}: cut short?")
    return questions


def read_questions(path: str | os.PathLike[str], task: str) -> list[Question]:
    """All questions of a file in bAbI's format.

    Raises:
      ConfigError: a line that is not of the format, with the file and its number.
    """
    return [question for story in read_stories(path, task) for question in story]


def read_stories(path: str | os.PathLike[str], task: str) -> Iterator[tuple[Question, ...]]:
    """The questions of each story of a file in bAbI's format, story by story.

    Raises:
      ConfigError: a line that is not of the format, with the file and its number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from error
    story = _StoryLines(task)
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("1 ") and story.last_id:
            yield tuple(story.questions)
            story = _StoryLines(task)
        try:
            story.add(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from error
    if not story.questions:
        raise ConfigError(f"{path}: ends without a question")
    yield tuple(story.questions)


class _StoryLines:
    """The story being read: facts so far, where each id stands, and the questions."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.last_id = 0
        self.facts: list[str] = []
        self.fact_of_id: dict[int, int] = {}
        self.questions: list[Question] = []

    def add(self, line: str) -> None:
        """One line; ``ValueError`` says what is wrong with it."""
        number, blank, text = line.partition(" ")
        if not (number.isascii() and number.isdigit() and blank and text.strip()):
            raise ValueError(f"{line!r} is not 'ID text'")
        if int(number) != self.last_id + 1:
            raise ValueError(f"id {number} follows {self.last_id}; ids count from 1 in a story")
        self.last_id += 1
        if "\t" not in text:
            self.fact_of_id[self.last_id] = len(self.facts)
            self.facts.append(text.strip())
            return
        parts = text.split("\t")
        if len(parts) != 3 or not all(part.strip() for part in parts):
            raise ValueError("a question must be 'text<TAB>answer<TAB>supporting ids'")
        question, answer, ids = parts
        self.questions.append(
            Question(tuple(self.facts), question, answer.strip(), self.task, self._facts(ids))
        )

    def _facts(self, ids: str) -> tuple[int, ...]:
        try:
            return tuple(self.fact_of_id[int(word)] for word in ids.split())
        except (KeyError, ValueError) as error:
            raise ValueError(f"supporting ids {ids!r} must name earlier facts") from error
