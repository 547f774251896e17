"""A CPU as several devices, one a core.

XLA runs the small operations of a segment one after another and splits each over a thread pool,
which leaves cores waiting. One device a core, each with a share of the batch and without a thread
pool of its own, does the same work in two thirds of the time (``BUILD_NOTES.md``).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os

import jax

from armt_jax.config import MeshConfig


def cpu_devices(mesh: MeshConfig) -> int:
    """Devices that ``mesh`` needs of a CPU: with ``data = -1`` as many as there are cores for."""
    others = mesh.fsdp * mesh.tensor * mesh.stage
    data = max(1, available_cores() // others) if mesh.data == -1 else mesh.data
    return data * others


def use_cpu_cores(count: int = -1) -> None:
    """Let JAX see a CPU as ``count`` devices; call it before anything asks JAX for devices.

    Where a plugin for accelerators is installed, or JAX has looked at its devices already, or
    ``NPROC`` is set, everything stays as it is.

    Args:
      count: number of devices; -1: one for each core that this process may use.
    """
    if _accelerator_plugin() or "NPROC" in os.environ:
        return
    count = available_cores() if count == -1 else count
    if count < 2:
        return
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # the devices are there already
        return
    # What XLA sizes its thread pools by; it has no flag for them.
    os.environ["NPROC"] = "1"


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _accelerator_plugin() -> bool:
    if importlib.util.find_spec("libtpu") is not None:
        return True
    return bool(importlib.metadata.entry_points(group="jax_plugins"))
