"""Devices, the mesh, and how arrays lie on it."""

from armt_jax.sharding.devices import available_cores, cpu_devices, use_cpu_cores
from armt_jax.sharding.mesh import (
    DATA,
    FSDP,
    STAGE,
    TENSOR,
    batched,
    create_mesh,
    data_mesh,
    replicated,
    stage_mesh,
    staged,
)

__all__ = [
    "DATA",
    "FSDP",
    "STAGE",
    "TENSOR",
    "available_cores",
    "batched",
    "cpu_devices",
    "create_mesh",
    "data_mesh",
    "replicated",
    "stage_mesh",
    "staged",
    "use_cpu_cores",
]
