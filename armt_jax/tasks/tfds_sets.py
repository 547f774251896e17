"""TFDS sets without TensorFlow: built on the first use, read, and refused when damaged.

TFDS builds all splits of a config together and moves the finished folder into place at the end, so
a killed build leaves only a folder nobody reads. Without TensorFlow it keeps a split in memory
while it writes it, hence ``MAX_BYTES``.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from armt_jax.config import ConfigError

CACHE_VARIABLE = "ARMT_CACHE_DIR"
MAX_BYTES = 900 * 2**20  # under TFDS's shuffle.MAX_MEM_BUFFER_SIZE


def default_data_dir() -> Path:
    """Where sets are kept: ``$ARMT_CACHE_DIR``, or ``~/.cache/armt_jax`` without it."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/armt_jax").expanduser()


def dataset_info(
    builder: tfds.core.DatasetBuilder, description: str, features: Mapping[str, Any]
) -> tfds.core.DatasetInfo:
    """Info of a set whose record i stays record i, so that a part of it is its beginning."""
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        features=tfds.features.FeaturesDict(dict(features)),
        disable_shuffling=True,
    )


def read_set(
    kind: type[tfds.core.GeneratorBasedBuilder],
    config: tfds.core.BuilderConfig,
    data_dir: str | os.PathLike[str] | None,
    split: str,
    size: int,
    wanted: int | None = None,
) -> list[dict[str, Any]]:
    """The first records of a split; the set is built where its folder is not there.

    Args:
      kind, config, data_dir, split, size: as in ``open_set``.
      wanted: how many are read, None for all.

    Raises:
      ConfigError: as ``open_set``.
    """
    source = open_set(kind, config, data_dir, split, size)
    with _readable(kind, config, data_dir):
        # Every chunk of an array_record file carries a hash, which reading checks.
        return source.__getitems__(range(size if wanted is None else wanted))


def open_set(
    kind: type[tfds.core.GeneratorBasedBuilder],
    config: tfds.core.BuilderConfig,
    data_dir: str | os.PathLike[str] | None,
    split: str,
    size: int,
) -> Any:
    """The data source of a split; the set is built where its folder is not there.

    Args:
      kind: the builder.
      config: what is built; its name and the version of ``kind`` name the folder.
      data_dir: folder of the sets; None for ``default_data_dir()``.
      split: of the builder.
      size: records that the split must have.

    Raises:
      ConfigError: a folder that cannot be written, or a set in it that is damaged.
    """
    root, folder = _place(kind, config, data_dir)
    with _quiet():
        if not os.path.isdir(folder):  # False, and no error, in a folder that may not be searched
            _build(kind, config, root, folder)
        with _readable(kind, config, data_dir):
            builder = kind(data_dir=root, config=config)
            source = builder.as_data_source(split)  # pyright: ignore[reportCallIssue] (its decorator)
            if len(source) != size:
                raise ValueError(f"{len(source)} records in {split}")
            source[size - 1]
    return source


@contextlib.contextmanager
def _readable(
    kind: type[tfds.core.GeneratorBasedBuilder],
    config: tfds.core.BuilderConfig,
    data_dir: str | os.PathLike[str] | None,
) -> Iterator[None]:
    try:
        yield
    # TFDS, protobuf, JSON and array_record have no common class of errors.
    except Exception as error:
        root, folder = _place(kind, config, data_dir)
        raise ConfigError(
            f"data_dir = {str(root)!r}: the set in {folder} is damaged ({first_line(error)}); "
            "delete that folder and it is built anew"
        ) from error


def _place(
    kind: type[tfds.core.GeneratorBasedBuilder],
    config: tfds.core.BuilderConfig,
    data_dir: str | os.PathLike[str] | None,
) -> tuple[Path, Path]:
    """Folder of the sets and of this one."""
    root = default_data_dir() if data_dir is None else Path(data_dir).expanduser()
    # TFDS would read the set's files here, damaged or not, so it is not asked where they are.
    return root, root / kind.name / str(config.name) / str(kind.VERSION)


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a line of ours."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _build(
    kind: type[tfds.core.GeneratorBasedBuilder],
    config: tfds.core.BuilderConfig,
    root: Path,
    folder: Path,
) -> None:
    tfds.disable_progress_bar()
    try:
        kind(data_dir=root, config=config).download_and_prepare(
            file_format="array_record",
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )
    except (OSError, RuntimeError) as error:  # array_record's writer raises RuntimeError
        # Another process may have finished the same set in the meantime: its folder is as good.
        if not os.path.isdir(folder):
            raise ConfigError(
                f"data_dir = {str(root)!r}: must be a folder that can be written, with room for "
                f"the set ({first_line(error)}); {CACHE_VARIABLE} names another"
            ) from error


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
