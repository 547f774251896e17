"""A model with all that reading a text and answering about it needs."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from armt_jax.config import ConfigError
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.reading.documents import encoded
from armt_jax.reading.forms import TextForm
from armt_jax.recurrence.segmenting import check_overlap
from armt_jax.streaming import StreamReader, fast_reader

# Tokens that one call of the compiled program reads: so many that calls cost little, so few that
# a slow model still says how far it is.
_BLOCK_TOKENS = 4096
_LISTED = 8  # letters of a digest in a message
_SHOWN = 40  # characters of a question in a message


@dataclasses.dataclass(frozen=True, eq=False)
class ReadingModel:
    """What reads.

    Attributes:
      model, params: as ``create_model`` and ``model.init`` give them.
      form: how text becomes tokens, as the model was trained.
      segment_size: tokens of a segment, as the model was trained.
      name: for people.
      segment_overlap: tokens of a segment that repeat the last ones of the one before.
    """

    model: SegmentModel
    params: Params
    form: TextForm
    segment_size: int
    name: str = "model"
    segment_overlap: int = 0

    def __post_init__(self) -> None:
        if self.segment_size < 1:
            raise ConfigError(f"segment_size = {self.segment_size}: must be at least 1")
        self.model.config.check_segment(self.segment_size)
        check_overlap(self.segment_size, self.segment_overlap)

    @functools.cached_property
    def reader(self) -> StreamReader:
        """The reader of texts; over two devices where there are two and the model can."""
        sizes = self.segment_size, _BLOCK_TOKENS, self.segment_overlap
        return fast_reader(self.model, self.params, *sizes)

    @functools.cached_property
    def parameters_digest(self) -> str:
        """See ``parameters_digest``."""
        return parameters_digest(self.params)

    def describe(self) -> str:
        """Such as ``babilong_qa1 (armt 4x128, parameters 1f0c77a2)``."""
        config = self.model.config
        shape = f"{config.family} {config.n_layer}x{config.d_model}"
        return f"{self.name} ({shape}, parameters {self.parameters_digest[:_LISTED]})"

    def prompts(self, questions: Sequence[Any] | str, new_tokens: int) -> list[np.ndarray]:
        """Questions as ids ``[t]``, each with room for an answer of ``new_tokens``.

        Args:
          questions: texts, or integer arrays of ids that end where an answer begins.
          new_tokens: of an answer, at most.

        Raises:
          ConfigError: an empty question, one longer than a segment or without room for an answer,
            one that the tokenizer does not know, ids outside the vocabulary.
        """
        if new_tokens < 1:
            raise ConfigError(f"max_new_tokens = {new_tokens}: must be at least 1")
        asked = [questions] if isinstance(questions, str) else list(questions)
        return [self._prompt(one, f"question {n}", new_tokens) for n, one in enumerate(asked, 1)]

    def _prompt(self, question: Any, which: str, new_tokens: int) -> np.ndarray:
        if isinstance(question, str):
            encoded(question, which)
            if not question.strip():
                raise ConfigError(f"{which}: is empty, must have text")
            ids = np.array(self.form.prompt(question), np.int32)
            which = f"{which} ({question.strip()[:_SHOWN]!r})"
        else:
            ids = np.asarray(question)
        if ids.ndim != 1 or ids.size == 0 or not np.issubdtype(ids.dtype, np.integer):
            raise ConfigError(f"{which}: must be text, or ids [n] of one token at least")
        vocabulary = self.model.config.vocab_size
        if int(ids.min()) < 0 or int(ids.max()) >= vocabulary:
            raise ConfigError(f"{which}: has ids outside [0, {vocabulary}), the vocabulary")
        if ids.size > self.segment_size:
            raise ConfigError(
                f"{which}: has {ids.size} tokens, must be at most {self.segment_size}, a segment"
            )
        try:
            self.model.config.check_segment(ids.size + new_tokens)
        except ConfigError as error:
            raise ConfigError(
                f"{which}: has {ids.size} tokens and an answer of up to {new_tokens}: {error}"
            ) from error
        return ids.astype(np.int32)


def parameters_digest(params: Params) -> str:
    """SHA-256 of the names, shapes, dtypes and values of parameters.

    Args:
      params: as ``model.init`` gives them (layers stacked).
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        values = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
