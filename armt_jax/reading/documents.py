"""Texts of any length as tokens, read in parts.

A document is cut into pieces where its ``TextForm`` allows it, by a rule that looks at nothing but
the text from the last cut on. So the pieces, and with them the tokens, are the same whether all of
it is read at once or a part of it later. Going through it once, before anything is read, says how
many tokens there are, and finds what is wrong with it before hours were spent.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from armt_jax.config import ConfigError
from armt_jax.reading.forms import TextForm

PIECE = 32_768  # characters of a piece at most
_MARK = codecs.BOM_UTF8


def next_piece(text: str, is_whole: bool, form: TextForm) -> tuple[str, int]:
    r"""The next piece of a text, and how many characters of it that takes.

    Line ends become ``\n``.

    Args:
      text: what comes next, at most ``PIECE`` characters of it are looked at.
      is_whole: nothing comes behind ``text``.
      form: says where it may be cut; a piece of ``PIECE`` characters without such a place is cut at
        its end.
    """
    is_whole = is_whole and len(text) <= PIECE
    text = text[:PIECE]
    if "\r" not in text:
        length = len(text) if is_whole else form.cut(text) or len(text)
        return text[:length], length
    if text.endswith("\r") and not is_whole:
        text = text[:-1]  # perhaps half of a line end
    kept = [index for index, char in enumerate(text) if text[index : index + 2] != "\r\n"]
    clean = re.sub("\r\n?", "\n", text)
    length = len(clean) if is_whole else form.cut(clean) or len(clean)
    return clean[:length], len(text) if length == len(clean) else kept[length]


class Document:
    """A text that was gone through once.

    Attributes:
      name: for messages.
      digest: SHA-256 of its bytes.
      num_tokens: of the whole.
    """

    def __init__(
        self,
        name: str,
        open_bytes: Callable[[], io.BufferedIOBase],
        form: TextForm,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        """Goes through the text; ``on_bytes`` hears how far that is.

        Raises:
          ConfigError: it is empty, or not UTF-8 (with the offset of the first wrong byte).
        """
        self.name, self._open, self._form = name, open_bytes, form
        with open_bytes() as file:
            self.digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            offset = len(_MARK) if file.read(len(_MARK)) == _MARK else 0
            offsets, sizes = [offset], [0]
            while piece := self._piece(file, offset):
                offset += piece[1]
                offsets.append(offset)
                sizes.append(len(form.passage(piece[0])))
                if on_bytes is not None:
                    on_bytes(offset)
        self._offsets = offsets
        self._before = np.cumsum(sizes, dtype=np.int64)
        self._last: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int32))
        self.num_tokens = int(self._before[-1])
        if self.num_tokens == 0:
            raise ConfigError(f"document {name!r}: is empty, must have text")

    @classmethod
    def of_file(
        cls,
        path: str | os.PathLike[str],
        form: TextForm,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Document:
        """A file of UTF-8 text.

        Raises:
          ConfigError: no such file, or as the class says.
          OSError: it cannot be read.
        """
        path = Path(path)
        if not path.is_file():
            what = "is a folder, must be a text file" if path.is_dir() else "there is no such file"
            raise ConfigError(f"document {str(path)!r}: {what}")
        return cls(path.name, lambda: path.open("rb"), form, on_bytes)

    @classmethod
    def of_text(cls, text: str, form: TextForm, name: str = "text") -> Document:
        """A text in memory.

        Raises:
          ConfigError: as the class says.
        """
        content = encoded(text, f"document {name!r}")
        return cls(name, lambda: io.BytesIO(content), form)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens ``start`` to ``stop``, int32; no more than there are.

        Raises:
          ConfigError: the file has changed since it was gone through.
        """
        stop = min(stop, self.num_tokens)
        parts = [np.zeros(0, np.int32)]
        number = int(np.searchsorted(self._before, start, side="right")) - 1
        while start < stop:
            first, end = int(self._before[number]), int(self._before[number + 1])
            parts.append(self._tokens(number)[start - first : stop - first])
            start, number = end, number + 1
        return np.concatenate(parts)

    def _tokens(self, number: int) -> np.ndarray:
        if self._last[0] != number:
            with self._open() as file:
                piece = self._piece(file, self._offsets[number])
            ids = np.array(self._form.passage(piece[0]) if piece else [], np.int32)
            size = self._offsets[number + 1] - self._offsets[number]
            count = int(self._before[number + 1] - self._before[number])
            if piece is None or (piece[1], ids.size) != (size, count):
                raise ConfigError(f"document {self.name!r}: has changed while it was read")
            self._last = (number, ids)
        return self._last[1]

    def _piece(self, file: io.BufferedIOBase, offset: int) -> tuple[str, int] | None:
        """The piece at a byte, and its bytes; None at the end."""
        file.seek(offset)
        content = file.read(4 * PIECE + 4)
        if not content:
            return None
        is_whole = len(content) < 4 * PIECE + 4
        text = decoded(content, f"document {self.name!r}", offset, is_whole)
        piece, length = next_piece(text, is_whole, self._form)
        return piece, len(text[:length].encode())


class TokenDocument:
    """Tokens in memory, as a ``Document``."""

    def __init__(self, tokens: np.ndarray, name: str = "tokens") -> None:
        """``tokens`` integer ``[n]``.

        Raises:
          ConfigError: none, or not integers of one axis.
        """
        tokens = np.asarray(tokens)
        if tokens.ndim != 1 or tokens.size == 0 or not np.issubdtype(tokens.dtype, np.integer):
            raise ConfigError(
                f"document {name!r}: tokens of {tokens.dtype} {tokens.shape} must be integers [n], "
                "one at least"
            )
        self.name, self._tokens, self.num_tokens = name, tokens.astype(np.int32), tokens.size
        self.digest = hashlib.sha256(self._tokens.tobytes()).hexdigest()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens ``start`` to ``stop``."""
        return self._tokens[start:stop]


def decoded(content: bytes, where: str, offset: int = 0, is_whole: bool = True) -> str:
    """UTF-8 as text; the last bytes may be the beginning of a character, unless ``is_whole``.

    Raises:
      ConfigError: the first byte that is no UTF-8, counted from ``offset``.
    """
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(content, is_whole)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{where}: must be UTF-8 text; byte {offset + error.start} "
            f"(0x{content[error.start]:02x}) is none"
        ) from error


def encoded(text: str, where: str) -> bytes:
    """``text`` as UTF-8.

    Raises:
      ConfigError: it has halves of characters, as wrong bytes of a command line become.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        at = len(text[: error.start].encode(errors="surrogateescape"))
        raise ConfigError(f"{where}: must be UTF-8 text; byte {at} is none") from error
