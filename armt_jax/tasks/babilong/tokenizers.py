"""Tokenizers of BABILong: GPT-2's from files, or a small one trained on the task.

BABILong tokenises sentence by sentence: a fact or a noise sentence with a leading blank, a question
and an answer without one. `` bathroom`` is one token of GPT-2, ``bathroom`` two; whoever tokenises
the whole text at once gets another text than the one public checkpoints were trained on.

GPT-2 marks the end of a question with the word ``GEN`` (one token) and the end of an answer with
``<|endoftext|>``, as the authors do. A small tokenizer has special tokens for both.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from armt_jax.config import ConfigError

END = "<|endoftext|>"
GPT2_GEN = "GEN"
SMALL_GEN = "<|gen|>"
# Remembered facts; qa1 to qa5 have some 2,000 between them.
_MOST_FACTS = 100_000


class BabilongTokenizer:
    """Ids of facts, noise, questions and answers.

    Attributes:
      backend: of the package ``tokenizers``.
      vocab_size: ids are below it.
      gen_id, end_id: what stands between question and answer, and behind the answer.
      pad_id: fills masked places; it is ``end_id``, which no mask needs to tell apart.
      dtype: uint16 where the vocabulary allows it, else uint32.
      fingerprint: hash of everything that decides about ids: part of the name of what is cached.
    """

    def __init__(self, backend: tokenizers.Tokenizer, gen_token: str, end_token: str) -> None:
        """``backend`` must give each of the two tokens one id.

        Raises:
          ConfigError: it has no such token.
        """
        self.backend = backend
        self._facts: dict[str, list[int]] = {}
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        self.gen_id = self._special(gen_token)
        self.end_id = self._special(end_token)
        self.pad_id = self.end_id
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)
        described = f"{backend.to_str()}\n{self.gen_id} {self.end_id}"
        self.fingerprint = hashlib.blake2b(described.encode(), digest_size=8).hexdigest()

    def sentences(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of facts or noise sentences, each tokenised by itself with a leading blank."""
        encoded = self.backend.encode_batch_fast(
            [f" {text}" for text in texts], add_special_tokens=False
        )
        return [one.ids for one in encoded]

    def facts(self, texts: Sequence[str]) -> list[list[int]]:
        """``sentences``, remembered: the same few thousand facts come again and again."""
        if len(self._facts) > _MOST_FACTS:
            self._facts.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._facts]
        self._facts.update(zip(new, self.sentences(new), strict=True))
        return [self._facts[text] for text in texts]

    def bare(self, text: str) -> list[int]:
        """Ids of a question or an answer: no leading blank."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def whole(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts as they are: no leading blank, nothing cut."""
        encoded = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [one.ids for one in encoded]

    def token_bytes(self) -> np.ndarray:
        """Bytes of UTF-8 that each id stands for, int64 ``[vocab_size]``.

        The bytes of ``whole(text)`` add up to those of the text: in a byte-level vocabulary every
        character of an ordinary token's name is one byte. A special token's name is its text.
        """
        sizes = np.zeros(self.vocab_size, np.int64)
        special = self.backend.get_added_tokens_decoder()
        for name, index in self.backend.get_vocab(with_added_tokens=True).items():
            sizes[index] = len(name.encode()) if index in special else len(name)
        return sizes

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special tokens are left out."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def decode_answer(self, ids: Iterable[int]) -> str:
        """The text before the first ``end_id``: what strict exact match compares."""
        answer: list[int] = []
        for i in ids:
            if int(i) == self.end_id:
                break
            answer.append(int(i))
        return self.decode(answer)

    def check_model(self, vocab_size: int) -> None:
        """Raise ``ConfigError`` where a model of ``vocab_size`` has no embedding for some id."""
        if self.vocab_size > vocab_size:
            raise ConfigError(
                f"model.vocab_size = {vocab_size}: must be at least {self.vocab_size}, the "
                "tokenizer's; another tokenizer, or a model made for this one"
            )

    def check_same(self, path: str | os.PathLike[str], setting: str) -> None:
        """Refuse a model whose tokenizer, the file ``path``, gives tokens other ids than this one.

        Raises:
          ConfigError: it does (``setting`` names the model), or is no tokenizer's file.
        """
        try:
            theirs = tokenizers.Tokenizer.from_file(str(path)).get_vocab()
        except Exception as error:  # the package raises bare Exception
            raise ConfigError(f"{path}: is not a tokenizer's JSON ({error})") from error
        ours = self.backend.get_vocab()
        differing = sorted(token for token, id_ in ours.items() if theirs.get(token) != id_)
        if differing:
            raise ConfigError(
                f"{setting}: has another tokenizer; {len(differing):,} of {len(ours):,} tokens "
                f"have other ids or none there, such as {differing[0]!r}"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file ``load_tokenizer`` reads (the JSON of ``tokenizers``)."""
        self.backend.save(str(path))

    def _special(self, token: str) -> int:
        token_id = self.backend.token_to_id(token)
        if token_id is None:
            raise ConfigError(f"tokenizer: has no token {token!r}; is it a file of armt_jax?")
        return token_id


def gpt2_tokenizer(folder: str | os.PathLike[str]) -> BabilongTokenizer:
    """GPT-2's byte-level BPE of ``vocab.json`` and ``merges.txt`` in ``folder``.

    Raises:
      ConfigError: a file that is missing, damaged, or no vocabulary of GPT-2's kind.
    """
    vocab, merges = (Path(folder) / name for name in ("vocab.json", "merges.txt"))
    for path in (vocab, merges):
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; GPT-2's release (gpt2-bpe) has it")
    try:
        model = models.BPE.from_file(str(vocab), str(merges))
    except Exception as error:  # the package raises bare Exception
        raise ConfigError(f"{folder}: is not a GPT-2 vocabulary ({error})") from error
    backend = _byte_level(model)
    backend.add_special_tokens([END])
    return BabilongTokenizer(backend, GPT2_GEN, END)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> BabilongTokenizer:
    """A byte-level BPE of at most ``vocab_size`` ids, for models trained from scratch.

    Every byte has an id, so there is no text without ids.

    Args:
      texts: what to learn from, with leading blanks where the task has them
        (``vocabulary.training_texts`` makes some).
      vocab_size: at least 258, the bytes and two special tokens.

    Raises:
      ConfigError: a smaller vocabulary.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(alphabet) + 2:
        raise ConfigError(f"vocab_size = {vocab_size}: must be at least {len(alphabet) + 2}")
    backend = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, SMALL_GEN],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return BabilongTokenizer(backend, SMALL_GEN, END)


def load_tokenizer(path: str | os.PathLike[str]) -> BabilongTokenizer:
    """A tokenizer that ``save`` wrote, or the folder of GPT-2's files.

    Raises:
      ConfigError: no such file, or one of another kind.
    """
    if Path(path).is_dir():
        return gpt2_tokenizer(path)
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such file; must be a tokenizer that armt_jax saved")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exception
        raise ConfigError(f"{path}: is not a tokenizer's JSON ({error})") from error
    small = backend.token_to_id(SMALL_GEN) is not None
    return BabilongTokenizer(backend, SMALL_GEN if small else GPT2_GEN, END)


def _byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    backend.decoder = decoders.ByteLevel()  # pyright: ignore
    return backend
