"""Models: the protocol, the backbones' blocks, and the segment-recurrent models."""

from collections.abc import Callable
from typing import Any

from armt_jax.config import ModelConfig
from armt_jax.models.armt import ARMT, ArmtState
from armt_jax.models.prmt import PRMT, LayerwisePRMT, create_prmt
from armt_jax.models.protocol import Params, Segment, SegmentModel
from armt_jax.models.rmt import RMT
from armt_jax.models.rmt_r import RMTRetrieval
from armt_jax.models.state_size import state_size
from armt_jax.models.state_space import StateSpaceLM
from armt_jax.models.transformer import Transformer

__all__ = [
    "ARMT",
    "PRMT",
    "RMT",
    "ArmtState",
    "LayerwisePRMT",
    "Params",
    "RMTRetrieval",
    "Segment",
    "SegmentModel",
    "StateSpaceLM",
    "Transformer",
    "create_model",
    "state_size",
]

# One of ``armt_jax.config.FAMILIES`` a line.
_FAMILIES: dict[str, Callable[[ModelConfig], Any]] = {
    "armt": ARMT,
    "rmt": RMT,
    "prmt": create_prmt,
    "rmt_r": RMTRetrieval,
    "transformer": Transformer,
    "mamba": StateSpaceLM,
    "mamba2": StateSpaceLM,
    "delta_net": StateSpaceLM,
    "gated_delta_net": StateSpaceLM,
    "rwkv5": StateSpaceLM,
    "rwkv7": StateSpaceLM,
}


def create_model(config: ModelConfig) -> Any:
    """The ``SegmentModel`` that ``config`` describes (``ModelConfig`` has checked the names)."""
    return _FAMILIES[config.family](config)
