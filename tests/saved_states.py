"""States to save in a test of checkpoints, and programs to kill while they save."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax.training.checkpoints import Checkpoints, Restored


def make_state(step: int) -> dict[str, Any]:
    return {
        "params": {"w": jnp.arange(512.0) + step, "b": jnp.full((3,), step, jnp.bfloat16)},
        "moments": (jnp.ones((4, 4)) * step, jnp.int32(step)),
    }


def save(folder: Path, steps: dict[int, float | None]) -> None:
    store = Checkpoints(folder)
    for step, score in steps.items():
        store.save(step, make_state(step), {"position": step}, score)


def restore(folder: Path, *args: Any, template: Any = None) -> tuple[Restored | None, list[str]]:
    warnings: list[str] = []
    store = Checkpoints(folder, read_only=True)
    template = make_state(0) if template is None else template
    found = store.restore(template, *args, warn=warnings.append)
    return found, warnings


def assert_is_step(found: Restored | None, step: int) -> None:
    assert found is not None
    assert (found.step, found.meta) == (step, {"position": step})
    jax.tree.map(np.testing.assert_array_equal, found.state, make_state(step))
    assert found.state["params"]["b"].dtype == jnp.bfloat16


def bits(tree: Any) -> list[tuple[str, Any, tuple[int, ...], bytes]]:
    return [
        (jax.tree_util.keystr(path), leaf.dtype, leaf.shape, np.asarray(leaf).tobytes())
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


def run(program: str, *args: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *args],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
