"""bAbI and books as TFDS sets, built without TensorFlow.

The text files themselves are read as quickly; a set is for who wants one format for all data, with
sizes, checksums and a version. Its name has a hash of the files it was made from, so changed files
are another set. PG-19 as TFDS publishes it is used where it is prepared (``tfds_books``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds

from armt_jax.config import ConfigError
from armt_jax.tasks import tfds_sets
from armt_jax.tasks.babilong.babi import Question, load_questions
from armt_jax.tasks.babilong.books import BookFolder

_SPLIT = "whole"


@dataclasses.dataclass(kw_only=True)
class BabiSetConfig(tfds.core.BuilderConfig):
    """Config of ``BabiSet``: the questions."""

    questions: Sequence[Question]


class BabiSet(tfds.core.GeneratorBasedBuilder):
    """Questions of bAbI with the facts before them; facts are lines of one text."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First sets."}  # noqa: RUF012 (TFDS's name)

    def _info(self) -> tfds.core.DatasetInfo:
        names = ("facts", "question", "answer", "task")
        features: dict[str, Any] = {name: tfds.features.Text() for name in names}
        features["supporting"] = tfds.features.Tensor(
            shape=(None,), dtype=np.int64, encoding="bytes"
        )
        return tfds_sets.dataset_info(self, "bAbI tasks v1.2 (arXiv 1502.05698).", features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {_SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        assert isinstance(config, BabiSetConfig)
        for index, question in enumerate(config.questions):
            yield (
                index,
                {
                    "facts": "\n".join(question.facts),
                    "question": question.question,
                    "answer": question.answer,
                    "task": question.task,
                    "supporting": np.array(question.supporting, np.int64),
                },
            )


@dataclasses.dataclass(kw_only=True)
class BookSetConfig(tfds.core.BuilderConfig):
    """Config of ``BookSet``: the books."""

    books: BookFolder


class BookSet(tfds.core.GeneratorBasedBuilder):
    """Whole books, under TFDS ``pg19``'s name of their text."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First sets."}  # noqa: RUF012 (TFDS's name)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"book_text": tfds.features.Text()}
        return tfds_sets.dataset_info(
            self, "Books: a folder of text files, as PG-19 has them.", features
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {_SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        assert isinstance(config, BookSetConfig)
        for index in range(len(config.books)):
            yield index, {"book_text": config.books.text(index)}


class Records(Protocol):
    """Records by number: a TFDS data source, or any sequence of dicts."""

    def __len__(self) -> int:
        """How many."""
        ...

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        """Record ``index``."""
        ...


class RecordBooks:
    """The books of records with a ``book_text``, as ``TokenisedBooks`` takes them."""

    def __init__(self, records: Records) -> None:
        """Reads nothing yet.

        Raises:
          ConfigError: there is no record.
        """
        if not len(records):
            raise ConfigError("records = []: must hold at least one book")
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def text(self, index: int) -> str:
        """Book ``index``.

        Raises:
          ConfigError: a record without text, or that is not UTF-8.
        """
        try:
            text = self._records[index]["book_text"]
            return text.decode() if isinstance(text, bytes) else str(text)
        except (KeyError, UnicodeDecodeError) as error:
            raise ConfigError(f"book {index}: must have a book_text in UTF-8 ({error})") from error

    def fingerprint(self, index: int) -> str:
        """Hash of the book's text, that of the same book in a folder."""
        return hashlib.blake2b(self.text(index).encode(), digest_size=8).hexdigest()


def load_babi_set(
    folder: str | os.PathLike[str],
    task: str,
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    num_questions: int | None = None,
) -> list[Question]:
    """What ``load_questions`` gives, from a set that is built on the first use.

    Args:
      folder, task, split, num_questions: as in ``load_questions``.
      data_dir: folder of the sets; None for ``tfds_sets.default_data_dir()``.

    Raises:
      ConfigError: as ``load_questions``; a folder that cannot be written, a damaged set.
    """
    questions = load_questions(folder, task, split, num_questions)
    digest = hashlib.blake2b(repr(questions).encode(), digest_size=8).hexdigest()
    config = BabiSetConfig(name=f"{task}_{split}_{digest}", questions=questions)
    records = tfds_sets.read_set(BabiSet, config, data_dir, _SPLIT, len(questions))
    return [_question(record) for record in records]


def load_book_set(
    folder: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None
) -> RecordBooks:
    """The books of a folder, from a set that is built on the first use.

    Args:
      folder: of ``.txt`` files.
      data_dir: folder of the sets; None for ``tfds_sets.default_data_dir()``.

    Raises:
      ConfigError: no books, more than fit into one set, a folder that cannot be written, a damaged
        set.
    """
    books = BookFolder(folder)
    size = sum(path.stat().st_size for path in Path(folder).glob("*.txt"))
    if size > tfds_sets.MAX_BYTES:
        raise ConfigError(
            f"{folder}: {size:,} bytes of books are too many for one set "
            f"(at most {tfds_sets.MAX_BYTES:,}); BookFolder reads the files as they are"
        )
    prints = "".join(books.fingerprint(index) for index in range(len(books)))
    digest = hashlib.blake2b(prints.encode(), digest_size=8).hexdigest()
    config = BookSetConfig(name=f"books_{len(books)}_{digest}", books=books)
    return RecordBooks(tfds_sets.open_set(BookSet, config, data_dir, _SPLIT, len(books)))


def tfds_books(split: str, data_dir: str | os.PathLike[str] | None = None) -> RecordBooks:
    """TFDS ``pg19``: read where it is prepared as array_record; preparing it needs TensorFlow.

    Args:
      split: ``train``, ``validation`` or ``test``.
      data_dir: of TFDS; None for its own.

    Raises:
      ConfigError: it is not prepared, and cannot be without TensorFlow.
    """
    try:
        return RecordBooks(tfds.data_source("pg19", split=split, data_dir=data_dir))  # pyright: ignore
    except ConfigError:
        raise
    # TFDS, its lazy import of TensorFlow and its downloads have no common class of errors.
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"TFDS pg19, split {split!r}: cannot be had ({tfds_sets.first_line(error)}); it is "
            "prepared with TensorFlow installed: tfds.builder('pg19', file_format='array_record')"
            ".download_and_prepare(); or give a folder of PG-19's text files"
        ) from error


def _question(record: dict[str, Any]) -> Question:
    facts = record["facts"].decode()
    return Question(
        facts=tuple(facts.split("\n")) if facts else (),
        question=record["question"].decode(),
        answer=record["answer"].decode(),
        task=record["task"].decode(),
        supporting=tuple(int(i) for i in record["supporting"]),
    )
