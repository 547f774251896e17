"""The pipeline over simulated devices against the sequential schedule, and what moves in it."""

from __future__ import annotations

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import armt_jax
from armt_jax import ConfigError
from armt_jax.models import ARMT, Params, Segment
from armt_jax.sharding import DATA, STAGE, data_mesh, stage_mesh, staged
from tests.layerwise_cases import (
    B,
    Case,
    S,
    T,
    assert_gradients_mean_something,
    fragile_gradients,
    kept_for_backward,
    resets,
    scans,
)
from tests.small_models import assert_close, small_model


@pytest.mark.usefixtures("x64")
def test_pipeline_equals_diagonal() -> None:
    """Two stages of two layers, in each of two shares of the batch.

    That the diagonal equals the sequential schedule is tested beside it, and compiles faster.
    """
    case = Case(small_model(n_layer=4), resets())
    found = case.gradients("pipeline", mesh=stage_mesh(2, data=2))(1.0)
    assert_close(found, case.gradients("diagonal")(1.0), 1e-10)
    assert_gradients_mean_something(found[1])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_pipeline_without_hidden_states_with_remat_for_the_other_backbone() -> None:
    """Three stages of one layer, all of the batch in each."""
    case = Case(small_model(n_layer=3, backbone="gpt_neox", rule="delta"), resets())
    options = {"need_hidden": False, "remat": "segment"}
    found = case.gradients("pipeline", mesh=stage_mesh(3), **options)(1.0)
    assert_close(found, case.gradients("diagonal", **options)(1.0), 1e-10)
    assert found[0][1][1] is None


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("backbone", ["gpt2", "gpt_neox"])
def test_pipeline_equals_sequential(backbone: str) -> None:
    case = Case(small_model(n_layer=4, backbone=backbone), resets())
    found = case.gradients("pipeline", mesh=stage_mesh(2, data=2))(1.0)
    assert_close(found, case.gradients("sequential")(1.0), 1e-10)


def test_values_in_float32() -> None:
    """Of a rule that divides by nothing: rounding stays rounding over the segments."""
    case = Case(small_model(rule="delta"))
    found = case.values("pipeline", mesh=stage_mesh(2, data=4))
    assert_close(found, case.values("sequential"), 1e-5)


@pytest.mark.slow
def test_gradients_in_float32() -> None:
    case = Case(small_model(rule="delta"), resets())
    found = case.gradients("pipeline", mesh=stage_mesh(2, data=2))(1.0)
    assert_close(found, case.gradients("sequential")(1.0), 1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("stages", [1, 8])
def test_one_stage_and_as_many_as_devices(stages: int) -> None:
    """Eight stages and five segments: no step in which all of them work."""
    case = Case(small_model(n_layer=8), resets())
    found = case.gradients("pipeline", mesh=stage_mesh(stages))(1.0)
    assert_close(found, case.gradients("sequential")(1.0), 1e-10)


@pytest.mark.usefixtures("x64")
def test_nothing_of_a_dead_stage_is_seen() -> None:
    found = fragile_gradients("pipeline", 4, mesh=stage_mesh(4))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))
    assert_close(found, fragile_gradients("sequential", 4), 1e-10)


def test_steps_are_segments_and_stages() -> None:
    """Efficiency S / (S + stages - 1); the scans inside are over the layers of a stage."""
    case = Case(small_model(n_layer=4))
    run = functools.partial(case.read, schedule="pipeline", mesh=stage_mesh(2))
    program = jax.make_jaxpr(run)(case.params, case.state.A, case.state.z)
    assert [scan.params["length"] for scan in scans(program.jaxpr)] == [S + 2 - 1, 2]


def test_with_remat_only_what_goes_from_step_to_step_is_kept() -> None:
    model = small_model()
    options = {"mesh": stage_mesh(2), "remat": "segment"}
    kept = kept_for_backward(model, S + 1, "pipeline", **options)
    travelling = (B, T + model.config.num_mem_tokens, model.config.d_model)
    memories = {(1, *leaf.shape[1:]) for leaf in jax.tree.leaves(model.init_state(B))}
    assert set(kept) == {travelling} | memories


