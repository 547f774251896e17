"""The device mesh of four axes, and how a batch lies on it.

Neighbours in the mesh talk most: ``tensor`` sums in every layer, ``stage`` hands on in every
segment, ``fsdp`` and ``data`` meet once a step. ``data`` first also gives every process rows of
the batch of its own.
"""

from __future__ import annotations

import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from armt_jax.config import ConfigError, MeshConfig, ModelConfig
from armt_jax.processes import process_count

DATA = "data"
FSDP = "fsdp"
STAGE = "stage"
CONTEXT = "context"
TENSOR = "tensor"
# Devices along these axes have different rows of a batch.
BATCH = (DATA, FSDP)


def create_mesh(config: MeshConfig, batch_size: int) -> Mesh:
    """The mesh for batches of ``batch_size`` contexts (of one gradient-accumulation piece).

    Raises:
      ConfigError: more devices than there are, or a number that does not divide the batch, or that
        the processes do not divide: each takes part with as many devices.
    """
    most, processes = jax.device_count(), process_count()
    others = config.fsdp * config.stage * config.tensor
    data = config.data
    if batch_size % processes:
        raise ConfigError(
            f"train.batch_size / train.grad_accum = {batch_size}: must be a multiple of "
            f"{processes}, the number of processes"
        )
    if data == -1:
        shares = range(processes, most // others + 1, processes)
        data = max((n for n in shares if batch_size % (n * config.fsdp) == 0), default=processes)
    if data % processes:
        raise ConfigError(
            f"mesh.data = {data}: must be a multiple of {processes}, the number of processes"
        )
    axes = {DATA: data, FSDP: config.fsdp, STAGE: config.stage, TENSOR: config.tensor}
    if data * others > most:
        wide = {name: size for name, size in axes.items() if size > 1}
        sizes = " x ".join(str(size) for size in wide.values())
        product = f"{sizes} = {data * others}" if len(wide) > 1 else sizes
        raise ConfigError(
            f"mesh.{' x '.join(wide)} = {product}: must be at most {most}, the devices here"
        )
    for names, size in ((DATA, data), (FSDP, config.fsdp), ("data x fsdp", data * config.fsdp)):
        if batch_size % size:
            raise ConfigError(
                f"mesh.{names} = {size}: must divide train.batch_size / train.grad_accum = "
                f"{batch_size}"
            )
    return _mesh(axes)


def check_model(mesh: Mesh, config: ModelConfig) -> None:
    """Refuse a mesh whose axes do not divide what they split of the model.

    Raises:
      ConfigError: one line that names the axis and the size.
    """
    splits = {
        FSDP: {"d_model": config.d_model, "d_ff": config.ff_dim},
        STAGE: {"n_layer": config.n_layer},
        TENSOR: {
            "n_head": config.n_head,
            "n_kv_head": config.kv_heads,
            "d_ff": config.ff_dim,
            "vocab_size": config.vocab_size,
        },
    }
    for axis, fields in splits.items():
        size = axis_size(mesh, axis)
        for field, value in fields.items():
            if value % size:
                raise ConfigError(f"mesh.{axis} = {size}: must divide model.{field} = {value}")


def axis_size(mesh: Mesh, name: str) -> int:
    """Devices along an axis; 1 where the mesh does not have it."""
    return mesh.shape.get(name, 1)


def wide_axes(mesh: Mesh, *names: str) -> tuple[str, ...]:
    """Those of ``names`` along which there is more than one device."""
    return tuple(name for name in names if axis_size(mesh, name) > 1)


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


def context_mesh(devices: int) -> Mesh:
    """``devices`` that share the tokens of every segment of one text (``recurrence.wavefront``).

    Raises:
      ConfigError: more devices than there are.
    """
    most = jax.device_count()
    if not 1 <= devices <= most:
        raise ConfigError(f"mesh.{CONTEXT} = {devices}: must be 1 to {most}, the devices here")
    return _mesh({CONTEXT: devices})


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


def batch_spec(mesh: Mesh) -> P:
    """Leading axis in equal shares, over the axes of ``BATCH`` that the mesh has."""
    names = wide_axes(mesh, *BATCH)
    return P(names[0] if len(names) == 1 else names) if names else P()


def batched(mesh: Mesh) -> NamedSharding:
    """Leading axis in equal shares."""
    return NamedSharding(mesh, batch_spec(mesh))


def staged(mesh: Mesh) -> NamedSharding:
    """Leading axis, of layers, in equal groups: parameters of a pipeline."""
    return NamedSharding(mesh, P(STAGE))
