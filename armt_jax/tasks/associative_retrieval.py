"""Associative retrieval: contexts of key-value pairs and the queries asked about them.

The task of arXiv 2407.04841, Appendix I, with the authors' token ids. A symbol 0..15 is its own
token. A context segment holds one pair, ``key : value ,``; a query segment ``key - value ,`` has
the same length. In ``remember`` the keys of a context are unique; in ``rewrite`` they are drawn
with repetition and a key's latest value is the right answer. Scored are the tokens after ``-``:
the value's digits and the ``,``.

Axis legend: ``s`` segment of the context, ``q`` query, ``t`` token of a segment.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import NamedTuple

import numpy as np

from armt_jax.config import VARIANTS, ConfigError, check_pairs

NUM_SYMBOLS = 16
PAIR_TOKEN = 100  # ":"
QUERY_TOKEN = 101  # "-"
END_TOKEN = 102  # ","

_MAX_KEY_SIZE = 15  # a key is an int64 while it is drawn


class Sample(NamedTuple):
    """One context with its queries; a batch has a leading axis ``b`` on every array.

    Attributes:
      context: int32 ``[s, t]``, pairs in the order they are read; padding segments, at the end,
        are zeros.
      context_mask: bool ``[s]``, False for a padding segment.
      queries: int32 ``[q, t]``, with the right value filled in; padding queries are zeros.
      query_mask: bool ``[q]``, False for a padding query (fewer distinct keys than ``q``).
    """

    context: np.ndarray
    context_mask: np.ndarray
    queries: np.ndarray
    query_mask: np.ndarray


Batch = Sample


@dataclasses.dataclass(frozen=True)
class AssociativeRetrieval:
    """Sizes of the task, and its sampler.

    Attributes:
      variant: ``remember`` or ``rewrite``.
      num_pairs: pairs of a context (the most, with ``random_num_pairs``); updates, for rewrite.
      key_size, value_size: digits of 0..15 in a key, in a value.
      num_queries: queries per context; 0 asks every key of the context.
      random_num_pairs: a context has 1 to ``num_pairs`` pairs, uniformly.
      key_symbols: different symbols that the keys of one context are made of, chosen anew for
        every context. With few, keys share most of their digits, and none can be told from the
        others by one digit.
      random_symbols: a context's keys are made of 2, 4, 8, ... or ``key_symbols`` symbols, and its
        values of 2, 4, 8 or 16, each as likely. Where few keys get few values many times, what a
        memory does not quite replace is found out after fewer updates.

    Raises:
      ConfigError: an impossible size, such as more unique keys than there are.
    """

    variant: str
    num_pairs: int
    key_size: int
    value_size: int
    num_queries: int
    random_num_pairs: bool
    key_symbols: int = NUM_SYMBOLS
    random_symbols: bool = False

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            _refuse("variant", self.variant, f"must be one of {', '.join(VARIANTS)}")
        for name in ("num_pairs", "key_size", "value_size"):
            if getattr(self, name) < 1:
                _refuse(name, getattr(self, name), "must be at least 1")
        if self.key_size > _MAX_KEY_SIZE:
            _refuse("key_size", self.key_size, f"must be at most {_MAX_KEY_SIZE}")
        if self.num_queries < 0:
            _refuse("num_queries", self.num_queries, "must be 0 (every key) or more")
        if not 2 <= self.key_symbols <= NUM_SYMBOLS:
            _refuse("key_symbols", self.key_symbols, f"must be from 2 to {NUM_SYMBOLS}")
        fewest = 2 if self.random_symbols else self.key_symbols
        check_pairs("task.num_pairs", self.variant, self.num_pairs, self.key_size, fewest)

    @property
    def segment_length(self) -> int:
        """Tokens of a context segment or a query: ``t``."""
        return self.key_size + self.value_size + 2

    @property
    def num_keys(self) -> int:
        """Keys a context can have at most: ``key_symbols ** key_size``."""
        return self.key_symbols**self.key_size

    @property
    def max_queries(self) -> int:
        """Length of the query axis: ``q``."""
        if self.num_queries > 0:
            return self.num_queries
        return min(self.num_pairs, self.num_keys)

    def sample(self, rng: np.random.Generator) -> Sample:
        """A context and its queries, in random order.

        The asked keys are drawn uniformly, without repetition, among the distinct keys of the
        context. So for rewrite with one query a key written ten times is as likely to be asked
        as a key written once, and the age of the asked pair is that of a key, not of a write.
        """
        pairs = self.num_pairs
        if self.random_num_pairs:
            pairs = int(rng.integers(1, self.num_pairs, endpoint=True))
        symbols = self.key_symbols
        if self.random_symbols:
            symbols = int(rng.choice(_up_to(self.key_symbols)))
        if self.variant == "remember":
            keys = rng.choice(symbols**self.key_size, pairs, replace=False)
            latest = np.arange(pairs)
        else:
            keys = rng.integers(0, symbols**self.key_size, pairs)
            latest = _latest_positions(keys)
        asked = rng.choice(latest, min(self.max_queries, latest.size), replace=False)

        context = np.zeros((self.num_pairs, self.segment_length), np.int32)
        context[:pairs] = self._segments(rng, keys, symbols)
        queries = np.zeros((self.max_queries, self.segment_length), np.int32)
        queries[: asked.size] = context[asked]
        queries[: asked.size, self.key_size] = QUERY_TOKEN
        return Sample(
            context=context,
            context_mask=np.arange(self.num_pairs) < pairs,
            queries=queries,
            query_mask=np.arange(self.max_queries) < asked.size,
        )

    def sample_at(self, stream: int, index: int) -> Sample:
        """Sample ``index`` of a stream named by ``stream_key``, whatever was drawn before."""
        bits = np.random.Philox(key=np.array([stream, index], np.uint64))
        return self.sample(np.random.Generator(bits))

    def _segments(self, rng: np.random.Generator, keys: np.ndarray, symbols: int) -> np.ndarray:
        segments = np.empty((keys.size, self.segment_length), np.int32)
        places = symbols ** np.arange(self.key_size - 1, -1, -1)
        digits = keys[:, None] // places % symbols
        if symbols < NUM_SYMBOLS:
            digits = rng.permutation(NUM_SYMBOLS)[digits]
        segments[:, : self.key_size] = digits
        segments[:, self.key_size] = PAIR_TOKEN
        values = rng.integers(0, NUM_SYMBOLS, (keys.size, self.value_size))
        if self.random_symbols:
            values = rng.permutation(NUM_SYMBOLS)[values % rng.choice(_up_to(NUM_SYMBOLS))]
        segments[:, self.key_size + 1 : -1] = values
        segments[:, -1] = END_TOKEN
        return segments


def stream_key(task: AssociativeRetrieval, split: str, seed: int, stage: int = 0) -> int:
    """A 64-bit name for the stream of samples of these settings; another setting, another stream.

    It is a hash, so that neighbouring seeds or stages share nothing.
    """
    described = dataclasses.asdict(task)
    # Without these choices the samples are those from before there was one.
    if task.key_symbols == NUM_SYMBOLS:
        del described["key_symbols"]
    if not task.random_symbols:
        del described["random_symbols"]
    settings = {
        "task": described,
        "split": split,
        "seed": int(seed),
        "stage": int(stage),
    }
    text = json.dumps(settings, sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _up_to(most: int) -> list[int]:
    """The powers of two from 2 on, below ``most``, and ``most``."""
    return [*(2**power for power in range(1, 5) if 2**power < most), most]


def _latest_positions(keys: np.ndarray) -> np.ndarray:
    """Position of the last occurrence of each distinct key."""
    _, from_the_end = np.unique(keys[::-1], return_index=True)
    return keys.size - 1 - from_the_end


def _refuse(name: str, value: object, accepted: str) -> None:
    raise ConfigError(f"task.{name} = {value!r}: {accepted}")
