"""Devices, the mesh, and how arrays lie on it."""

from armt_jax.sharding.devices import available_cores, cpu_devices, use_cpu_cores
from armt_jax.sharding.mesh import (
    CONTEXT,
    DATA,
    FSDP,
    STAGE,
    TENSOR,
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
    "FSDP",
    "STAGE",
    "TENSOR",
    "available_cores",
    "batched",
    "context_mesh",
    "cpu_devices",
    "create_mesh",
    "data_mesh",
    "replicated",
    "stage_mesh",
    "staged",
    "use_cpu_cores",
]
