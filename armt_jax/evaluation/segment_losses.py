"""Loss against the position of a segment in its context, with and without a memory (Fig. 6).

Sums are kept per context, and which document it is of: intervals resample documents, whose
contexts are alike.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax.config import ConfigError
from armt_jax.evaluation.evaluate import fill_up
from armt_jax.evaluation.intervals import CONFIDENCE, Interval
from armt_jax.evaluation.next_tokens import token_scores
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.tasks.language_modelling.contexts import Context, Contexts

RESAMPLES = 2_000


class SegmentSums(NamedTuple):
    """Sums over the tokens of each segment, ``[contexts, s]``, and of which document a context is.

    Attributes:
      nats: float64, cross-entropies.
      tokens: int64, predicted tokens.
      bytes: int64, of the raw UTF-8 text that they stand for.
      document: int64 ``[contexts]``.
    """

    nats: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    document: np.ndarray

    def part(self, first: int, last: int) -> SegmentSums:
        """Segments ``first`` to ``last``, counted from 1, both included."""
        cut = slice(first - 1, last)
        return self._replace(
            nats=self.nats[:, cut], tokens=self.tokens[:, cut], bytes=self.bytes[:, cut]
        )


class LossReader:
    """Reads contexts of a split with one model; compiled once per way of reading.

    The memory is ``kept`` through a context, ``reset`` in front of every segment, or goes back a
    number of segments (``horizon``).
    """

    def __init__(
        self,
        model: SegmentModel,
        params: Params,
        contexts: Contexts,
        token_bytes: np.ndarray,
        batch_size: int,
        samples: int = 0,
    ) -> None:
        """``samples`` contexts (0: all), spread over the split, ``batch_size`` at a time.

        Raises:
          ConfigError: none of them is long enough to have text in every segment.
        """
        self._model, self._params = model, params
        self._contexts, self._token_bytes = contexts, token_bytes
        self._batch_size = batch_size
        count = len(contexts)
        wanted = min(samples, count) or count
        self._indices = np.linspace(0, count - 1, wanted).round().astype(int)
        longest = max(contexts.predicted(int(index)) for index in self._indices)
        if longest <= (contexts.num_segments - 1) * contexts.segment_size:
            raise ConfigError(
                f"evaluation.samples = {wanted:,} of {count:,} contexts: the longest has "
                f"{longest:,} tokens, which end before segment {contexts.num_segments} of "
                f"{contexts.segment_size}; take more contexts, or fewer evaluation.num_segments"
            )

    def kept(self) -> SegmentSums:
        """The memory goes on from segment to segment."""
        return self._read(functools.partial(_losses, self._model, False))

    def reset(self) -> SegmentSums:
        """Every segment is read from an empty memory: the control."""
        return self._read(functools.partial(_losses, self._model, True))

    def horizon(self, segments: int, first: int) -> SegmentSums:
        """Each segment from number ``first`` on, read with a memory of the last ``segments`` only.

        Raises:
          ConfigError: a segment with fewer in front of it.
        """
        if not 1 <= segments < first:
            raise ConfigError(f"horizon = {segments}: must be at least 1 and below {first}")
        sums = self._read(functools.partial(_windowed, self._model, segments, first))
        after = sums.part(first, self._contexts.num_segments)
        return after._replace(nats=sums.nats)

    def _read(self, losses: Callable[[Params, Context], jax.Array]) -> SegmentSums:
        compiled = jax.jit(losses)
        nats, tokens, sizes = [], [], []
        for start in range(0, self._indices.size, self._batch_size):
            chosen = self._indices[start : start + self._batch_size]
            batch = self._contexts.batch([int(index) for index in chosen])
            read = compiled(self._params, fill_up(batch, self._batch_size))
            nats.append(np.asarray(read, np.float64)[: chosen.size])
            tokens.append(batch.context_mask.sum(-1))
            read_bytes = np.where(batch.context_mask, self._token_bytes[batch.targets], 0)
            sizes.append(read_bytes.sum(-1))
        document = np.array([self._contexts.document(int(index)) for index in self._indices])
        return SegmentSums(
            np.concatenate(nats), np.concatenate(tokens), np.concatenate(sizes), document
        )


def _losses(model: SegmentModel, reset: bool, params: Params, batch: Any) -> jax.Array:
    """Sums ``[b, s]`` in nats."""
    return jnp.sum(token_scores(model, params, batch, reset=reset).losses, axis=-1)


def _windowed(
    model: SegmentModel, segments: int, first: int, params: Params, batch: Any
) -> jax.Array:
    """Sums ``[b, s - first + 1]`` of the last segments, each read behind ``segments`` others."""
    rows, count, length = batch.context.shape
    last = np.arange(first - 1, count)
    places = last[:, None] + np.arange(-segments, 1)

    def window(leaf: jax.Array) -> jax.Array:
        return leaf[:, places].reshape(-1, segments + 1, length)

    losses = token_scores(model, params, jax.tree.map(window, batch)).losses[:, -1]
    return jnp.sum(losses, axis=-1).reshape(rows, last.size)


def loss_per_token(sums: SegmentSums) -> float:
    """Nats a token, over all of ``sums``."""
    return float(sums.nats.sum() / sums.tokens.sum())


def bits_per_byte(sums: SegmentSums) -> float:
    """Bits a byte of the raw text, over all of ``sums``."""
    return float(sums.nats.sum() / np.log(2) / sums.bytes.sum())


def per_position(quantity: Callable[[SegmentSums], float], sums: SegmentSums) -> list[float]:
    """``quantity`` of every segment position, from the first on."""
    return [quantity(sums.part(i, i)) for i in range(1, sums.nats.shape[1] + 1)]


def document_interval(
    quantity: Callable[..., float],
    *sums: SegmentSums,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """95 % interval of ``quantity(*sums)``, had other documents been read: percentile bootstrap.

    Args:
      quantity: of one or more ``SegmentSums`` of the same contexts, such as ``loss_per_token``.
      sums: resampled alike, so that what is compared is compared on the same documents.
      resamples: of the documents, as many as there are, with repetition.
      seed: of the resampling.
    """
    documents, owner = np.unique(sums[0].document, return_inverse=True)
    totals = [_by_document(one, owner, documents.size) for one in sums]
    drawn = np.random.default_rng(seed).integers(documents.size, size=(resamples, documents.size))
    values = [quantity(*(_chosen(total, rows) for total in totals)) for rows in drawn]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))


def gain(kept: SegmentSums, reset: SegmentSums) -> float:
    """Share of the loss without a memory that the memory saves: ``1 - kept / reset``."""
    return 1 - loss_per_token(kept) / loss_per_token(reset)


def _by_document(sums: SegmentSums, owner: np.ndarray, count: int) -> SegmentSums:
    def total(leaf: np.ndarray) -> np.ndarray:
        return np.bincount(owner, weights=leaf.sum(1), minlength=count)[:, None]

    return SegmentSums(total(sums.nats), total(sums.tokens), total(sums.bytes), np.arange(count))


def _chosen(sums: SegmentSums, rows: Sequence[int] | np.ndarray) -> SegmentSums:
    return SegmentSums(*(leaf[rows] for leaf in sums))
