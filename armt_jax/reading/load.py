"""Folders that a model which reads text is loaded from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from armt_jax.config import ConfigError
from armt_jax.interop import hugging_face
from armt_jax.interop.weights import read_json
from armt_jax.models import ARMT, create_model
from armt_jax.reading.checkpoint_folder import CONFIG, load_checkpoint
from armt_jax.reading.forms import PlainForm
from armt_jax.reading.reading_model import ReadingModel
from armt_jax.reading.run_folder import read_run
from armt_jax.training.checkpoints import LATEST

_SEGMENT = 512  # of a model without a table of positions, where nobody says otherwise


def load_reading_model(
    folder: str | os.PathLike[str],
    *,
    step: int | str = LATEST,
    segment_size: int | None = None,
    warn: Any = lambda text: None,
) -> ReadingModel:
    """The model of a folder, with its tokenizer, ready to read.

    Args:
      folder: of a run of BABILong or of language modelling (``config.json``, ``tokenizer.json``,
        Orbax checkpoints), of ``save_checkpoint`` (see ``checkpoint_folder``), or of Hugging Face
        (``config.json``, ``tokenizer.json``, ``safetensors``).
      step: of a run: ``latest``, ``best`` or a number.
      segment_size: of a Hugging Face folder, whose model was trained on none; by default as many
        tokens as its positions have room for, at most 512.
      warn: is told about damaged checkpoints that were passed over, and about a memory that was
        never trained: it stays empty, so nothing of a segment is known in the next.

    Raises:
      ConfigError: no such folder, nothing of the above in it, or a file that is damaged or missing.
      CheckpointError: a run without an undamaged checkpoint of that step.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"folder {str(folder)!r}: there is no such folder")
    about = read_json(folder / CONFIG)
    if "format" in about:
        found = load_checkpoint(folder, about)
    elif "model_type" in about:
        found = _load_hugging_face(folder, about, segment_size)
    else:
        found = read_run(folder, step, warn).reading
    _warn_of_empty_memory(found, warn)
    return found


def _warn_of_empty_memory(found: ReadingModel, warn: Any) -> None:
    if not isinstance(found.model, ARMT):
        return
    if not np.any(found.params["layers"]["memory"]["W_mv"]["kernel"]):
        warn(
            f"{found.describe()}: its memory was never trained (W_mv is 0), so nothing of one "
            f"segment of {found.segment_size} tokens is known in the next"
        )


def _load_hugging_face(
    folder: Path, about: dict[str, Any], segment_size: int | None
) -> ReadingModel:
    params, config = hugging_face.load_hugging_face(folder)
    tokenizer = hugging_face.load_tokenizer(folder, config)
    stop = about.get("eos_token_id")
    stop = stop[0] if isinstance(stop, list) and stop else stop
    stop_token = tokenizer.id_to_token(stop) if isinstance(stop, int) else None
    if segment_size is None:
        taken = 0 if config.wrap_pos else config.memory_positions
        room = config.n_positions - taken if config.has_learned_positions else _SEGMENT
        segment_size = max(1, min(_SEGMENT, room))
    form = PlainForm(tokenizer, stop_token)
    return ReadingModel(create_model(config), params, form, segment_size, folder.name)
