"""What processes decide together, so that none of them waits for one that has gone another way.

Every process must run the same programs over all devices in the same order. Whatever one process
alone can know (a signal, a full disk, a damaged file) therefore becomes known to all before any of
them acts on it. All of it costs nothing where there is one process.
"""

from __future__ import annotations

import contextlib
import functools
import json
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

# Name of an attribute of exceptions.
_AGREED = "agreed_by_processes"


class ElsewhereError(RuntimeError):
    """Another process failed, and says why; this one has no fault."""


def process_count() -> int:
    """Number of processes of the run; 1, and JAX's devices left alone, where it is the only one."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def process_index() -> int:
    """Number of this process, from 0."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this process writes files and speaks: process 0."""
    return process_index() == 0


def one_step_at_a_time() -> bool:
    """Whether a program must have ended before the next one starts.

    Sums over CPUs of several processes (gloo) hang where two programs are in flight.
    """
    return process_count() > 1 and jax.default_backend() == "cpu"


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What fails inside in one process fails in all: work of each process on its own.

    Nothing inside may run over the devices of other processes: where one process has failed, the
    others would wait there for it.

    Raises:
      ElsewhereError: another process failed and this one did not.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:  # of whatever kind: it is raised again
        failure = error
    if process_count() == 1:
        if failure is not None:
            raise failure
        return
    text = "" if failure is None else f"{type(failure).__name__}: {failure}"
    codes = multihost_utils.process_allgather(np.uint32(zlib.crc32(text.encode())))
    if failure is not None:
        mark_agreed(failure)
        if is_main() or len(set(codes.tolist())) > 1:
            raise failure
        # All say the same, such as an impossible setting: process 0 says it for them.
        raise ElsewhereError("every process failed alike") from failure
    if codes.any():
        first = int(np.flatnonzero(codes)[0])
        raise ElsewhereError(f"process {first} failed")


def is_agreed(error: BaseException) -> bool:
    """Whether every process knows of ``error`` and stops at the same place."""
    return isinstance(error, ElsewhereError) or getattr(error, _AGREED, False)


def mark_agreed(error: Exception, agreed: bool = True) -> Exception:
    """``error``, of which every process knows if ``agreed``."""
    setattr(error, _AGREED, agreed)
    return error


def broadcast(value: Any) -> Any:
    """``value`` (JSON) of process 0, in every process."""
    if process_count() == 1:
        return value
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(content.size)))
    mine = content if is_main() else np.zeros(length, np.uint8)
    return json.loads(multihost_utils.broadcast_one_to_all(mine).tobytes())


class StopVote:
    """Lets a signal that one process received stop all of them after the same step.

    A vote is one number a process and goes over the devices behind the step. Where steps may
    overlap, its result is read one step later, when it is there: nobody waits for it.
    """

    def __init__(self) -> None:
        self._pending: jax.Array | None = None

    def cast(self, received: int | None) -> int | None:
        """The signal after which all stop now, if any; ``received`` is this process's own."""
        if process_count() == 1:
            return received
        sharding, highest = _ballot()
        mine = np.full(jax.local_device_count(), received or 0, np.int32)
        vote = highest(jax.make_array_from_process_local_data(sharding, mine))
        previous, self._pending = self._pending, vote
        if one_step_at_a_time():
            return self.result()
        return None if previous is None else int(previous) or None

    def result(self) -> int | None:
        """The outcome of the last vote."""
        return None if self._pending is None else int(self._pending) or None


def vote_mesh() -> Mesh:
    """All devices of all processes."""
    return Mesh(np.array(jax.devices()), ("vote",))


@functools.cache
def _ballot() -> tuple[NamedSharding, Any]:
    mesh = vote_mesh()
    highest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, P()))
    return NamedSharding(mesh, P("vote")), highest
