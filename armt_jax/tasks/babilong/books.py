"""Books that noise is taken from: a folder of text files, or a built-in substitute."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Protocol

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong import prose


class Corpus(Protocol):
    """Some books, by number."""

    def __len__(self) -> int:
        """Number of books."""
        ...

    def text(self, index: int) -> str:
        """The whole text of book ``index``."""
        ...

    def fingerprint(self, index: int) -> str:
        """Hash of what ``text(index)`` is: part of the name of what is cached."""
        ...


class BookFolder:
    """The ``*.txt`` files of a folder, one book each, sorted by name: PG-19's layout."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Lists the folder; files are read when they are asked for.

        Raises:
          ConfigError: no such folder, or none with a text file.
        """
        self.folder = Path(folder)
        self._paths = sorted(self.folder.glob("*.txt"))
        if not self._paths:
            raise ConfigError(
                f"{folder}: must be a folder of books as .txt files (PG-19, or texts of your own)"
            )

    def __len__(self) -> int:
        return len(self._paths)

    def text(self, index: int) -> str:
        """The file as UTF-8.

        Raises:
          ConfigError: it cannot be read, or is not UTF-8.
        """
        try:
            return self._paths[index].read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self._paths[index]}: cannot be read as UTF-8 text ({error})"
            ) from error

    def fingerprint(self, index: int) -> str:
        """Hash of the file's content."""
        return hashlib.blake2b(self.text(index).encode(), digest_size=8).hexdigest()


class GeneratedBooks:
    """Prose made up by ``prose.book``: for machines without books, clearly second best.

    It has a few thousand words and simple sentences, so a model trained on it has seen neither the
    vocabulary nor the variety of real books. ``train`` and ``test`` have other words and patterns.
    """

    def __init__(self, split: str) -> None:
        """``split``: ``train`` (200 books) or ``test`` (50)."""
        self.split = split
        if split not in prose.NUM_BOOKS:
            raise ConfigError(f"split = {split!r}: must be one of {', '.join(prose.NUM_BOOKS)}")

    def __len__(self) -> int:
        return prose.NUM_BOOKS[self.split]

    def text(self, index: int) -> str:
        """Book ``index``, the same on every machine."""
        return prose.book(self.split, index)

    def fingerprint(self, index: int) -> str:
        """Name of the generator's version, the split and the book."""
        return f"generated-{prose.VERSION}-{self.split}-{index}"


def load_books(split: str, data_dir: str | os.PathLike[str] | None = None) -> Corpus:
    """``books/<split>`` of the data folder; without one, ``GeneratedBooks``.

    Args:
      split: ``train`` or ``test``.
      data_dir: None for what ``ARMT_DATA_DIR`` names, if it is set.

    Raises:
      ConfigError: a data folder without books, an unknown split.
    """
    if split not in prose.NUM_BOOKS:
        raise ConfigError(f"split = {split!r}: must be one of {', '.join(prose.NUM_BOOKS)}")
    folder = data_dir or os.environ.get("ARMT_DATA_DIR")
    if not folder:
        return GeneratedBooks(split)
    return BookFolder(Path(folder) / "books" / split)


def check_apart(train: Corpus, test: Corpus) -> None:
    """Raise ``ConfigError`` where a book of one corpus is in the other, word for word."""
    known = {train.fingerprint(index) for index in range(len(train))}
    for index in range(len(test)):
        if test.fingerprint(index) in known:
            raise ConfigError(f"books: book {index} of the test corpus is in the training corpus")
