"""Models: the protocol, the backbones' blocks, and the segment-recurrent models over them."""

from armt_jax.config import ModelConfig
from armt_jax.models.armt import ARMT, ArmtState
from armt_jax.models.protocol import Params, Segment, SegmentModel

__all__ = ["ARMT", "ArmtState", "Params", "Segment", "SegmentModel", "create_model"]


def create_model(config: ModelConfig) -> ARMT:
    """The model that ``config`` describes (``ModelConfig`` has already checked the names)."""
    return {"armt": ARMT}[config.family](config)
