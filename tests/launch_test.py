"""Which processes make one run: flags, launchers' variables, and nothing on one machine alone."""

from __future__ import annotations

import importlib.util
import socket

import pytest

from armt_jax.config import ConfigError
from armt_jax.processes import Launch, find_launch, process_count, start_processes
from armt_jax.processes import launch as launch_module

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
OPEN_MPI_5 = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
OPEN_MPI_4 = {**OPEN_MPI_5, "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:3"}
MPICH = {"PMI_SIZE": "3", "PMI_RANK": "2"}
BY_NAME = {
    "JAX_COORDINATOR_ADDRESS": "node1:1234",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
}


@pytest.fixture(autouse=True)
def no_tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_module.glob, "glob", lambda pattern: [])


def find(
    environ: dict[str, str],
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    cluster: str = "auto",
) -> Launch | None:
    return find_launch(coordinator, num_processes, process_id, cluster, environ)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {**SLURM, "SLURM_NTASKS": "1"},
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1"},  # one task of an allocation of four
        {k: v for k, v in SLURM.items() if k != "SLURM_STEP_NODELIST"},  # not within srun
        {**OPEN_MPI_4, "OMPI_COMM_WORLD_SIZE": "1"},
        {"PMI_SIZE": "1", "PMI_RANK": "0"},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    ],
)
def test_alone_where_nothing_says_otherwise(environ: dict[str, str]) -> None:
    assert find(environ) is None


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        (SLURM, Launch(num_processes=4, method="slurm")),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "2"}, Launch(num_processes=2, method="slurm")),
        (OPEN_MPI_4, Launch(num_processes=2, method="ompi")),
        ({**SLURM, **OPEN_MPI_4}, Launch(num_processes=2, method="ompi")),  # mpirun in a job
        (BY_NAME, Launch("node1:1234", 2, 1, "deactivate")),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, Launch()),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "a"}, Launch()),
    ],
)
def test_clusters_are_found(environ: dict[str, str], found: Launch) -> None:
    assert find(environ) == found
    assert find(environ, cluster="none") is None


def test_a_tpu_machine_and_a_kubernetes_job_are_left_to_jax(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}
    there = {"kubernetes", "libtpu"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in there or None)
    assert find(job) == Launch()
    assert find({}) is None  # the library alone makes no TPU
    monkeypatch.setattr(launch_module.glob, "glob", lambda pattern: [pattern])
    assert find({}) == Launch()
    assert find({"TPU_SKIP_MDS_QUERY": "1"}) is None
    there.clear()
    assert find(job) is None


def test_what_flags_leave_out_is_read_from_the_launcher() -> None:
    told = Launch("a:1", 2, 1, "deactivate")
    assert find({}, "a:1", 2, 1) == told
    assert find(OPEN_MPI_5, "a:1") == told
    assert find({**MPICH, "JAX_COORDINATOR_ADDRESS": "a:1"}) == Launch("a:1", 3, 2, "deactivate")
    assert find({**SLURM, "SLURM_STEP_NUM_TASKS": "4"}, "[::1]:80") == Launch(
        "[::1]:80", 4, 3, "deactivate"
    )
    assert find(BY_NAME, process_id=0) == Launch("node1:1234", 2, 0, "deactivate")
    assert find({}, "a:1", 1, 0) is None
    assert find({}, cluster="mpi4py") == Launch(method="mpi4py")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"cluster": "lsf"}, "--cluster = 'lsf': must be one of auto, none, ompi, slurm, mpi4py, "),
        ({"cluster": "none", "process_id": 0}, "--cluster = 'none': cannot be given beside"),
        ({"num_processes": 2, "process_id": 0}, "--coordinator is missing: --coordinator, "),
        ({"coordinator": "a:1", "num_processes": 2}, "--process_id is missing"),
        ({"coordinator": "a:1"}, "--num_processes is missing"),
        ({"coordinator": "a", "num_processes": 2, "process_id": 0}, "--coordinator = 'a': must be"),
        ({"coordinator": "a:99999", "num_processes": 2, "process_id": 0}, "--coordinator = 'a:999"),
        ({"coordinator": "a:1", "num_processes": 0, "process_id": 0}, "--num_processes = 0: must"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "--process_id = 2: must be"),
        ({"environ": OPEN_MPI_5}, "--coordinator is missing: MPI started 2 processes and does not"),
        ({"environ": MPICH}, "--coordinator is missing: MPI started 3 processes and does not"),
        ({"environ": {**SLURM, "SLURM_NTASKS": "x"}}, "SLURM_NTASKS = 'x': must be a number"),
    ],
)
def test_impossible_launches_are_one_line(settings: dict, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find(**{"environ": {}, **settings})
    assert str(caught.value).startswith(line)


def test_alone_nothing_is_started() -> None:
    start_processes(None)
    assert process_count() == 1


def test_a_coordinator_that_cannot_be_is_named_before_jax_starts() -> None:
    with socket.create_server(("", 0)) as server:
        taken = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"the port must be free .*\(Address already in use"):
            start_processes(Launch(taken, 2, 0, "deactivate"))
    with pytest.raises(ConfigError, match=rf"'{taken}': must be the address .* within 0 s"):
        start_processes(Launch(taken, 2, 1, "deactivate"), start_seconds=0)
    with pytest.raises(ConfigError, match=r"^--heartbeat_seconds = 0: must be at least 1$"):
        start_processes(Launch(taken, 2, 1, "deactivate"), heartbeat_seconds=0)
