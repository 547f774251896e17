"""Background text: sentences of books, in reading order, from a random place on.

``TokenisedBooks`` cuts the books of a corpus into sentences and tokenises each once. A ``Passage``
is the noise of one sample: which sentences of which books, known from the start, and made into
arrays only where they are read. So 50 million tokens are a list of some hundred entries.

As in BABILong: a random book, from a random character on; the first sentence, which that character
cuts in two, is dropped, and so is the book's last; sentences under 10 tokens are skipped; when the
book ends another begins; the last sentence is cut to the size asked for. Each sentence is tokenised
by itself, with a leading blank.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong import sentences
from armt_jax.tasks.babilong.books import Corpus
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer

MIN_SENTENCE_TOKENS = 10
# Tokens of books kept in memory, 2 bytes each: all of the 46M-token training books of a laptop.
MEMORY_TOKENS = 64_000_000
# Books without any usable sentence that are drawn in succession before we call it a fault.
_MOST_EMPTY = 1_000


class Book(NamedTuple):
    """The usable sentences of one book.

    Attributes:
      tokens: uint16 (uint32 for large vocabularies) ``[n]``, sentence after sentence.
      ends: int64 ``[s + 1]``; sentence ``i`` is ``tokens[ends[i]:ends[i + 1]]``.
      starts: int64 ``[s]``, the character of the text at which each sentence begins.
      num_characters: int64 scalar, length of the text.
    """

    tokens: np.ndarray
    ends: np.ndarray
    starts: np.ndarray
    num_characters: np.ndarray


class Piece(NamedTuple):
    """Part of a passage: ``count`` sentences of ``book`` from ``first`` on, ``tokens`` together."""

    book: int
    first: int
    count: int
    tokens: int


class TokenisedBooks:
    """Books of a corpus as tokens, each tokenised on first use.

    At most ``MEMORY_TOKENS`` tokens are kept in memory (the book in use always is); with a
    ``cache_dir`` every book is also kept as a file, which other processes and runs read. ``say`` is
    called with a line at the first book that is in none: all of them together take minutes.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: BabilongTokenizer,
        cache_dir: str | os.PathLike[str] | None = None,
        memory_tokens: int = MEMORY_TOKENS,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.corpus = corpus
        self.tokenizer = tokenizer
        self._cache_dir = None if cache_dir is None else Path(cache_dir)
        self._memory_tokens = memory_tokens
        self._say = say
        self._books: OrderedDict[int, Book] = OrderedDict()

    def __len__(self) -> int:
        return len(self.corpus)

    def __getstate__(self) -> dict[str, object]:
        # A worker process starts with an empty memory: what it reads it tokenises or loads.
        return {**self.__dict__, "_books": OrderedDict()}

    def book(self, index: int) -> Book:
        """Book ``index``, from memory, from the cache, or tokenised now."""
        if index in self._books:
            self._books.move_to_end(index)
            return self._books[index]
        book = self._load(index)
        self._books[index] = book
        kept = sum(one.tokens.size for one in self._books.values())
        while kept > self._memory_tokens and len(self._books) > 1:
            _, oldest = self._books.popitem(last=False)
            kept -= oldest.tokens.size
        return book

    def _load(self, index: int) -> Book:
        path = self._cached(index)
        if path is not None and path.is_file():
            try:
                with np.load(path, allow_pickle=False) as arrays:  # a zip: checks its sums
                    return Book(**{name: arrays[name] for name in Book._fields})
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):
                pass  # cut short or damaged: made anew, as if it were not there
        if self._say is not None:
            kept = "" if path is None else f", kept in {path.parent} for the next run"
            self._say(f"tokenising {len(self):,} books, each when it is first read{kept}")
            self._say = None
        book = tokenise_book(self.corpus.text(index), self.tokenizer)
        if path is not None:
            write_arrays(path, book._asdict())
        return book

    def _cached(self, index: int) -> Path | None:
        if self._cache_dir is None:
            return None
        settings = (
            self.corpus.fingerprint(index),
            self.tokenizer.fingerprint,
            sentences.VERSION,
            MIN_SENTENCE_TOKENS,
        )
        name = hashlib.blake2b(repr(settings).encode(), digest_size=16).hexdigest()
        return self._cache_dir / "books" / f"{name}.npz"


