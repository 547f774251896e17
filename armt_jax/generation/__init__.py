"""Generation: texts are continued token by token, in their last segment or in ever new ones."""

from armt_jax.generation.generate import generate, generate_with_scores
from armt_jax.generation.sampling import GREEDY, Sampling, check_sampling, sample_token
from armt_jax.generation.streamed import generate_stream

__all__ = [
    "GREEDY",
    "Sampling",
    "check_sampling",
    "generate",
    "generate_stream",
    "generate_with_scores",
    "sample_token",
]
