"""From the settings of an experiment to the tokenizer, the books and the questions of BABILong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from armt_jax.config import BabilongConfig, ConfigError, LanguageModellingConfig
from armt_jax.processes import is_main, together
from armt_jax.tasks.babilong.babi import DATA_VARIABLE
from armt_jax.tasks.babilong.books import Corpus, GeneratedBooks, load_books
from armt_jax.tasks.babilong.noise import TokenisedBooks
from armt_jax.tasks.babilong.tokenizers import (
    BabilongTokenizer,
    gpt2_tokenizer,
    load_tokenizer,
)
from armt_jax.tasks.babilong.vocabulary import small_tokenizer
from armt_jax.tasks.tfds_sets import default_data_dir

TOKENIZER_FILE = "tokenizer.json"


def data_folder(task: BabilongConfig | LanguageModellingConfig) -> Path | None:
    """The folder of bAbI, books and GPT-2's vocabulary: the setting's, else the environment's."""
    folder = task.data_dir or os.environ.get(DATA_VARIABLE)
    return Path(folder) if folder else None


def corpus(task: BabilongConfig, split: str) -> Corpus:
    """The noise of ``split``, ``train`` or ``test``.

    Raises:
      ConfigError: books wanted, and no folder that has them.
    """
    if task.noise == "built_in":
        return GeneratedBooks(split)
    folder = data_folder(task)
    if folder is None:
        raise ConfigError(
            f"task.noise = 'books': needs task.data_dir or {DATA_VARIABLE}, a folder that has "
            "books/train and books/test; without books it must be 'built_in'"
        )
    return load_books(split, folder)


def tokenizer(
    task: BabilongConfig, vocab_size: int, run: Path | None = None, start: str | None = None
) -> BabilongTokenizer:
    """The tokenizer of a model with ``vocab_size`` ids.

    A ``small`` one is made once and kept in the folder ``run`` of a training; what was trained with
    it is evaluated with that file, whatever the books are by then.

    Raises:
      ConfigError: no files of GPT-2's, a damaged file, a vocabulary that the model has no room for.
    """
    if task.tokenizer == "gpt2":
        found = gpt2_of(data_folder(task))
    elif run is not None:
        found = kept_tokenizer(
            run, lambda: small_tokenizer(corpus(task, "train"), vocab_size), start
        )
    else:
        found = small_tokenizer(corpus(task, "train"), vocab_size)
    found.check_model(vocab_size)
    return found


def gpt2_of(folder: Path | None) -> BabilongTokenizer:
    """GPT-2's tokenizer of a data folder.

    Raises:
      ConfigError: no folder, or files that are missing or damaged.
    """
    if folder is None:
        raise ConfigError(
            f"task.tokenizer = 'gpt2': needs task.data_dir or {DATA_VARIABLE}, a folder that "
            "has gpt2-bpe/vocab.json and merges.txt; or 'small', which is trained"
        )
    return gpt2_tokenizer(folder / "gpt2-bpe")


def kept_tokenizer(
    run: Path, make: Callable[[], BabilongTokenizer], start: str | None = None
) -> BabilongTokenizer:
    """The tokenizer in the folder of a run, made by the first of its processes where there is none.

    A run that goes on from the parameters of another (the folder ``start``) has that one's.

    Raises:
      ConfigError: a damaged file, or whatever ``make`` raises.
    """
    with together():
        if is_main() and not (run / TOKENIZER_FILE).is_file():
            earlier = Path(start or run) / TOKENIZER_FILE
            unfinished = run / f".{TOKENIZER_FILE}"
            (load_tokenizer(earlier) if earlier.is_file() else make()).save(unfinished)
            os.replace(unfinished, run / TOKENIZER_FILE)
    return load_tokenizer(run / TOKENIZER_FILE)


def tokenised_books(
    task: BabilongConfig, split: str, tokenizer: BabilongTokenizer
) -> TokenisedBooks:
    """Noise of ``split`` as tokens, kept in the cache folder from one run to the next."""
    cache = default_data_dir() / "babilong"
    return TokenisedBooks(corpus(task, split), tokenizer, cache, say=_say)


def _say(text: str) -> None:
    """A line for whoever waits; a function with a name, since workers are sent the books."""
    if is_main():
        print(text, file=sys.stderr, flush=True)
