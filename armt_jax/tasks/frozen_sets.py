"""Frozen validation and test sets of associative retrieval, as a TFDS builder without TensorFlow.

One query per context and no random number of pairs: the paper's protocol (Appendix I). A set
of a version never changes; training samples come from streams of another name, so none of them
was drawn to make these.

On one core of a laptop a set of 11,000 contexts is built in 1 to 2 seconds up to 200 pairs, and
half a byte a token is stored. Beyond ``LONG_PAIRS`` pairs, where a model needs seconds to read one
context, the test split has 1,000 contexts instead of 10,000: at 5,000 pairs both splits are built
in 2 seconds and take 23 MB.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from armt_jax.config import ConfigError
from armt_jax.processes import is_main, together
from armt_jax.tasks import tfds_sets
from armt_jax.tasks.associative_retrieval import (
    NUM_SYMBOLS,
    AssociativeRetrieval,
    Sample,
    stream_key,
)

LONG_PAIRS = 1000

_SIZES = {"validation": 1_000, "test": 10_000}
_LONG_SIZE = 1_000
_SEED = 0
_TOKENS = np.dtype(np.uint8)  # the largest id is 102


@dataclasses.dataclass(kw_only=True)
class FrozenConfig(tfds.core.BuilderConfig):
    """Config of the builder; ``task`` is the task frozen, with one query per context."""

    task: AssociativeRetrieval


class FrozenAssociativeRetrieval(tfds.core.GeneratorBasedBuilder):
    """Tokens of contexts ``[s, t]`` and of one query each, ``[t]``, as uint8."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First sets; samples of Philox streams."}  # noqa: RUF012 (TFDS's name)

    @property
    def task(self) -> AssociativeRetrieval:
        """The task that is frozen."""
        config = self.builder_config
        if not isinstance(config, FrozenConfig):
            raise ConfigError("config = None: must be a FrozenConfig, from frozen_config(task)")
        return config.task

    def _info(self) -> tfds.core.DatasetInfo:
        pairs, tokens = self.task.num_pairs, self.task.segment_length
        features = {
            "context": tfds.features.Tensor(shape=(pairs, tokens), dtype=_TOKENS, encoding="bytes"),
            "query": tfds.features.Tensor(shape=(tokens,), dtype=_TOKENS, encoding="bytes"),
        }
        text = "Associative retrieval (arXiv 2407.04841), one query per context."
        return tfds_sets.dataset_info(self, text, features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in _SIZES}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        key = stream_key(self.task, split, _SEED)
        for index in range(frozen_size(self.task, split)):
            sample = self.task.sample_at(key, index)
            yield (
                index,
                {
                    "context": sample.context.astype(_TOKENS),
                    "query": sample.queries[0].astype(_TOKENS),
                },
            )


def frozen_size(task: AssociativeRetrieval, split: str) -> int:
    """Contexts of a frozen split: 1,000 for ``validation``, 10,000 for ``test``.

    With more than ``LONG_PAIRS`` pairs both have 1,000.

    Raises:
      ConfigError: another split.
    """
    if split not in _SIZES:
        raise ConfigError(f"split = {split!r}: must be one of {', '.join(_SIZES)}")
    return _SIZES[split] if task.num_pairs <= LONG_PAIRS else min(_SIZES[split], _LONG_SIZE)


def frozen_config(task: AssociativeRetrieval) -> FrozenConfig:
    """The builder's config for the sizes of ``task``, asked one query per context."""
    frozen = dataclasses.replace(task, num_queries=1, random_num_pairs=False)
    frozen = dataclasses.replace(frozen, random_symbols=False)
    sizes = f"n{task.num_pairs}_k{task.key_size}_v{task.value_size}"
    if task.key_symbols < NUM_SYMBOLS:
        sizes += f"_of{task.key_symbols}"
    return FrozenConfig(name=f"{task.variant}_{sizes}", task=frozen)


def load_frozen(
    task: AssociativeRetrieval,
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    num_samples: int | None = None,
) -> Sample:
    """The first contexts of a frozen split, built on the first use.

    Args:
      task: sizes; its ``num_queries`` and ``random_num_pairs`` are those of training and have
        no say here.
      split: ``validation`` or ``test``.
      data_dir: folder of the sets; None for ``tfds_sets.default_data_dir()``.
      num_samples: how many contexts, None for all ``frozen_size(task, split)``. Fewer are the
        beginning of more.

    Returns:
      ``Sample`` with a leading axis over contexts and one query each.

    Raises:
      ConfigError: no such split, more samples than there are, a folder that cannot be written,
        or a set in it that is damaged.
    """
    size = frozen_size(task, split)
    wanted = size if num_samples is None else num_samples
    if not 1 <= wanted <= size:
        raise ConfigError(
            f"num_samples = {wanted}: must be in [1, {size}], the size of split {split} "
            f"at {task.num_pairs} pairs"
        )
    config = frozen_config(task)
    _check_buildable(config.task)
    records = tfds_sets.read_set(FrozenAssociativeRetrieval, config, data_dir, split, size, wanted)
    context = np.stack([record["context"] for record in records]).astype(np.int32)
    queries = np.stack([record["query"] for record in records]).astype(np.int32)[:, None, :]
    return Sample(
        context=context,
        context_mask=np.ones(context.shape[:2], bool),
        queries=queries,
        query_mask=np.ones(queries.shape[:2], bool),
    )


def load_frozen_together(task: AssociativeRetrieval, split: str, num_samples: int) -> Sample:
    """``load_frozen`` in every process of a run: the first one builds, the others then read.

    Where they do not share a folder each builds its own.
    """
    samples = None
    for turn in (is_main(), not is_main()):
        with together():
            if turn:
                samples = load_frozen(task, split, num_samples=num_samples)
    assert samples is not None  # one of the two turns is everyone's
    return samples


def _check_buildable(task: AssociativeRetrieval) -> None:
    """TFDS keeps a split in memory while it writes it, and without TensorFlow it must."""
    num_bytes = max(frozen_size(task, s) for s in _SIZES) * task.num_pairs * task.segment_length
    if num_bytes > tfds_sets.MAX_BYTES:
        most = tfds_sets.MAX_BYTES // (_LONG_SIZE * task.segment_length)
        raise ConfigError(
            f"task.num_pairs = {task.num_pairs}: must be at most {most} in a frozen set"
        )
