"""Frozen validation and test sets of associative retrieval, as a TFDS builder without TensorFlow.

One query per context and no random number of pairs: the paper's protocol (Appendix I). A set
of a version never changes; training samples come from streams of another name, so none of them
was drawn to make these. TFDS builds the splits of a config together and moves the finished
folder into place at the end, so a killed build leaves only a folder nobody reads.

On one core of a laptop a set of 11,000 contexts is built in 1 to 2 seconds up to 200 pairs, and
half a byte a token is stored. Beyond ``LONG_PAIRS`` pairs, where a model needs seconds to read one
context, the test split has 1,000 contexts instead of 10,000: at 5,000 pairs both splits are built
in 2 seconds and take 23 MB.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from armt_jax.config import ConfigError
from armt_jax.processes import is_main, together
from armt_jax.tasks.associative_retrieval import (
    NUM_SYMBOLS,
    AssociativeRetrieval,
    Sample,
    stream_key,
)

CACHE_VARIABLE = "ARMT_CACHE_DIR"
LONG_PAIRS = 1000

_SIZES = {"validation": 1_000, "test": 10_000}
_LONG_SIZE = 1_000
_MAX_BYTES = 900 * 2**20  # under TFDS's shuffle.MAX_MEM_BUFFER_SIZE
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
        return tfds.core.DatasetInfo(
            builder=self,
            description="Associative retrieval (arXiv 2407.04841), one query per context.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # sample i stays sample i, so a part of a set is its beginning
        )

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


def default_data_dir() -> Path:
    """Where sets are kept: ``$ARMT_CACHE_DIR``, or ``~/.cache/armt_jax`` without it."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/armt_jax").expanduser()


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
      data_dir: folder of the sets; None for ``default_data_dir()``.
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
    root = default_data_dir() if data_dir is None else Path(data_dir).expanduser()
    config = frozen_config(task)
    _check_buildable(config.task)
    with _quiet():
        folder = _build(config, root)
        records = _read(config, root, folder, split, wanted)
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


def _build(config: FrozenConfig, root: Path) -> Path:
    """Folder of the finished set under ``root``."""
    # TFDS would read the set's files here, damaged or not, so it is not asked where they are.
    name, version = FrozenAssociativeRetrieval.name, FrozenAssociativeRetrieval.VERSION
    folder = root / name / config.name / str(version)
    if os.path.isdir(folder):  # False, and no error, in a folder that may not be searched
        return folder
    tfds.disable_progress_bar()
    try:
        builder = FrozenAssociativeRetrieval(data_dir=root, config=config)
        builder.download_and_prepare(
            file_format="array_record",
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )
    except (OSError, RuntimeError) as error:  # array_record's writer raises RuntimeError
        # Another process may have finished the same set in the meantime: its folder is as good.
        if not os.path.isdir(folder):
            raise ConfigError(
                f"data_dir = {str(root)!r}: must be a folder that can be written, with room for "
                f"the set ({_first_line(error)}); {CACHE_VARIABLE} names another"
            ) from error
    return folder


def _read(
    config: FrozenConfig, root: Path, folder: Path, split: str, wanted: int
) -> list[dict[str, np.ndarray]]:
    try:
        builder = FrozenAssociativeRetrieval(data_dir=root, config=config)
        source = builder.as_data_source(split)  # pyright: ignore[reportCallIssue] (its decorator)
        if len(source) != frozen_size(config.task, split):
            raise ValueError(f"{len(source)} contexts in {split}")
        # Every chunk of an array_record file carries a hash, which reading checks.
        return source.__getitems__(range(wanted))
    # TFDS, protobuf, JSON and array_record have no common class of errors.
    except Exception as error:
        raise ConfigError(
            f"data_dir = {str(root)!r}: the set in {folder} is damaged ({_first_line(error)}); "
            "delete that folder and it is built anew"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _check_buildable(task: AssociativeRetrieval) -> None:
    """TFDS keeps a split in memory while it writes it, and without TensorFlow it must."""
    num_bytes = max(frozen_size(task, s) for s in _SIZES) * task.num_pairs * task.segment_length
    if num_bytes > _MAX_BYTES:
        most = _MAX_BYTES // (_LONG_SIZE * task.segment_length)
        raise ConfigError(
            f"task.num_pairs = {task.num_pairs}: must be at most {most} in a frozen set"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TFDS prints advice about downloads and custom configs; neither is true of these sets."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
