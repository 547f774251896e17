"""Several processes, on one machine or many, that are one run."""

from armt_jax.processes.arrays import global_batch, local_copy, on_mesh, share_of
from armt_jax.processes.connect import connect
from armt_jax.processes.launch import Launch, find_launch
from armt_jax.processes.lifeline import Lifeline
from armt_jax.processes.start import HEARTBEAT_SECONDS, end_processes, give_way, start_processes
from armt_jax.processes.together import (
    ElsewhereError,
    StopVote,
    broadcast,
    is_agreed,
    is_main,
    mark_agreed,
    one_step_at_a_time,
    process_count,
    process_index,
    together,
)

__all__ = [
    "HEARTBEAT_SECONDS",
    "ElsewhereError",
    "Launch",
    "Lifeline",
    "StopVote",
    "broadcast",
    "connect",
    "end_processes",
    "find_launch",
    "give_way",
    "global_batch",
    "is_agreed",
    "is_main",
    "local_copy",
    "mark_agreed",
    "on_mesh",
    "one_step_at_a_time",
    "process_count",
    "process_index",
    "share_of",
    "start_processes",
    "together",
]
