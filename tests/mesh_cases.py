"""One small training on any mesh, for the tests that compare meshes with one device."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from armt_jax.config import MeshConfig, ModelConfig
from armt_jax.config.training import OptimizerConfig
from armt_jax.evaluation.scoring import AnswerAtEnd
from armt_jax.models import create_model
from armt_jax.models.armt import ARMT
from armt_jax.sharding import create_mesh
from armt_jax.tasks.associative_retrieval import AssociativeRetrieval, Batch
from armt_jax.tasks.stream import train_stream
from armt_jax.training.optimizer import create_optimizer
from armt_jax.training.state import TrainState, abstract_state
from armt_jax.training.step import jit_train_step
from tests.config_values import VALID

STEPS, BATCH = 10, 8
# At 1e-2 Muon, which gives small singular values of a gradient the size of large ones, turns a last
# digit into 1e-5 within the ten steps; after the first, both optimizers agree to 1e-11.
RATES = {"adamw": 1e-2, "muon": 1e-3}
# Values are compared and no speeds.
QUICK = {"xla_backend_optimization_level": 0}
# Four queries of each context, so that a pipeline asks in more than one piece.
TASK = AssociativeRetrieval(
    "remember", num_pairs=4, key_size=1, value_size=1, num_queries=0, random_num_pairs=True
)
SCORING = AnswerAtEnd(TASK.value_size)


def mesh_of(data: int = 1, fsdp: int = 1, tensor: int = 1, stage: int = 1) -> Mesh:
    return create_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor, stage=stage), BATCH)


@functools.cache
def model_of(backbone: str = "gpt2", **changes: Any) -> ARMT:
    """Every axis of every parameter is even, and no half of one is as long as another's whole."""
    sizes: dict[str, Any] = {
        "n_layer": 2,
        "n_head": 2,
        "d_model": 8,
        "d_ff": 20,
        "d_mem": 4,
        "num_mem_tokens": 2,
        "n_positions": 16,
        "rotary_pct": 0.5,
        "initializer_range": 0.3,
    }
    if backbone == "llama":
        sizes |= {"n_head": 4, "n_kv_head": 2}
    return create_model(ModelConfig(backbone=backbone, **{**sizes, **changes}))


@functools.cache
def optimizer_of(name: str = "adamw") -> Any:
    """With weight decay and a clipping that bites, so that a wrong global norm shows."""
    settings = {**VALID["optimizer"], "name": name, "weight_decay": 1e-2, "clip_threshold": 0.1}
    return create_optimizer(OptimizerConfig(**settings))


def busy_state(backbone: str, optimizer: str, mesh: Mesh | None = None) -> TrainState:
    """A random training state (``W_V`` starts at zero, so a fresh one stores nothing) on ``mesh``.

    Drawn on the host: a compiled initialisation for every mesh would take most of the time.
    """
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = jax.tree_util.keystr(path)
        value = np.zeros(leaf.shape, leaf.dtype)
        if name.startswith(".params"):
            value = (0.3 * rng.normal(size=leaf.shape) + ("scale" in name)).astype(leaf.dtype)
        elif "ns_coeffs" in name:
            value = np.asarray((3.4445, -4.7750, 2.0315), leaf.dtype)
        return jax.device_put(value, leaf.sharding)

    template = abstract_state(model_of(backbone), optimizer_of(optimizer), mesh)
    return jax.tree_util.tree_map_with_path(draw, template)


@functools.cache
def batches() -> list[Batch]:
    stream = train_stream(TASK, 0, BATCH)
    return [next(stream) for _ in range(STEPS)]


@functools.cache
def compiled_step(backbone: str, optimizer: str, mesh: Mesh, pieces: int) -> Any:
    """The step, compiled for float64 or what holds at the first call."""
    step = jit_train_step(model_of(backbone), optimizer_of(optimizer), SCORING, pieces, mesh)
    state = abstract_state(model_of(backbone), optimizer_of(optimizer), mesh)
    lowered = step.lower(state, batches()[0], np.float32(1e-2))
    return lowered.compile(compiler_options=QUICK)


@functools.cache
def train(backbone: str, optimizer: str, mesh: Mesh, pieces: int = 1) -> list[Any]:
    """State and metrics after the first and the last of ten steps, on the host; in float64.

    The moments after the first step are the clipped gradients.
    """
    step = compiled_step(backbone, optimizer, mesh, pieces)
    state, kept = busy_state(backbone, optimizer, mesh), []
    for index, batch in enumerate(batches()):
        rate = np.float32(RATES[optimizer])
        placed = jax.device_put((batch, rate), step.input_shardings[0][1:])
        state, metrics = step(state, *placed)
        if index in (0, STEPS - 1):
            kept.append(jax.device_get((state, metrics)))
    return kept
