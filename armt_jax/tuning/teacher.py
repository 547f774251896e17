"""Distillation (Hinton et al. 2015, arXiv 1503.02531): a frozen teacher beside what it teaches.

The teacher's parameters stand beside the model's own under ``teacher``, so a checkpoint has all
that a training needs, and whatever reads parameters (meshes, tables, the optimizer) sees them. They
have no gradient and no moments; ``plain_params`` leaves them out.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from armt_jax.config import ConfigError, ModelConfig, TuningConfig
from armt_jax.interop.hf_config import backbone_fields
from armt_jax.interop.hugging_face import CONFIG, model_config
from armt_jax.models import create_model
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.sharding.rules import leaf_names
from armt_jax.training.workdir import read_config

KEY = "teacher"


@dataclasses.dataclass(frozen=True)
class WithTeacher:
    """A model whose parameters have a teacher's beside them; ``TunedScoring`` takes them apart.

    Everything but ``init`` is the model's own (of ``lora``, too).
    """

    model: Any
    teacher: SegmentModel

    def init(self, rng: jax.Array) -> Params:
        """Fresh parameters of the model, and zeros where the teacher's will be."""
        shapes = jax.eval_shape(self.teacher.init, rng)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return {**self.model.init(rng), KEY: zeros}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def without_teacher(params: Params) -> Params:
    """The parameters of the model alone."""
    return {key: value for key, value in params.items() if key != KEY}


def with_teacher(model: Any, config: ModelConfig, tuning: TuningConfig) -> Any:
    """``model`` beside the teacher of ``tuning``, of whose folder only the settings are read.

    A run's model reads as it was trained to, a Hugging Face model all of a context at once.

    Raises:
      ConfigError: no such folder, or a teacher of another vocabulary than ``config``'s.
    """
    if tuning.teacher is None:
        return model
    teacher = _teacher_config(Path(tuning.teacher), config)
    if teacher.vocab_size != config.vocab_size:
        raise ConfigError(
            f"tuning.teacher = {tuning.teacher!r}: has a vocabulary of {teacher.vocab_size} "
            f"tokens, must have model.vocab_size = {config.vocab_size}, and the same ones"
        )
    return WithTeacher(model, create_model(teacher))


def place_teacher(params: Params, loaded: Params) -> Params:
    """``params`` with the ``loaded`` teacher, in the dtypes and on the devices of its place.

    A Hugging Face model is loaded with a fresh memory, for which there is no place.
    """
    there = dict(leaf_names(loaded))
    placed = [
        jax.device_put(there[name].astype(leaf.dtype), leaf.sharding)
        for name, leaf in leaf_names(params[KEY])
    ]
    return {**params, KEY: jax.tree.unflatten(jax.tree.structure(params[KEY]), placed)}


def _teacher_config(folder: Path, student: ModelConfig) -> ModelConfig:
    try:
        about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        about = None
    if not isinstance(about, dict):
        raise ConfigError(
            f"tuning.teacher = {str(folder)!r}: must be the folder of a run or of a Hugging Face "
            f"model, with its {CONFIG}"
        )
    if "curriculum" in about:
        return read_config(folder).model
    fields = backbone_fields(about, str(folder / CONFIG))
    room = {"family": "transformer", "context_tokens": student.context_tokens}
    return model_config(fields, room)
