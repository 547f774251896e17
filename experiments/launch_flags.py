"""Flags that say which processes make one run, and joining them."""

from __future__ import annotations

import os

from absl import flags

from armt_jax.config import MeshConfig
from armt_jax.processes import HEARTBEAT_SECONDS, find_launch, start_processes
from armt_jax.processes.launch import AUTO
from armt_jax.sharding import cpu_devices, use_cpu_cores

_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, where several processes are started by hand."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes of the run.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
_CLUSTER = flags.DEFINE_string(
    "cluster", AUTO, "auto; none: a run of its own; or ompi, slurm, mpi4py, gketpu, gcetpu."
)
_HEARTBEAT_SECONDS = flags.DEFINE_integer(
    "heartbeat_seconds",
    HEARTBEAT_SECONDS,
    "All processes end where one was not heard of for so long.",
)


def join(mesh: MeshConfig | None = None) -> None:
    """Make the devices of a CPU and start the other processes, if the flags or a cluster ask.

    Args:
      mesh: of the run; None: every core is a device.
    """
    devices = -1 if mesh is None else cpu_devices(mesh)
    launch = find_launch(
        _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, _CLUSTER.value, os.environ
    )
    if launch is not None and mesh is not None and mesh.data != -1:
        # Rounded up: that the numbers divide is checked, and said, when the mesh is made.
        devices = -1 if launch.num_processes is None else -(-devices // launch.num_processes)
    use_cpu_cores(devices)
    start_processes(launch, _HEARTBEAT_SECONDS.value)
