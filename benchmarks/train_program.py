"""One training step as a program that is compiled once and run again and again."""

from __future__ import annotations

import time

import jax
import numpy as np

from armt_jax.config import MeshConfig, OptimizerConfig
from armt_jax.evaluation.scoring import AnswerAtEnd
from armt_jax.host_memory import release_freed_memory
from armt_jax.models import create_model
from armt_jax.sharding import batched, create_mesh
from armt_jax.training.optimizer import create_optimizer
from armt_jax.training.state import TrainState, create_state
from armt_jax.training.step import jit_train_step
from benchmarks.train_sizes import TrainSize

OPTIMIZER = OptimizerConfig(
    name="adamw",
    learning_rate=3e-4,
    muon_learning_rate=3e-4,
    weight_decay=1e-3,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    warmup_steps=0,
    schedule="constant",
    scope="run",
    final_fraction=1.0,
    reset_per_stage=False,
    clip="value",
    clip_threshold=1.0,
)
# The second step still takes memory from the system, since the first one's buffers are its input.
# For GPT-2 small that was 23 seconds, and 9 for every later step.
WARM_UP = 2


class TrainProgram:
    """AdamW on one batch, which all devices share.

    Attributes:
      compile_seconds: of lowering and compiling.
    """

    def __init__(self, size: TrainSize) -> None:
        model, optimizer = create_model(size.config), create_optimizer(OPTIMIZER)
        mesh = create_mesh(MeshConfig(data=-1, fsdp=1, tensor=1, stage=1), len(size.batch.context))
        self._state = create_state(model, optimizer, 0, mesh)
        self._batch = jax.device_put(size.batch, batched(mesh))
        self._rate = np.float32(OPTIMIZER.learning_rate)
        step = jit_train_step(model, optimizer, AnswerAtEnd(size.value_size), 1, mesh)
        started = time.perf_counter()
        self._step = step.lower(self._state, self._batch, self._rate).compile()
        self.compile_seconds = time.perf_counter() - started
        release_freed_memory()

    def run(self) -> TrainState:
        """One step; the parameters it leaves are those of the next."""
        self._state, _ = self._step(self._state, self._batch, self._rate)
        return self._state

    def warm_up(self) -> None:
        """The steps that are not to be timed."""
        for _ in range(WARM_UP):
            state = self.run()
        jax.block_until_ready(state)
