"""Starting ``jax.distributed``, and ending in good order or at once.

Where a process dies, those that wait for it in a sum over devices would wait for ever. A
``Lifeline`` ends them at once, or else JAX's coordination service, which runs in process 0, misses
its heartbeats and ends every process (``BUILD_NOTES.md``, "Many hosts").
"""

from __future__ import annotations

import collections
import os
import socket
import sys
import time

import jax
from jax.experimental import multihost_utils

from armt_jax.config import ConfigError
from armt_jax.processes.connect import connect
from armt_jax.processes.launch import Launch
from armt_jax.processes.lifeline import Lifeline
from armt_jax.processes.together import process_count, vote_mesh

HEARTBEAT_SECONDS = 60
START_SECONDS = 300
_SHUTDOWN_SECONDS = 30
_GRACE_SECONDS = 3

_lifelines: list[Lifeline] = []  # one, while processes are joined


def start_processes(
    launch: Launch | None,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
    start_seconds: int = START_SECONDS,
) -> None:
    """Join the other processes; call it before anything asks JAX for devices.

    Args:
      launch: as ``find_launch`` gives it; None: nothing is done.
      heartbeat_seconds: a process that was not heard of for this long is dead, and all end.
      start_seconds: how long the processes wait for each other at the start.

    Raises:
      ConfigError: they cannot find each other, or have unequal numbers of devices.
    """
    if launch is None:
        return
    if heartbeat_seconds < 1:
        raise ConfigError(f"--heartbeat_seconds = {heartbeat_seconds}: must be at least 1")
    # JAX's own default today; without it a CPU has no sums over processes.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM for itself, from now on and until the training watches for it.
    jax.config.update("jax_enable_preemption_service", False)
    if launch.coordinator is not None:
        _check_coordinator(launch.coordinator, launch.process_id == 0, start_seconds)
    try:
        jax.distributed.initialize(
            coordinator_address=launch.coordinator,
            num_processes=launch.num_processes,
            process_id=launch.process_id,
            cluster_detection_method=launch.method,
            initialization_timeout=start_seconds,
            heartbeat_timeout_seconds=heartbeat_seconds,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError, OSError) as error:
        lines = str(error).strip().splitlines()
        raise ConfigError(
            f"the processes cannot be started ({lines[0] if lines else type(error).__name__}); "
            "--coordinator, --num_processes and --process_id say what JAX cannot find"
        ) from error
    _check_devices()
    connect(vote_mesh())
    host = None if launch.coordinator is None else launch.coordinator.rpartition(":")[0]
    _lifelines.append(Lifeline(host))


def give_way() -> None:
    """Wait a moment after a failure of this process alone, where there are others.

    Where it failed because another one is gone, such as with a broken connection in a sum, its
    ``Lifeline`` says so and ends this process meanwhile.
    """
    if _lifelines:
        time.sleep(_GRACE_SECONDS)


def end_processes(code: int, agreed: bool) -> None:
    """Leave the other processes, if there are any.

    Args:
      code: exit code of this process, which ends here if it has failed alone: leaving in order
        would wait for the others, and they for this one.
      agreed: whether all processes end now (``is_agreed``).
    """
    if process_count() == 1:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    if not agreed:
        os._exit(code)
    while _lifelines:
        _lifelines.pop().release()
    multihost_utils.sync_global_devices("end")  # the first process may still be writing figures
    jax.distributed.shutdown()


def _check_coordinator(address: str, here: bool, seconds: int) -> None:
    """Say in a line what JAX, which ends the process itself, says in a stack of addresses."""
    host, _, port = address.rpartition(":")
    if here:
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise ConfigError(
                f"--coordinator = {address!r}: the port must be free on the machine of process 0 "
                f"({error.strerror})"
            ) from error
        return
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise ConfigError(
                    f"--coordinator = {address!r}: must be the address of process 0, which did "
                    f"not answer within {seconds} s ({error.strerror or error})"
                ) from error
            time.sleep(0.1)


def _check_devices() -> None:
    counts = collections.Counter(device.process_index for device in jax.devices())
    if len(counts) != process_count() or len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} in process {index}" for index, count in counts.items())
        raise ConfigError(f"devices = {listed}: every process must have as many as the others")
