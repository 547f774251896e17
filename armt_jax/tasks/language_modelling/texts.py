"""Documents of a split: WikiText's articles, a folder of text files, or made-up prose."""

from __future__ import annotations

import os
import re
from pathlib import Path

from armt_jax.config import ConfigError
from armt_jax.config.language_modelling import BUILT_IN
from armt_jax.tasks.babilong.babi import DATA_VARIABLE
from armt_jax.tasks.babilong.books import GeneratedBooks

SPLITS = ("train", "valid", "test")
# `` = Title = `` on a line of its own, as WikiText has it; `` = = Section = = `` begins none.
_TITLE = re.compile(r"^ = (?!= )[^\n]+ = ?$", re.MULTILINE)
_BUILT_IN_BOOKS = {"train": ("train", 0, 20), "valid": ("test", 0, 5), "test": ("test", 5, 10)}


def load_documents(dataset: str, data_dir: str | None, split: str) -> list[str]:
    """The documents of ``split``, in order.

    Args:
      dataset, data_dir: see ``LanguageModellingConfig``.
      split: ``train``, ``valid`` or ``test``.

    Returns:
      Texts, none of them empty. The articles of a file, one after the other, are the whole file.

    Raises:
      ConfigError: an unknown split; no such folder or split in it; a file without text, or that is
        not UTF-8 (named).
    """
    if split not in SPLITS:
        raise ConfigError(f"split = {split!r}: must be one of {', '.join(SPLITS)}")
    if dataset == BUILT_IN:
        name, first, stop = _BUILT_IN_BOOKS[split]
        books = GeneratedBooks(name)
        return [books.text(index) for index in range(first, stop)]
    folder = dataset_folder(dataset, data_dir)
    if not (folder / split).is_dir():
        return articles(_read(_split_file(folder, split)))
    paths = sorted((folder / split).glob("*.txt"))
    if not paths:
        raise ConfigError(f"{folder / split}: has no .txt file")
    return [_read(path) for path in paths]


def _read(path: Path) -> str:
    try:
        # Bytes first: reading as text would change line ends, and so the number of bytes.
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    if not text.strip():
        raise ConfigError(f"{path}: has no text")
    return text


def articles(text: str) -> list[str]:
    """WikiText cut in front of every title; a text without titles is one document.

    What stands before the first title belongs to its article: the pieces are the whole text.
    """
    starts = [match.start() for match in _TITLE.finditer(text)][1:]
    ends = [*starts, len(text)]
    return [text[start:end] for start, end in zip([0, *starts], ends, strict=True)]


def dataset_folder(dataset: str, data_dir: str | None) -> Path:
    """The folder that ``task.dataset`` names: one of the data folder's, or a path.

    Raises:
      ConfigError: there is none.
    """
    root = data_dir or os.environ.get(DATA_VARIABLE)
    candidates = [*([Path(root) / dataset] if root else []), Path(dataset)]
    for folder in candidates:
        if folder.is_dir():
            return folder
    where = " nor ".join(repr(str(folder)) for folder in candidates)
    unset = "" if root else f" ({DATA_VARIABLE} is not set)"
    raise ConfigError(
        f"task.dataset = {dataset!r}: there is no folder {where}{unset}; must be a folder with "
        f"train, valid and test, or {BUILT_IN!r}"
    )


def _split_file(folder: Path, split: str) -> Path:
    found = [folder / f"{split}.txt", *sorted(folder.glob(f"wiki.{split}.*tokens"))]
    found = [path for path in found if path.is_file()]
    if len(found) != 1:
        several = ", ".join(path.name for path in found) or "none"
        raise ConfigError(
            f"{folder}: must have one of {split}.txt, wiki.{split}.tokens or a folder {split} of "
            f".txt files; has {several}"
        )
    return found[0]
