"""Token documents, and contexts of consecutive segments cut from them.

A document stands as ``[end of text, its tokens]``, so that its first token is predicted, too. A
context of ``s`` segments of ``t`` tokens reads ``s t`` of these and predicts each one's successor;
the next context goes on behind it. So every token of a document is predicted once and nothing else
is. What a document's last context lacks is padding. With ``repeats`` a context has as many tokens,
of the same place, but says the first half of them twice, piece by piece.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer
from armt_jax.tasks.language_modelling.repeats import said_twice


class Context(NamedTuple):
    """One context; a batch has a leading axis ``b`` on every array.

    Attributes:
      context: int32 ``[s, t]``, what is read; 0 at padding.
      context_mask: bool ``[s, t]``, False at padding, which is at the end.
      targets: int32 ``[s, t]``, the token behind each; 0 at padding.
    """

    context: np.ndarray
    context_mask: np.ndarray
    targets: np.ndarray


class TokenDocuments(NamedTuple):
    """Documents one after the other, each behind an end-of-text token.

    Attributes:
      tokens: ``[n]``, uint16 or uint32.
      starts: int64 ``[documents + 1]``: document ``i`` is ``tokens[starts[i]:starts[i + 1]]``.
    """

    tokens: np.ndarray
    starts: np.ndarray


def tokenise_documents(texts: Sequence[str], tokenizer: BabilongTokenizer) -> TokenDocuments:
    """The ids of ``texts``, whole: joined, they decode to the texts."""
    ids = [np.array([tokenizer.end_id, *one], tokenizer.dtype) for one in tokenizer.whole(texts)]
    starts = np.cumsum([0, *(one.size for one in ids)], dtype=np.int64)
    return TokenDocuments(np.concatenate(ids), starts)


@dataclasses.dataclass(frozen=True, eq=False)
class Contexts:
    """The contexts of documents, in their order: ``contexts[i]`` is a ``Context``.

    Attributes:
      documents: what is cut.
      num_segments, segment_size: ``s`` and ``t``.
      repeats: the longest piece that stands twice in a row; 0: the text as it is.
    """

    documents: TokenDocuments
    num_segments: int
    segment_size: int
    repeats: int = 0

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise ConfigError("documents: have no token to predict")

    @functools.cached_property
    def _first(self) -> np.ndarray:
        """Number of each document's first context, ``[documents + 1]``."""
        predicted = np.diff(self.documents.starts) - 1
        return np.cumsum([0, *(-(-predicted // self.tokens))], dtype=np.int64)

    @property
    def tokens(self) -> int:
        """Tokens of a context without padding."""
        return self.num_segments * self.segment_size

    def __len__(self) -> int:
        return int(self._first[-1])

    def document(self, index: int) -> int:
        """The document that context ``index`` is cut from."""
        return int(np.searchsorted(self._first, index, side="right")) - 1

    def predicted(self, index: int) -> int:
        """Tokens of context ``index`` that are predicted: all but padding."""
        document = self.document(index)
        start, stop = self.documents.starts[document : document + 2]
        behind = stop - 1 - start - (index - self._first[document]) * self.tokens
        return int(min(behind, self.tokens))

    def __getitem__(self, index: int) -> Context:
        if not 0 <= index < len(self):
            raise IndexError(index)
        document = self.document(index)
        start, stop = self.documents.starts[document : document + 2]
        start = start + (index - self._first[document]) * self.tokens
        # The last token of a document is predicted and never read.
        text = self.documents.tokens[start : min(start + self.tokens + 1, stop)]
        if self.repeats:
            text = said_twice(text, self.repeats, np.random.default_rng(index))
        shape = (self.num_segments, self.segment_size)

        def fill(part: np.ndarray) -> np.ndarray:
            whole = np.zeros(self.tokens, np.int32)
            whole[: part.size] = part
            return whole.reshape(shape)

        mask = np.arange(self.tokens).reshape(shape) < text.size - 1
        return Context(fill(text[:-1]), mask, fill(text[1:]))

    def batch(self, indices: Sequence[int] | range) -> Context:
        """Several contexts, stacked."""
        made = [self[index] for index in indices]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *made)
