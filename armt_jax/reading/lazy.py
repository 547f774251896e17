"""Texts that are made while they are read, whose length nobody knows; and what a text may be."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from armt_jax.config import ConfigError
from armt_jax.reading.documents import PIECE, Document, TokenDocument, next_piece
from armt_jax.reading.forms import TextForm


class LazyText:
    """Blocks of tokens, of text that comes in parts or of ids that do.

    Attributes:
      name: for messages.
      digest: SHA-256 of the tokens given out so far (int32, as they lie in memory).
    """

    num_tokens = None

    def __init__(self, parts: Iterable[Any], form: TextForm, name: str = "stream") -> None:
        """``parts``: strings, or arrays of ids ``[n]``; any lengths."""
        self.name = name
        self._blocks = _blocks(parts, form, name)
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """See the class."""
        return self._hash.hexdigest()

    def skip(self, count: int, digest: str) -> None:
        """Pass over ``count`` tokens, which were read before and had that digest.

        Raises:
          ConfigError: others come, or fewer.
        """
        left = count
        for block in self._blocks:
            taken, rest = block[:left], block[left:]
            self._hash.update(taken.tobytes())
            left -= taken.size
            if left == 0:
                if rest.size:
                    self._blocks = _behind(rest, self._blocks)
                break
        if left or self.digest != digest:
            raise ConfigError(
                f"text {self.name!r}: begins with other tokens than the {count:,} that the memory "
                "has read of it; read it into a new memory"
            )

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self._hash.update(block.tobytes())
            if block.size:
                yield block


def _behind(first: np.ndarray, others: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from others


def _blocks(parts: Iterable[Any], form: TextForm, name: str) -> Iterator[np.ndarray]:
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
            while len(text) > PIECE:
                piece, length = next_piece(text, False, form)
                text = text[length:]
                yield np.array(form.passage(piece), np.int32)
            continue
        ids = np.asarray(part)
        if ids.ndim != 1 or not (ids.size == 0 or np.issubdtype(ids.dtype, np.integer)):
            raise ConfigError(
                f"text {name!r}: a block of {ids.dtype} {ids.shape} must be text or ids [n]"
            )
        yield ids.astype(np.int32)
    while text:
        piece, length = next_piece(text, True, form)
        text = text[length:]
        yield np.array(form.passage(piece), np.int32)


Source = Document | TokenDocument | LazyText


def text_source(stream: Any, form: TextForm) -> Source:
    """Whatever ``Memory.read`` takes as something that gives tokens.

    Raises:
      ConfigError: something else, or a text that cannot be read.
    """
    if isinstance(stream, Document | TokenDocument | LazyText):
        return stream
    if isinstance(stream, str):
        return Document.of_text(stream, form)
    if isinstance(stream, os.PathLike):
        return Document.of_file(stream, form)
    if isinstance(stream, np.ndarray | jax.Array):
        return TokenDocument(np.asarray(stream))
    if isinstance(stream, Iterable):
        return LazyText(stream, form)
    kind = type(stream).__name__
    raise ConfigError(f"stream of type {kind}: must be a Path, a text, ids, or parts of them")
