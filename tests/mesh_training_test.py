"""Any mesh trains as one device does: loss, gradients, moments and parameters, in float64."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax.evaluation.evaluate import Evaluator
from armt_jax.models import Segment
from armt_jax.recurrence.sequential import run_sequential
from armt_jax.training.state import abstract_state, create_state, reset_optimizer
from armt_jax.training.step import sharded_gradients
from tests.layerwise_cases import scans
from tests.mesh_cases import (
    SCORING,
    STEPS,
    batches,
    busy_state,
    compiled_step,
    mesh_of,
    model_of,
    optimizer_of,
    train,
)
from tests.small_models import assert_close

Axes = dict[str, int]
EIGHT = {"data": 2, "fsdp": 2, "tensor": 2}
DEEP = {"fsdp": 2, "tensor": 2, "stage": 2}
ALONE: list[Axes] = [{"data": 2}, {"fsdp": 2}, {"tensor": 2}, {"stage": 2}]
TOGETHER: list[Axes] = [
    {"data": 2, "fsdp": 2},
    {"fsdp": 2, "tensor": 2},
    {"data": 2, "stage": 2},
    {"stage": 2, "tensor": 2},
    {"fsdp": 4, "stage": 2},
    {"data": 2, "tensor": 2, "stage": 2},
    EIGHT,
    DEEP,
]


def assert_trains_as_one(backbone: str, optimizer: str, axes: Axes, pieces: int = 1) -> None:
    found = train(backbone, optimizer, mesh_of(**axes), pieces)
    expected = train(backbone, optimizer, mesh_of())
    for (state, metrics), (one_state, one_metrics) in zip(found, expected, strict=True):
        assert_close(metrics, one_metrics, 1e-9)
        assert_close(state, one_state, 1e-9)
    assert expected[0][1].grad_norm > 0.2, "clipping should change the gradient"


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("axes", [EIGHT, pytest.param(DEEP, marks=pytest.mark.slow)], ids=str)
def test_eight_devices_train_as_one(axes: Axes) -> None:
    """With Muon, whose matrices are orthogonalised whole whatever device has which part."""
    assert_trains_as_one("gpt2", "muon", axes)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("axes", [EIGHT, DEEP], ids=str)
def test_eight_devices_train_the_other_backbone(axes: Axes) -> None:
    assert_trains_as_one("gpt_neox", "adamw", axes)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("axes", ALONE + TOGETHER, ids=str)
def test_every_mesh_trains_as_one_device(axes: Axes, optimizer: str) -> None:
    assert_trains_as_one("gpt2", optimizer, axes)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("axes", [{"data": 2, "fsdp": 2}, DEEP], ids=str)
def test_pieces_of_a_batch_on_a_mesh(axes: Axes) -> None:
    """Shares and pieces have unequal numbers of queries, so a mean of means would differ."""
    assert_trains_as_one("gpt2", "adamw", axes, pieces=2)


@pytest.mark.usefixtures("x64")
def test_no_whole_parameter_goes_into_the_step_or_comes_out() -> None:
    """The shapes in the compiled program's signature are those of one device."""
    mesh = mesh_of(**EIGHT)
    program = compiled_step("gpt2", "muon", mesh, 1).as_text()
    signature = program[: program.index("\n")]
    shapes = [
        tuple(int(size) for size in sizes.split(","))
        for sizes in re.findall(r"f64\[([\d,]+)\]", signature)
    ]
    state = abstract_state(model_of("gpt2"), optimizer_of("muon"), mesh)
    assert state.params["embed"]["wte"].sharding.shard_shape((128, 8)) == (64, 4)
    for leaf in jax.tree.leaves(state):
        local = leaf.sharding.shard_shape(leaf.shape)
        if local != leaf.shape:
            assert leaf.shape not in shapes
            # In and, donated, out.
            assert shapes.count(local) >= 2
    assert len(shapes) >= 2 * len(jax.tree.leaves(state.params))


