"""Memory in chosen layers only: the others store nothing and recall nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax.config import ConfigError, MeshConfig, ModelConfig, OptimizerConfig
from armt_jax.evaluation.scoring import AnswerAtEnd
from armt_jax.interop import load_official
from armt_jax.interop.official import to_official
from armt_jax.models import create_model, state_size
from armt_jax.models.frozen import without_frozen
from armt_jax.recurrence import forward
from armt_jax.sharding import create_mesh
from armt_jax.tasks.associative_retrieval import AssociativeRetrieval
from armt_jax.tasks.stream import train_stream
from armt_jax.training.optimizer import apply_updates, create_optimizer
from armt_jax.training.state import create_state
from armt_jax.training.step import jit_train_step
from benchmarks.flops import context_flops, memory_flops
from tests.config_values import VALID

CONFIG = ModelConfig(
    n_layer=3,
    n_head=2,
    d_model=8,
    d_ff=16,
    d_mem=2,
    num_mem_tokens=2,
    n_positions=16,
    initializer_range=0.3,
    memory_layers=(1,),
)
TASK = AssociativeRetrieval("remember", 3, 1, 1, 0, False)


def value_matrices(params: Any) -> np.ndarray:
    return np.asarray(params["layers"]["memory"]["W_mv"]["kernel"])


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_updates_leave_the_values_of_the_other_layers_at_zero(name: str) -> None:
    """With decay, momentum and gradients everywhere, as without the mask they would be."""
    optimizer = create_optimizer(OptimizerConfig(**{**VALID["optimizer"], "name": name}))
    params = {"layers": {"memory": {"W_mv": {"kernel": jnp.zeros((3, 4, 4))}}}}
    state, rng = optimizer.init(params), np.random.default_rng(0)
    for _ in range(2):
        grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), params)
        updates, state = optimizer.update(without_frozen(CONFIG, grads), state, params)
        params = apply_updates(params, updates, jnp.float32(0.1))
    W_V = value_matrices(params)
    assert not W_V[[0, 2]].any()
    assert W_V[1].all()


@pytest.mark.slow
def test_only_the_chosen_layers_learn_to_store() -> None:
    model = create_model(CONFIG)
    settings = {**VALID["optimizer"], "name": "muon", "weight_decay": 0.1}
    optimizer = create_optimizer(OptimizerConfig(**settings))
    mesh = create_mesh(MeshConfig(data=1, fsdp=1, tensor=1, stage=1), 1)
    step = jit_train_step(model, optimizer, AnswerAtEnd(1), 1, mesh)
    state = create_state(model, optimizer, 0, mesh)
    before = jax.device_get(state.params)
    stream = train_stream(TASK, 0, 4)
    for _ in range(2):
        state, _ = step(state, next(stream), np.float32(1e-2))
    stream.close()
    after = jax.device_get(state.params)
    W_V = value_matrices(after)
    assert not W_V[[0, 2]].any()
    assert W_V[1].any()
    # What is not the memory's is learnt in every layer.
    kernel = [tree["layers"]["block"]["mlp"]["c_fc"]["kernel"] for tree in (before, after)]
    assert all((kernel[0][layer] != kernel[1][layer]).any() for layer in range(3))
    tokens = jnp.asarray(np.arange(15)[None] % 16, jnp.int32)
    out = forward(model, state.params, tokens, segment_size=5)
    A = np.asarray(out.state.A)
    assert not A[[0, 2]].any()
    assert A[1].any()


def noisy_params(config: ModelConfig) -> Any:
    shapes = jax.eval_shape(create_model(config).init, jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: (0.3 * rng.normal(size=x.shape)).astype(x.dtype), shapes)


@pytest.mark.parametrize(
    "rule", ["armt", *(pytest.param(rule, marks=pytest.mark.slow) for rule in ("delta", "linear"))]
)
def test_a_layer_whose_values_are_zero_is_one_without_memory(rule: str) -> None:
    """Whatever keys, queries and gates it has: exactly the same numbers."""
    config = dataclasses.replace(CONFIG, rule=rule, memory_layers=())
    model, params = create_model(config), noisy_params(config)
    memory = params["layers"]["memory"]
    outside = np.array([1, 0, 1], np.float32)
    kernel = memory["W_mv"]["kernel"] * (1 - outside[:, None, None])
    memory = {**memory, "W_mv": {"kernel": kernel}}
    zeroed = {**params, "layers": {**params["layers"], "memory": memory}}
    other = jax.tree.map(lambda x: x + outside.reshape(-1, *[1] * (x.ndim - 1)), memory)
    other = {**other, "W_mv": memory["W_mv"]}
    moved = {**params, "layers": {**params["layers"], "memory": other}}
    tokens = jnp.asarray(np.arange(15)[None] % 16, jnp.int32)
    logits = [
        np.asarray(forward(model, p, tokens, segment_size=5).logits)
        for p in (zeroed, moved, params)
    ]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert np.abs(logits[0] - logits[2]).max() > 1e-3


def test_gradients_of_all_but_the_values_stay() -> None:
    params = noisy_params(CONFIG)
    masked = without_frozen(CONFIG, params)
    assert not value_matrices(masked)[[0, 2]].any()
    same = jax.tree.map(lambda a, b: bool((a == np.asarray(b)).all()), params, masked)
    leaves = jax.tree_util.tree_leaves_with_path(same)
    flat = {jax.tree_util.keystr(path): ok for path, ok in leaves}
    assert [name for name, ok in flat.items() if not ok] == [
        "['layers']['memory']['W_mv']['kernel']"
    ]


def test_state_and_operations_are_those_of_the_chosen_layers() -> None:
    whole = dataclasses.replace(CONFIG, memory_layers=())
    assert 3 * state_size(create_model(CONFIG)) == state_size(create_model(whole))
    saved = context_flops(whole, 5) - context_flops(CONFIG, 5)
    assert saved == pytest.approx(2 * memory_flops(CONFIG, 7, 2))


def test_parameters_with_more_memories_are_refused() -> None:
    whole = dataclasses.replace(CONFIG, memory_layers=())
    names = to_official(noisy_params(whole), whole)
    with pytest.raises(
        ConfigError, match=r"memory_layers = \(1,\): these parameters have a memory"
    ):
        load_official(names, CONFIG)
    load_official(names, whole)


@pytest.mark.parametrize("layers", [(3,), (-1,), (1, 0), (1, 1)])
def test_impossible_layers_are_refused(layers: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"model.memory_layers = .*: must be rising numbers"):
        dataclasses.replace(CONFIG, memory_layers=layers)
    with pytest.raises(ConfigError, match="empty but for ARMT"):
        dataclasses.replace(CONFIG, family="rmt")


def test_a_list_read_from_json_is_the_same_configuration() -> None:
    assert dataclasses.replace(CONFIG, memory_layers=[1]) == CONFIG  # pyright: ignore
    assert hash(dataclasses.replace(CONFIG, memory_layers=[1])) == hash(CONFIG)  # pyright: ignore
    assert CONFIG.memory_rule == "armt_layers_1"
