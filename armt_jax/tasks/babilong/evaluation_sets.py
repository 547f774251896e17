"""The sets that published tables were measured on: which questions, at which length.

Rebuilt from published predictions (every row of qa1 to qa5 up to 32k, see the tests): test
questions in file order, without those whose facts and question are more than
``(length - 300) // 8`` lines, where 4k are 4,000. Of what is left the last question is missing, but
not in qa1 and not in qa2 at 1k; nobody says why. From 64k on a set has 100 questions, whose ids the
benchmark publishes (``test_100_idxs.json``). Ids that the list of 1k does not reach (862 questions
of qa3, 997 of qa5) were replaced by others, nobody says with which: 14 of qa3 and one of qa5 are
not those of published tables.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import overload

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.babi import Question
from armt_jax.tasks.babilong.noise import TokenisedBooks
from armt_jax.tasks.babilong.sample import (
    WHOLE_CONTEXT,
    BabilongSample,
    build_sample,
    sample_rng,
    tokens_of_length,
)

# From here on published sets have 100 questions.
LONG_TOKENS = 64_000
_WHOLE_FILE = 1_000


def official_ids(
    task: str,
    length: str,
    questions: Sequence[Question],
    hundred_ids: Mapping[str, Sequence[int]] | None = None,
) -> list[int]:
    """Which of a test file's questions the published set of this length asks, in its order.

    Args:
      task: ``qa1`` to ``qa20`` (checked against published rows: ``qa1`` to ``qa5``).
      length: such as ``0k``, ``4k``, ``1M``.
      questions: the whole test file.
      hundred_ids: ``load_hundred_ids``; needed from 64k on.

    Raises:
      ConfigError: a file that is not whole; no ids for a long set.
    """
    tokens = tokens_of_length(length)
    if len(questions) != _WHOLE_FILE:
        raise ConfigError(f"questions of {task} = {len(questions)}: must be all {_WHOLE_FILE}")
    if tokens >= LONG_TOKENS:
        if hundred_ids is None or task not in hundred_ids:
            raise ConfigError(
                f"length = {length!r}: from 64k on a set has 100 questions of {task}, whose ids "
                "BABILong's test_100_idxs.json must give (folder babilong of the data)"
            )
        return list(hundred_ids[task])
    ids = list(range(len(questions)))
    if tokens:
        ids = [i for i in ids if _lines(questions[i]) <= (tokens - 300) // 8]
    complete = task == "qa1" or (task == "qa2" and tokens == 1_000)
    return ids if complete else ids[:-1]


def load_hundred_ids(data_dir: str | os.PathLike[str]) -> dict[str, list[int]]:
    """Task -> ids of its 100-question sets, of ``babilong/test_100_idxs.json`` in the data folder.

    Raises:
      ConfigError: no such file, or another content.
    """
    path = Path(data_dir) / "babilong" / "test_100_idxs.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(task): [int(i) for i in ids] for task, ids in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: must be BABILong's file of task -> list of ids ({error})"
        ) from error


class EvaluationSet(Sequence[BabilongSample]):
    """Samples of one task at one length, each made when it is asked for.

    Sample ``i`` depends on its question, the books, the tokenizer, the length, the depth and the
    seed, and not on which others are in the set.

    Attributes:
      ids: the position in the test file of every sample.
      questions: of every sample.
    """

    def __init__(
        self,
        books: TokenisedBooks,
        questions: Sequence[Question],
        ids: Sequence[int],
        num_tokens: int,
        seed: int = 0,
        depth: tuple[float, float] = WHOLE_CONTEXT,
    ) -> None:
        """``questions[id]`` for every id of ``ids``; ``num_tokens`` as in ``build_sample``.

        Raises:
          ConfigError: no ids, or an id that is no question's.
        """
        if not ids:
            raise ConfigError("ids = []: must name at least one question")
        for index in ids:
            if not 0 <= index < len(questions):
                raise ConfigError(f"id = {index}: must be in [0, {len(questions)})")
        self.ids = list(ids)
        self.books, self.num_tokens, self.seed, self.depth = books, num_tokens, seed, depth
        self.questions = [questions[index] for index in ids]

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> BabilongSample: ...

    @overload
    def __getitem__(self, index: slice) -> list[BabilongSample]: ...

    def __getitem__(self, index: int | slice) -> BabilongSample | list[BabilongSample]:
        """Sample ``index``; a slice gives a list."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        question = self.questions[index]
        stream = _stream(question.task, self.num_tokens, self.seed)
        rng = sample_rng(stream, self.ids[index])
        return build_sample(self.books, question, self.num_tokens, rng, self.depth)


def _stream(task: str, num_tokens: int, seed: int) -> int:
    text = f"babilong-test {task} {num_tokens} {seed}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _lines(question: Question) -> int:
    """Lines of the story that a sample shows: its facts and the question."""
    return len(question.facts) + 1
