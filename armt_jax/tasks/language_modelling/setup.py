"""From the settings of an experiment to its tokenizer and its token documents."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from armt_jax.config import LanguageModellingConfig
from armt_jax.tasks.babilong.noise import write_arrays
from armt_jax.tasks.babilong.setup import data_folder, gpt2_of, kept_tokenizer
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer, train_tokenizer
from armt_jax.tasks.language_modelling.contexts import TokenDocuments, tokenise_documents
from armt_jax.tasks.language_modelling.texts import load_documents
from armt_jax.tasks.tfds_sets import default_data_dir


def documents(task: LanguageModellingConfig, split: str) -> list[str]:
    """The texts of ``split``; errors as in ``load_documents``."""
    return load_documents(task.dataset, task.data_dir, split)


def tokenizer(
    task: LanguageModellingConfig, vocab_size: int, run: str | Path, start: str | None = None
) -> BabilongTokenizer:
    """The tokenizer of a model with ``vocab_size`` ids.

    A ``small`` one is trained on the training split once and kept in the folder ``run``; a run that
    goes on from the parameters of another, in the folder ``start``, takes that one's.

    Raises:
      ConfigError: no files of GPT-2's, a damaged file, a vocabulary that the model has no room for.
    """
    if task.tokenizer == "gpt2":
        found = gpt2_of(data_folder(task))
    else:
        found = kept_tokenizer(
            Path(run), lambda: train_tokenizer(documents(task, "train"), vocab_size), start
        )
    found.check_model(vocab_size)
    return found


def token_documents(
    task: LanguageModellingConfig, split: str, tokenizer: BabilongTokenizer
) -> TokenDocuments:
    """The documents of ``split`` as tokens, kept in the cache folder from one run to the next."""
    texts = documents(task, split)
    name = hashlib.blake2b(tokenizer.fingerprint.encode(), digest_size=16)
    for text in texts:
        name.update(hashlib.blake2b(text.encode()).digest())  # so that borders count, too
    path = default_data_dir() / "language_modelling" / f"{name.hexdigest()}.npz"
    try:
        # Opened here: of a file that is no zip NumPy leaves it to chance when it is closed.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return TokenDocuments(**{field: arrays[field] for field in TokenDocuments._fields})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        pass  # not there, cut short or damaged: made anew
    made = tokenise_documents(texts, tokenizer)
    write_arrays(path, made._asdict())
    return made
