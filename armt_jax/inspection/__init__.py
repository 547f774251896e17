"""What an associative memory holds and does: observed while a text is read, measured, drawn."""

from armt_jax.inspection.observe import Observation, observe
from armt_jax.inspection.strength import Strength, fact_strength

__all__ = ["Observation", "Strength", "fact_strength", "observe"]
