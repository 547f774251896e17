"""Associative memory: feature maps, rules, and the pure functions init, recall, update."""

from armt_jax.memory.associative import (
    MemoryState,
    MemoryWrite,
    features,
    gate,
    init_state,
    memory_write,
    recall,
    update,
)
from armt_jax.memory.feature_maps import FEATURE_MAPS, dpfp, feature_dim
from armt_jax.memory.rules import PRESETS, MemoryRule

__all__ = [
    "FEATURE_MAPS",
    "PRESETS",
    "MemoryRule",
    "MemoryState",
    "MemoryWrite",
    "dpfp",
    "feature_dim",
    "features",
    "gate",
    "init_state",
    "memory_write",
    "recall",
    "update",
]