def tokenise_book(text: str, tokenizer: BabilongTokenizer) -> Book:
    """The sentences of ``text`` that can be noise: all but its last, of 10 tokens or more."""
    spans = sentences.sentence_spans(text)[:-1]
    ids = tokenizer.sentences([text[start:stop] for start, stop in spans])
    kept = [i for i, one in enumerate(ids) if len(one) >= MIN_SENTENCE_TOKENS]
    lengths = np.array([0, *(len(ids[i]) for i in kept)], np.int64)
    tokens = [token for i in kept for token in ids[i]]
    return Book(
        tokens=np.array(tokens, tokenizer.dtype),
        ends=np.cumsum(lengths),
        starts=np.array([spans[i][0] for i in kept], np.int64),
        num_characters=np.array(len(text), np.int64),
    )


class Passage:
    """So many noise tokens in a row.

    Attributes:
      num_tokens, num_sentences: of the passage; the last sentence may be cut.
    """

    def __init__(self, books: TokenisedBooks, pieces: list[Piece], num_tokens: int) -> None:
        """``pieces`` hold ``num_tokens`` tokens or more; only the last sentence is too long."""
        self._books = books
        self._pieces = pieces
        self.num_tokens = num_tokens
        self.num_sentences = sum(piece.count for piece in pieces)
        self._sentences_before = np.cumsum([0, *(piece.count for piece in pieces)])
        self._tokens_before = np.cumsum([0, *(piece.tokens for piece in pieces)], dtype=np.int64)

    def gap(self, index: int) -> int:
        """Noise tokens before gap ``index``: 0 is in front, ``num_sentences`` is the end."""
        if index == self.num_sentences:
            return self.num_tokens
        number = int(np.searchsorted(self._sentences_before, index, side="right")) - 1
        piece = self._pieces[number]
        within = piece.first + index - int(self._sentences_before[number])
        ends = self._books.book(piece.book).ends
        return int(self._tokens_before[number] + ends[within] - ends[piece.first])

    def sentence_ends(self) -> np.ndarray:
        """int64 ``[num_sentences]``: tokens of the passage up to the end of each sentence."""
        parts = [np.zeros(0, np.int64)]
        for before, piece in zip(self._tokens_before, self._pieces, strict=False):
            ends = self._books.book(piece.book).ends
            last = ends[piece.first + 1 : piece.first + piece.count + 1]
            parts.append(before + last - ends[piece.first])
        return np.minimum(np.concatenate(parts), self.num_tokens)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens ``start`` to ``stop`` of the passage, of the books' dtype."""
        stop = min(stop, self.num_tokens)
        parts = [np.zeros(0, self._books.tokenizer.dtype)]
        number = int(np.searchsorted(self._tokens_before, start, side="right")) - 1
        while start < stop:
            piece = self._pieces[number]
            book = self._books.book(piece.book)
            offset = int(book.ends[piece.first]) - int(self._tokens_before[number])
            until = min(stop, int(self._tokens_before[number + 1]))
            parts.append(book.tokens[offset + start : offset + until])
            start, number = until, number + 1
        return np.concatenate(parts)


def draw_passage(books: TokenisedBooks, num_tokens: int, rng: np.random.Generator) -> Passage:
    """A random passage of exactly ``num_tokens`` tokens.

    Raises:
      ConfigError: the books have no sentence of 10 tokens or more.
    """
    pieces: list[Piece] = []
    left, empty = num_tokens, 0
    while left > 0:
        number = int(rng.integers(len(books)))
        book = books.book(number)
        character = int(rng.integers(max(1, int(book.num_characters))))
        first = int(np.searchsorted(book.starts, character, side="right"))
        empty = empty + 1 if first == book.starts.size else 0
        if empty == _MOST_EMPTY:
            raise ConfigError(
                f"books: no sentence of {MIN_SENTENCE_TOKENS} tokens or more in {len(books)} books"
            )
        # The sentence that reaches `left` is the last.
        last = int(np.searchsorted(book.ends, book.ends[first] + left, side="left"))
        last = min(last, book.starts.size)
        if last > first:
            tokens = int(book.ends[last] - book.ends[first])
            pieces.append(Piece(number, first, last - first, tokens))
            left -= tokens
    return Passage(books, pieces, num_tokens)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A ``.npz`` file, whole or not at all; another process may be writing the same.

    Raises:
      ConfigError: a folder that cannot be written.
    """
    part = path.with_name(f"{path.stem}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ConfigError(
            f"cache_dir = {str(path.parent)!r}: must be a folder that can be written ({error})"
        ) from error
