"""Models: the protocol, the backbones' blocks, and the segment-recurrent models."""

from collections.abc import Callable
from typing import Any

from armt_jax.config import ModelConfig
from armt_jax.models.armt import ARMT, ArmtState
from armt_jax.models.protocol import Params, Segment, SegmentModel
from armt_jax.models.state_space import StateSpaceLM

__all__ = [
    "ARMT",
    "ArmtState",
    "Params",
    "Segment",
    "SegmentModel",
    "StateSpaceLM",
    "create_model",
]

# One of ``armt_jax.config.FAMILIES`` a line.
MODELS: dict[str, Callable[[ModelConfig], Any]] = {
    "armt": ARMT,
    "mamba": StateSpaceLM,
    "mamba2": StateSpaceLM,
    "delta_net": StateSpaceLM,
    "gated_delta_net": StateSpaceLM,
    "rwkv5": StateSpaceLM,
    "rwkv7": StateSpaceLM,
}


def create_model(config: ModelConfig) -> Any:
    """The ``SegmentModel`` of ``config``, which has already checked the names.

    Its type is that of the family in ``MODELS``.
    """
    return MODELS[config.family](config)