def test_no_collective_of_data_and_fsdp_inside_the_scan_over_segments() -> None:
    mesh = mesh_of(data=2, fsdp=2)
    params = busy_state("gpt2", "adamw", mesh).params

    def gradient(params: Any, batch: Any) -> Any:
        return sharded_gradients(model_of("gpt2"), params, batch, SCORING, 1, mesh)

    program = jax.make_jaxpr(gradient)(params, batches()[0])
    inside = [str(scan.params["jaxpr"]) for scan in scans(program.jaxpr)]
    assert len(inside) >= 2, "forward and backward"
    names = r"\b(psum\w*|all_gather\w*|reduce_scatter|ppermute|all_to_all)\["
    assert not any(re.search(names, scan) for scan in inside)
    found = set(re.findall(names, str(program)))
    assert found == {"psum", "all_gather", "reduce_scatter"}, found


@pytest.mark.usefixtures("x64")
def test_heads_stay_whole() -> None:
    """Devices along ``tensor`` sum, and put narrow activations together; nothing is dealt anew."""
    program = compiled_step("gpt2", "muon", mesh_of(**EIGHT), 1).as_text()
    bodies = _loop_bodies(program)
    assert any("all-reduce(" in body for body in bodies)
    assert not any("all-to-all(" in body or "collective-permute(" in body for body in bodies)


def _loop_bodies(program: str) -> list[str]:
    """Text of every computation that a while loop of an optimised program repeats."""
    names = set(re.findall(r"body=%?([\w.\-]+)", program))
    blocks = re.split(r"\n\n", program)
    return [
        block for block in blocks if (m := re.match(r"%?([\w.\-]+) \(", block)) and m[1] in names
    ]


def test_a_state_is_made_in_parts_and_its_moments_anew_in_the_same_place() -> None:
    mesh = mesh_of(**DEEP)
    model, optimizer = model_of("gpt2"), optimizer_of("muon")
    state = create_state(model, optimizer, 0, mesh)
    template = abstract_state(model, optimizer, mesh)
    one = jax.device_get(create_state(model, optimizer, 0))
    assert_close(jax.device_get(state), one, 1e-6)
    reset = reset_optimizer(state, optimizer)
    for made in (state, reset):
        for leaf, wanted in zip(jax.tree.leaves(made), jax.tree.leaves(template), strict=True):
            assert leaf.sharding == wanted.sharding
            sizes = {shard.data.shape for shard in leaf.addressable_shards}
            assert sizes == {wanted.sharding.shard_shape(wanted.shape)}


@pytest.mark.parametrize("axes", [DEEP, pytest.param(EIGHT, marks=pytest.mark.slow)], ids=str)
def test_evaluation_on_the_mesh_of_the_training(axes: Axes) -> None:
    """Six contexts, which do not divide over four shares of a batch; in four all is right."""
    model, state = model_of("gpt2"), busy_state("gpt2", "adamw", mesh_of(**axes))
    params = jax.device_get(state.params)
    samples = jax.tree.map(lambda leaf: leaf[:6], batches()[0])

    @jax.jit
    def predict(queries: jax.Array) -> jax.Array:
        tokens = jnp.swapaxes(samples.context, 0, 1)
        mask = jnp.broadcast_to(samples.context_mask.T[:, :, None], tokens.shape)
        state, _ = run_sequential(model, params, model.init_state(6), Segment(tokens, mask))
        hidden = model.ask(params, state, Segment(queries, jnp.ones(queries.shape, bool)))
        return jnp.argmax(model.readout(params, hidden), axis=-1)

    queries = np.array(samples.queries)
    for position in (-2, -1):  # the digit and the separator, as the model itself goes on
        queries[:4, :, position] = predict(queries)[:4, :, position - 1]
    samples = samples._replace(queries=queries)
    counts = Evaluator(model, SCORING, 6, mesh_of(**axes))(state.params, samples)
    assert counts == (samples.query_mask[:4].sum(), samples.query_mask.sum())


@pytest.mark.usefixtures("x64")
def test_ten_steps_were_taken() -> None:
    (first, _), (last, _) = train("gpt2", "muon", mesh_of(**EIGHT), 1)
    assert (int(first.step), int(last.step)) == (1, STEPS)
    moved = jax.tree.map(lambda a, b: np.max(np.abs(a - b)), first.params, last.params)
    assert min(jax.tree.leaves(moved)) > 1e-4
