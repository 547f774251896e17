"""Which processes make one run: what flags, the environment and JAX's own detection say.

JAX finds the coordinator in a SLURM step, under Open MPI 4, on TPU pods and in Kubernetes jobs. It
does so too where one task runs alone, which then waits on a network it does not need, and it knows
nothing of Open MPI 5 and MPICH. So the environment is looked at first: one process is never a run
of several, and processes that cannot find each other are told so, instead of each training alone.
"""

from __future__ import annotations

import dataclasses
import glob
import importlib.util
from collections.abc import Mapping

from armt_jax.config import ConfigError

AUTO, NONE = "auto", "none"
# Names that ``jax.distributed.initialize(cluster_detection_method=...)`` takes.
METHODS = ("ompi", "slurm", "mpi4py", "gketpu", "gcetpu")
_TOLD = "deactivate"

_COORDINATOR = "JAX_COORDINATOR_ADDRESS"
# Number of processes and number of this one, as launchers call them.
_RANKS = (
    ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)
_MPI = _RANKS[1:3]
_OPEN_MPI_4 = "OMPI_MCA_orte_hnp_uri"
# What JAX wants to see before it takes a process for a task of a SLURM step.
_SLURM_STEP = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_LOCALID")


@dataclasses.dataclass(frozen=True)
class Launch:
    """How the processes of a run find each other; what is None, JAX finds.

    Attributes:
      coordinator: ``host:port`` of process 0.
      num_processes: at least 2 where it is known.
      process_id: of this process.
      method: JAX's name for the cluster, ``deactivate`` where nothing is to be found.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    method: str | None = None


def find_launch(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    cluster: str,
    environ: Mapping[str, str],
) -> Launch | None:
    """The launch that flags and environment describe, None where this process runs alone.

    Args:
      coordinator, num_processes, process_id: flags, None where not given. What is missing beside a
        given one is read from ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and
        ``JAX_PROCESS_ID``, the two numbers also from MPI's and SLURM's variables.
      cluster: ``auto``, ``none`` (always alone), or one of ``METHODS``.
      environ: the environment.

    Raises:
      ConfigError: settings that are impossible, contradict or lack one another.
    """
    if cluster not in (AUTO, NONE, *METHODS):
        raise ConfigError(
            f"--cluster = {cluster!r}: must be one of {', '.join((AUTO, NONE, *METHODS))}"
        )
    given = [x for x in (coordinator, num_processes, process_id) if x is not None]
    if given and cluster != AUTO:
        raise ConfigError(
            f"--cluster = {cluster!r}: cannot be given beside --coordinator, --num_processes or "
            "--process_id, which say the same"
        )
    if cluster == NONE:
        return None
    if cluster != AUTO:
        return Launch(method=cluster)
    if given or any(environ.get(name) for name in (_COORDINATOR, *_RANKS[0])):
        return _told(coordinator or environ.get(_COORDINATOR), num_processes, process_id, environ)
    return _detected(environ)


def _told(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    environ: Mapping[str, str],
) -> Launch | None:
    for size, rank in _RANKS:
        if num_processes is None or process_id is None:
            num_processes = _number(environ, size) if num_processes is None else num_processes
            process_id = _number(environ, rank) if process_id is None else process_id
    flags = {
        "--coordinator": coordinator,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    for name, value in flags.items():
        if value is None:
            raise ConfigError(f"{name} is missing: {', '.join(flags)} must be given together")
    assert coordinator is not None  # said above, for every one of them
    assert num_processes is not None
    assert process_id is not None
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(
            f"--coordinator = {coordinator!r}: must be HOST:PORT of process 0, such as node1:12345"
        )
    if num_processes < 1:
        raise ConfigError(f"--num_processes = {num_processes}: must be at least 1")
    if not 0 <= process_id < num_processes:
        raise ConfigError(f"--process_id = {process_id}: must be in [0, {num_processes})")
    if num_processes == 1:
        return None
    return Launch(coordinator, num_processes, process_id, _TOLD)


def _detected(environ: Mapping[str, str]) -> Launch | None:
    for size, _ in _MPI:
        count = _number(environ, size)
        if count is not None and count > 1:
            if _OPEN_MPI_4 in environ:
                return Launch(num_processes=count, method="ompi")
            raise ConfigError(
                f"--coordinator is missing: MPI started {count} processes and does not say where "
                "process 0 is; must be HOST:PORT of it (or --cluster=mpi4py, where mpi4py is "
                "installed, or --cluster=none for runs of their own)"
            )
    if all(name in environ for name in _SLURM_STEP):
        # Of the step: an allocation of four tasks may well run one.
        tasks = _number(environ, "SLURM_STEP_NUM_TASKS") or _number(environ, "SLURM_NTASKS") or 1
        return Launch(num_processes=tasks, method="slurm") if tasks > 1 else None
    if _on_tpu_pod(environ) or _in_kubernetes_job(environ):
        return Launch()
    return None


def _on_tpu_pod(environ: Mapping[str, str]) -> bool:
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    if "MEGASCALE_COORDINATOR_ADDRESS" in environ:
        return True
    if hosts is not None:
        return "," in hosts
    # A TPU VM of Compute Engine: only its metadata server knows how many there are. JAX asks it.
    if importlib.util.find_spec("libtpu") is None or "TPU_SKIP_MDS_QUERY" in environ:
        return False
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))


def _in_kubernetes_job(environ: Mapping[str, str]) -> bool:
    return (
        "KUBERNETES_SERVICE_HOST" in environ
        and "JOB_COMPLETION_INDEX" in environ
        and importlib.util.find_spec("kubernetes") is not None
    )


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not text.strip().isdecimal():
        raise ConfigError(f"{name} = {text!r}: must be a number")
    return int(text)
