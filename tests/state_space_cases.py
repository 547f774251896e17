"""Small recurrent models for the tests of ``armt_jax.models.state_space``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax import ModelConfig, create_model
from armt_jax.config import STATE_SPACE_FAMILIES
from armt_jax.models import StateSpaceLM
from armt_jax.models.protocol import State
from tests.small_models import SIZES

FAMILIES = STATE_SPACE_FAMILIES


def recurrent_model(family: str, **changes: Any) -> StateSpaceLM:
    """Two layers; a chunk of 3 tokens, so that most segments are several, the last one shorter."""
    sizes: dict[str, Any] = {
        "family": family,
        "d_state": 4,
        "d_conv": 3,
        "dt_rank": 2,
        "chunk_size": 3,
    }
    return create_model(ModelConfig(**{**SIZES, **sizes, **changes}))


def old_state(model: StateSpaceLM, batch: int, seed: int = 0) -> State:
    """A state with something everywhere."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), model.init_state(batch)
    )
