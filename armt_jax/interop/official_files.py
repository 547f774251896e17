"""The authors' checkpoints as files: ``safetensors`` or PyTorch's own in, the former out."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import jax
import numpy as np
from safetensors import SafetensorError

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.interop.names import HEADS, LAYERS, ROOTS, tied_head
from armt_jax.interop.official import load_official, to_official
from armt_jax.interop.weights import read_state_dict, save_arrays
from armt_jax.models.protocol import Params

_MODEL, _ALIAS = "memory_cell.model.", "memory_cell.layers."


def load_official_file(
    path: str | os.PathLike[str],
    config: ModelConfig,
    dtype: jax.typing.DTypeLike | None = None,
) -> Params:
    """``load_official`` of a file, or of a folder with one; see ``read_state_dict``.

    Raises:
      ConfigError: a file that cannot be read safely, or that does not fit.
    """
    return load_official(read_state_dict(path), config, dtype)


def save_official(
    path: str | os.PathLike[str], params: Params, config: ModelConfig, *, aliases: bool = False
) -> None:
    """Write parameters under the authors' names as one ``safetensors`` file, whole or not at all.

    Args:
      path: of the file.
      params: in the dtype to be written.
      config: of the parameters.
      aliases: also the names under which the authors' module holds the same tensors again, which
        ``load_state_dict(strict=True)`` asks for: the layers a second time, and a tied head.

    Raises:
      ConfigError: a path that cannot be written.
    """
    path = Path(path)
    state = to_official(params, config)
    if aliases:
        state |= alias_arrays(state, config)
    half = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        save_arrays(half, state, {"format": "pt"})
        half.replace(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"file {str(path)!r}: cannot be written ({error})") from error
    finally:
        half.unlink(missing_ok=True)


def alias_arrays(state: dict[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    """Arrays of ``to_official`` under the second names of the authors' module."""
    layers = f"{_MODEL}{ROOTS[config.backbone]}{LAYERS[config.backbone]}."
    again = {
        _ALIAS + name.removeprefix(layers): array
        for name, array in state.items()
        if name.startswith(layers)
    }
    tied = tied_head(config)
    if tied is not None:
        again[_MODEL + HEADS[config.backbone]] = state[_MODEL + tied[1]]
    return again
