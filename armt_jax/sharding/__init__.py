"""Devices, the mesh, and how arrays lie on it."""

from armt_jax.sharding.devices import available_cores, use_cpu_cores
from armt_jax.sharding.mesh import DATA, batched, create_mesh, data_mesh, replicated

__all__ = [
    "DATA",
    "available_cores",
    "batched",
    "create_mesh",
    "data_mesh",
    "replicated",
    "use_cpu_cores",
]
