"""The device mesh and where arrays lie on it: parameters everywhere, a batch in shares."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from armt_jax.config import ConfigError, MeshConfig
from armt_jax.processes import process_count

DATA = "data"
STAGE = "stage"


def create_mesh(config: MeshConfig, batch_size: int) -> Mesh:
    """The mesh for batches of ``batch_size`` contexts (of one gradient-accumulation piece).

    Raises:
      ConfigError: more devices than there are, or a number that does not divide the batch, or that
        the processes do not divide: each takes part with as many devices.
    """
    devices, processes = jax.devices(), process_count()
    data = config.data
    if batch_size % processes:
        raise ConfigError(
            f"train.batch_size / train.grad_accum = {batch_size}: must be a multiple of "
            f"{processes}, the number of processes"
        )
    if data == -1:
        counts = range(processes, len(devices) + 1, processes)
        data = max(n for n in counts if batch_size % n == 0)
    if data % processes:
        raise ConfigError(
            f"mesh.data = {data}: must be a multiple of {processes}, the number of processes"
        )
    if data > len(devices):
        raise ConfigError(f"mesh.data = {data}: must be at most {len(devices)}, the devices here")
    if batch_size % data:
        raise ConfigError(
            f"mesh.data = {data}: must divide train.batch_size / train.grad_accum = {batch_size}"
        )
    return data_mesh(data)


def data_mesh(count: int) -> Mesh:
    """The first ``count`` devices share a batch."""
    return _mesh({DATA: count})


def stage_mesh(stages: int, data: int = 1) -> Mesh:
    """``stages`` groups of layers, in each of ``data`` shares of a batch (``recurrence.pipeline``).

    Raises:
      ConfigError: more devices than there are.
    """
    most = jax.device_count()
    if stages < 1 or data < 1 or data * stages > most:
        raise ConfigError(
            f"mesh of {DATA} x {STAGE} = {data} x {stages}: must be of 1 to {most} devices"
        )
    return _mesh({DATA: data, STAGE: stages})


def _mesh(axes: dict[str, int]) -> Mesh:
    shape = tuple(axes.values())
    devices = _first_devices(math.prod(shape))
    # Auto: types of arrays do not carry their sharding; shard_map says it where it matters.
    kinds = (jax.sharding.AxisType.Auto,) * len(shape)
    return jax.make_mesh(shape, tuple(axes), devices=devices, axis_types=kinds)


def _first_devices(count: int) -> list[Any]:
    """As many devices of every process: one without any would have no part of anything."""
    devices = jax.devices()
    share, rest = divmod(count, process_count())
    if rest or process_count() == 1:
        return devices[:count]
    of_process = [[d for d in devices if d.process_index == i] for i in range(process_count())]
    return [device for own in of_process for device in own[:share]]


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, P())


def batched(mesh: Mesh) -> NamedSharding:
    """Leading axis in equal shares."""
    return NamedSharding(mesh, P(DATA))


def staged(mesh: Mesh) -> NamedSharding:
    """Leading axis, of layers, in equal groups: parameters of a pipeline."""
    return NamedSharding(mesh, P(STAGE))
