"""Devices, the mesh, and how arrays lie on it."""

from armt_jax.sharding.devices import available_cores, use_cpu_cores
from armt_jax.sharding.mesh import (
    CONTEXT,
    DATA,
    STAGE,
    batched,
    context_mesh,
    create_mesh,
    data_mesh,
    replicated,
    stage_mesh,
    staged,
)

__all__ = [
    "CONTEXT",
    "DATA",
    "STAGE",
    "available_cores",
    "batched",
    "context_mesh",
    "create_mesh",
    "data_mesh",
    "replicated",
    "stage_mesh",
    "staged",
    "use_cpu_cores",
]
