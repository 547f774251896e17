"""Building a TFDS set once, and opening it, with errors that people can read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from armt_jax.config import ConfigError
from armt_jax.tasks.babilong.frozen import _line, _quiet
from armt_jax.tasks.frozen_sets import CACHE_VARIABLE


def build_or_open(
    kind: type[tfds.core.GeneratorBasedBuilder],
    config: tfds.core.BuilderConfig,
    root: Path,
    split: str,
    size: int,
) -> Any:
    """The data source of a set, which is built where it is not there.

    Raises:
      ConfigError: a folder that cannot be written, a damaged set.
    """
    folder = root / kind.name / str(config.name) / str(kind.VERSION)
    with _quiet():
        if not os.path.isdir(folder):
            _build(kind, config, root, folder)
        try:
            builder = kind(data_dir=root, config=config)
            source = builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
            if len(source) != size:
                raise ValueError(f"{len(source)} records")
            source[size - 1]
        # TFDS, protobuf, JSON and array_record have no common class of errors.
        except Exception as error:
            raise ConfigError(
                f"data_dir = {str(root)!r}: the set in {folder} is damaged ({_line(error)}); "
                "delete that folder and it is built anew"
            ) from error
    return source


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
                f"the set ({_line(error)}); {CACHE_VARIABLE} names another"
            ) from error
