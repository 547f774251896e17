"""Segment-recurrent memory transformers in JAX: the public names."""

from armt_jax import interop
from armt_jax.config import ConfigError, ExperimentConfig, ModelConfig, from_config_dict
from armt_jax.generation import generate
from armt_jax.models import create_model, state_size
from armt_jax.recurrence import answer, forward, run_segments
from armt_jax.training.loss import next_token_loss

__all__ = [
    "ConfigError",
    "ExperimentConfig",
    "ModelConfig",
    "answer",
    "create_model",
    "forward",
    "from_config_dict",
    "generate",
    "interop",
    "next_token_loss",
    "run_segments",
    "state_size",
]
