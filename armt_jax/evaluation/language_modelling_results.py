"""Results of language modelling: one row a checkpoint and way of reading, and their JSON file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path

from armt_jax.config import ConfigError
from armt_jax.config.language_modelling import MEMORIES
from armt_jax.evaluation.results import atomic_write

SCHEMA = "armt_jax.language_modelling"
SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class SegmentLossRow:
    """Loss per segment position of one checkpoint, read in one way.

    Attributes:
      dataset, split: the text.
      model, rule, family: name of the model, of its memory rule, and its family.
      num_params, state_size: parameters, and floats that go from segment to segment.
      vocab_size, segment_size: entries of the vocabulary, tokens of a segment.
      trained_segments: the longest context of the training.
      trained_memory, memory: ``kept`` or ``reset``, in training and here.
      losses: nats a token at every segment position.
      bits_per_byte: the same in bits a byte of the raw UTF-8 text.
      tokens: predicted at every position.
      first_segment: from which (counted from 1) the means are taken, to the last.
      mean_loss, mean_loss_low, mean_loss_high: over their tokens; 95 % interval over documents.
      mean_bits_per_byte, mean_bits_per_byte_low, mean_bits_per_byte_high: over their bytes.
      gain, gain_low, gain_high: share of the mean loss with the memory reset in front of every
        segment (same checkpoint, same tokens) that the memory saves; None where it is reset.
      horizons: mean loss with a memory of the last so many segments only, by their number.
      writes: of ARMT with its memory kept, means of every layer (``memory_writes``): how alike a
        memory token's keys are from segment to segment, keys of one segment, and gates; else None.
      documents, contexts: of the split that were read.
      seed, step, commit: of the training, the checkpoint and the code that evaluated.
      flops_per_token: of reading and predicting a text of the trained length, matrix products
        only; None in files of before they were counted.
    """

    dataset: str
    split: str
    model: str
    rule: str
    family: str
    num_params: int
    state_size: int
    vocab_size: int
    segment_size: int
    trained_segments: int
    trained_memory: str
    memory: str
    losses: list[float]
    bits_per_byte: list[float]
    tokens: list[int]
    first_segment: int
    mean_loss: float
    mean_loss_low: float
    mean_loss_high: float
    mean_bits_per_byte: float
    mean_bits_per_byte_low: float
    mean_bits_per_byte_high: float
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    horizons: dict[str, float]
    writes: dict[str, list[float]] | None
    documents: int
    contexts: int
    seed: int
    step: int
    commit: str
    flops_per_token: float | None = None

    def __post_init__(self) -> None:
        count = len(self.losses)
        for name in ("bits_per_byte", "tokens"):
            if len(getattr(self, name)) != count:
                raise ConfigError(f"{name}: must have {count} entries, one a segment, as losses")
        if not 1 <= self.first_segment <= count:
            raise ConfigError(f"first_segment = {self.first_segment}: must be from 1 to {count}")
        for name in ("trained_memory", "memory"):
            if getattr(self, name) not in MEMORIES:
                raise ConfigError(
                    f"{name} = {getattr(self, name)!r}: must be one of {', '.join(MEMORIES)}"
                )
        if (self.gain is None) != (self.memory == "reset"):
            raise ConfigError(
                f"gain = {self.gain}: must be there if memory = 'kept', and only then"
            )


def write_rows(path: str | os.PathLike[str], rows: Iterable[SegmentLossRow]) -> None:
    """``{"schema": ..., "schema_version": 1, "rows": [...]}``, whole or not at all."""
    content = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    atomic_write(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def read_rows(path: str | os.PathLike[str]) -> list[SegmentLossRow]:
    """What ``write_rows`` wrote.

    Raises:
      ConfigError: no such file, or another kind or version of file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        found = (content["schema"], content["schema_version"])
        if found != (SCHEMA, SCHEMA_VERSION):
            raise ConfigError(
                f"{path}: is of schema {found[0]!r} version {found[1]!r}, must be {SCHEMA!r} "
                f"version {SCHEMA_VERSION}"
            )
        return [SegmentLossRow(**row) for row in content["rows"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: must be a file of segment losses ({error})") from error
