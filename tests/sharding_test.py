"""Several devices do what one does: the training step, the evaluation, the refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

from armt_jax.config import ConfigError, MeshConfig
from armt_jax.evaluation.evaluate import Evaluator
from armt_jax.evaluation.scoring import AnswerAtEnd
from armt_jax.sharding import create_mesh
from armt_jax.training.state import TrainState, abstract_state, create_state
from armt_jax.training.step import jit_train_step
from tests.small_models import assert_close
from tests.step_test import MODEL, OPTIMIZER, TASK, busy_params, draw_batch


def _mesh(devices: int) -> jax.sharding.Mesh:
    return create_mesh(MeshConfig(data=devices, fsdp=1, tensor=1, stage=1), devices)


def _train(devices: int, grad_accum: int = 1, steps: int = 3) -> tuple[TrainState, Any]:
    mesh = _mesh(devices)
    step = jit_train_step(MODEL, OPTIMIZER, AnswerAtEnd(TASK.value_size), grad_accum, mesh)
    params = busy_params()
    state = create_state(MODEL, OPTIMIZER, 0, mesh)
    state = state._replace(params=jax.device_put(params, state.step.sharding))
    metrics = None
    for index in range(steps):
        state, metrics = step(state, draw_batch(8, seed=index), np.float32(1e-2))
    return jax.device_get(state), jax.device_get(metrics)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("devices", "grad_accum"),
    [pytest.param(n, m, marks=pytest.mark.slow) for n, m in ((4, 1), (2, 2))],
)
def test_devices_train_as_one(devices: int, grad_accum: int) -> None:
    """Shares of the batch have unequal numbers of queries, so a mean of means would differ."""
    state, metrics = _train(devices, grad_accum)
    expected_state, expected_metrics = _train(1)
    assert_close(metrics, expected_metrics, 1e-9)
    assert_close(state, expected_state, 1e-9)


def test_parameters_lie_on_every_device_and_the_batch_in_shares() -> None:
    mesh = _mesh(4)
    state = create_state(MODEL, OPTIMIZER, 0, mesh)
    template = abstract_state(MODEL, OPTIMIZER, mesh)
    for leaf, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(template), strict=True):
        assert leaf.sharding == wanted.sharding
        assert leaf.sharding.is_fully_replicated
        assert len(leaf.sharding.device_set) == 4
    step = jit_train_step(MODEL, OPTIMIZER, AnswerAtEnd(TASK.value_size), 1, mesh)
    program = step.lower(state, draw_batch(8), np.float32(1e-2)).compile()
    batch = program.input_shardings[0][1]
    assert all(sharding.shard_shape((8, 4, 5)) == (2, 4, 5) for sharding in jax.tree.leaves(batch))


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_evaluation_on_devices_that_do_not_divide_the_batch(devices: int) -> None:
    params, samples = busy_params(), draw_batch(14)
    scored = [
        Evaluator(MODEL, AnswerAtEnd(TASK.value_size), batch_size, _mesh(count))(params, samples)
        for batch_size, count in ((14, 1), (4, devices))
    ]
    assert scored[0] == scored[1]
    assert 0 < scored[0][1] == samples.query_mask.sum()


def test_mesh_takes_as_many_devices_as_divide_the_batch() -> None:
    assert jax.device_count() == 8
    sizes = {batch: create_mesh(MeshConfig(-1, 1, 1, 1), batch).size for batch in (1, 6, 7, 12, 64)}
    assert sizes == {1: 1, 6: 6, 7: 7, 12: 6, 64: 8}


def test_meshes_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"^mesh\.data = 9: must be at most 8, the devices here$"):
        create_mesh(MeshConfig(9, 1, 1, 1), 9)
    with pytest.raises(ConfigError, match=r"^mesh\.data = 4: must divide .* = 6$"):
        create_mesh(MeshConfig(4, 1, 1, 1), 6)
    with pytest.raises(ConfigError, match=r"^mesh\.data = 0: must be at least 1, or -1"):
        MeshConfig(0, 1, 1, 1)


_COUNT = """
import os, jax
from armt_jax.sharding import use_cpu_cores
{before}
use_cpu_cores({count})
print(jax.device_count(), os.environ.get("NPROC"))
"""


@pytest.mark.parametrize(
    ("before", "count", "printed"),
    [
        ("", "3", "3 1"),
        ("", "1", "1 None"),
        ("jax.devices()", "3", "1 None"),
        ("os.environ['NPROC'] = '2'", "3", "1 2"),
    ],
)
def test_cpu_cores_become_devices(before: str, count: str, printed: str) -> None:
    """In a process of its own: devices are counted once."""
    environment = {key: value for key, value in os.environ.items() if key != "NPROC"}
    environment["JAX_PLATFORMS"] = "cpu"
    script = _COUNT.format(before=before, count=count)
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == printed, result.stderr