def _collectives(program: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Kind and shape of everything that a compiled program sends between devices."""
    kinds = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
    kinds += "|collective-broadcast|ragged-all-to-all"
    found = []
    for result, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", program.as_text()):
        for shape in re.findall(r"\w+\[([\d,]*)\]", result):
            found.append((kind, tuple(int(size) for size in shape.split(",") if size)))
    return found


def test_only_activations_leave_a_device() -> None:
    """And in the backward pass their cotangents, and the sum of the embeddings' gradients."""
    mesh = jax.make_mesh((2,), (STAGE,), axis_types=(jax.sharding.AxisType.Auto,))
    case = Case(small_model(), resets())
    cfg = case.model.config

    def place(leaf: Any, spec: P) -> jax.Array:
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    params: Params = jax.tree.map(lambda leaf: place(leaf, P()), case.params)
    params["layers"] = jax.device_put(case.params["layers"], staged(mesh))
    A, z = (place(leaf, P(STAGE)) for leaf in case.state[:2])

    def loss(params: Params, A: jax.Array, z: jax.Array) -> Any:
        after, _ = case.read(params, A, z, "pipeline", mesh=mesh, need_hidden=False)
        return jnp.sum(after.A), after

    program = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True)).lower(params, A, z).compile()
    (d_params, d_A, d_z), after = program(params, A, z)
    for leaf in jax.tree.leaves((d_params["layers"], d_A, d_z, after)):
        local = leaf.sharding.shard_shape(leaf.shape)
        assert local == (1, *leaf.shape[1:])
    sent = _collectives(program)
    activations = (B, T + cfg.num_mem_tokens, cfg.d_model)
    assert {shape for kind, shape in sent if kind == "collective-permute"} == {activations}
    assert sum(kind == "collective-permute" for kind, _ in sent) == 2
    others = {item for item in sent if item[0] != "collective-permute"}
    embeddings = {leaf.shape for leaf in jax.tree.leaves(params["embed"])}
    # The loss itself is a sum over stages.
    assert others <= {("all-reduce", shape) for shape in embeddings | {()}}
    assert others


def _read(model: ARMT, mesh: Any, batch: int = B) -> Any:
    text = Segment(jnp.zeros((2, batch, T), jnp.int32), jnp.ones((2, batch, T)) > 0)
    state = model.init_state(batch)
    return armt_jax.run_segments(model, None, state, text, schedule="pipeline", mesh=mesh)


def test_what_cannot_be_is_refused() -> None:
    refused = [
        (
            lambda: _read(small_model(), None),
            "mesh = None: schedule = 'pipeline' needs one with an axis 'stage'",
        ),
        (
            lambda: _read(small_model(), data_mesh(2)),
            "mesh axes = data: schedule = 'pipeline' needs one named 'stage'",
        ),
        (
            lambda: _read(small_model(), jax.make_mesh((2, 2), (DATA, STAGE))),
            "mesh axis types = Explicit, Explicit: must be Auto, as `stage_mesh` makes them",
        ),
        (
            lambda: _read(small_model(n_layer=4), stage_mesh(3)),
            "mesh.stage = 3: must divide model.n_layer = 4",
        ),
        (
            lambda: _read(small_model(), stage_mesh(2, data=3)),
            "mesh.data = 3: must divide the batch of 4 texts",
        ),
        (
            lambda: stage_mesh(3, data=3),
            "mesh of data x stage = 3 x 3: must be of 1 to 8 devices",
        ),
        (
            lambda: stage_mesh(0),
            "mesh of data x stage = 1 x 0: must be of 1 to 8 devices",
        ),
    ]
    for call, message in refused:
        with pytest.raises(ConfigError) as error:
            call()
        assert str(error.value) == message


def test_sizes_of_the_mesh() -> None:
    mesh = stage_mesh(2, data=3)
    assert dict(mesh.shape) == {DATA: 3, STAGE: 2}
    assert {axis.name for axis in mesh.axis_types} == {"Auto"}
