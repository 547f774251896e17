"""Flags that name a model which reads text, and loading it."""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from armt_jax.config import ConfigError
from armt_jax.reading import Document, ReadingModel, load_reading_model
from armt_jax.sharding import use_cpu_cores
from armt_jax.training.checkpoints import BEST, LATEST
from experiments.shared_flags import CHECKPOINT, STEP, WORKDIR

_SEGMENT_SIZE = flags.DEFINE_integer(
    "segment_size", None, "Tokens of a segment, for a Hugging Face model."
)
QUESTION = flags.DEFINE_multi_string("question", [], "A question; ask takes several.")
DOCUMENT = flags.DEFINE_string("document", None, "Text file to read, UTF-8.")


def load_model() -> ReadingModel:
    """The model of ``--workdir`` or ``--checkpoint``.

    Raises:
      ConfigError: none or both of them, or a folder that no model can be loaded from.
      CheckpointError: no undamaged checkpoint.
    """
    if (WORKDIR.value is None) == (CHECKPOINT.value is None):
        raise ConfigError(
            "--workdir or --checkpoint: one of them must name a folder, of a run or of a model"
        )
    use_cpu_cores()
    return load_reading_model(
        WORKDIR.value or CHECKPOINT.value or "",
        step=checkpoint_step(),
        segment_size=_SEGMENT_SIZE.value,
        warn=lambda text: print(text, file=sys.stderr),
    )


def checkpoint_step() -> int | str:
    """``--step``.

    Raises:
      ConfigError: neither a name nor a number.
    """
    which = STEP.value
    if which in (LATEST, BEST):
        return which
    if not which.isdecimal():
        raise ConfigError(f"--step = {which!r}: must be {LATEST}, {BEST} or a number of steps")
    return int(which)


def load_document(model: ReadingModel) -> Document:
    """The text of ``--document``.

    Raises:
      ConfigError: a file that is missing, empty or not UTF-8.
    """
    return Document.of_file(Path(DOCUMENT.value or ""), model.form)
