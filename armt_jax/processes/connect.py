"""Connecting CPUs of several processes before a program needs them.

Sums over CPUs (gloo) connect the devices of a group at the first program that adds over them, and
give up where a process comes 30 s after another: it may well take longer to compile that program.
Devices that are connected wait for each other. (All but a ``psum_scatter``, in JAX to 0.12.)
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from armt_jax.processes.together import one_step_at_a_time


def connect(mesh: Mesh) -> None:
    """Connect the groups of devices that programs over any axes of ``mesh`` use."""
    if not one_step_at_a_time():
        return
    axes = [name for name, size in mesh.shape.items() if size > 1]
    for count in range(1, len(axes) + 1):
        for group in itertools.combinations(axes, count):
            multihost_utils.sync_global_devices("connect")
            jax.block_until_ready(_add(mesh, group))


def _add(mesh: Mesh, axes: tuple[str, ...]) -> jax.Array:
    def add() -> jax.Array:
        return lax.psum(jnp.ones(()), axes)

    return jax.jit(jax.shard_map(add, mesh=mesh, in_specs=(), out_specs=P(), check_vma=False))()
