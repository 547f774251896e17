"""A half-read text as a file: its memory, the beginning of its next segment, and whose it is.

The file is ``safetensors``: arrays and text, nothing that could run. It says which model it
belongs to, by a fingerprint of configuration and parameters, and has a digest of its own arrays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from armt_jax.config import ConfigError
from armt_jax.streaming.reader import StreamReader, StreamState

FORMAT = "armt_jax.stream.1"


def save_stream(path: str | os.PathLike[str], reader: StreamReader, state: StreamState) -> None:
    """Write ``state`` to ``path``: all of it or, where that fails, nothing.

    Raises:
      ConfigError: the folder is missing, may not be written or is full.
    """
    arrays = _arrays(state)
    about = {
        "format": FORMAT,
        "model": model_fingerprint(reader),
        "digest": _digest(arrays[name] for name in sorted(arrays)),
        "segment_size": str(reader.segment_size),
        "segment_overlap": str(reader.segment_overlap),
        "tokens_read": str(state.tokens_read),
    }
    path = Path(path)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            try:
                file.write(save(arrays, about))
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise ConfigError(
            f"stream file {str(path)!r}: must be in a folder that can be written ({error.strerror})"
        ) from error


def load_stream(path: str | os.PathLike[str], reader: StreamReader) -> StreamState:
    """What ``save_stream`` wrote, for ``reader`` to go on with.

    Raises:
      ConfigError: no such file, a damaged one, one of another model, of other parameters or of
        another segment size.
    """
    path = Path(path)
    where = f"stream file {str(path)!r}"
    if not path.is_file():
        raise ConfigError(f"{where}: there is no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{where}: is damaged or no stream file ({error})") from error
    if about.get("format") != FORMAT:
        raise ConfigError(f"{where}: has format {about.get('format')!r}, must be {FORMAT!r}")
    if about.get("digest") != _digest(arrays[name] for name in sorted(arrays)):
        raise ConfigError(f"{where}: is damaged, its arrays are not what was saved")
    if about.get("model") != model_fingerprint(reader):
        raise ConfigError(f"{where}: belongs to another model or to other parameters")
    # Files of earlier versions know no overlap: they have none.
    for name, stored in (
        ("segment_size", about.get("segment_size")),
        ("segment_overlap", about.get("segment_overlap", "0")),
    ):
        if stored != str(getattr(reader, name)):
            raise ConfigError(
                f"{where}: was read with {name} = {stored}, this reader has {getattr(reader, name)}"
            )
    empty = reader.start(arrays["tokens"].shape[0])
    paths = jax.tree_util.tree_leaves_with_path(empty.memory)
    leaves = [jnp.asarray(arrays[_name(path)]) for path, _ in paths]
    memory = jax.tree.unflatten(jax.tree.structure(empty.memory), leaves)
    tokens_read = int(about["tokens_read"])
    return StreamState(memory, arrays["tokens"], arrays["mask"], tokens_read, empty.ticket)


def model_fingerprint(reader: StreamReader) -> str:
    """SHA-256 of a model's configuration and parameters."""
    config = json.dumps(dataclasses.asdict(reader.model.config), sort_keys=True)
    return _digest(jax.tree.leaves(reader.params), config)


def _arrays(state: StreamState) -> dict[str, np.ndarray]:
    memory = {
        _name(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.memory)
    }
    rest = {"tokens": state.tokens, "mask": state.mask}
    return {name: np.ascontiguousarray(array) for name, array in (memory | rest).items()}


def _name(path: tuple[object, ...]) -> str:
    return "memory" + jax.tree_util.keystr(path)


def _digest(arrays: Iterable[jax.Array | np.ndarray], text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        values = np.ascontiguousarray(array)
        digest.update(f"{values.dtype.str}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
