"""Recurrent models on meshes: every leaf's rule, and training as on one device."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

import armt_jax
from armt_jax.models import StateSpaceLM
from armt_jax.sharding import stage_mesh
from armt_jax.sharding.rules import leaf_names
from armt_jax.training.state import TrainState, abstract_state
from armt_jax.training.step import jit_train_step
from tests.mesh_cases import QUICK, SCORING, batches, mesh_of, model_of, optimizer_of
from tests.small_models import assert_close, lively_params, quick_jit, random_tokens, segments_of
from tests.state_space_cases import FAMILIES, old_state, recurrent_model

Axes = dict[str, int]
# Axes that split a parameter, by the end of its name; not read from the table.
WIDE = ("in_x", "in_z", "in_q", "in_k", "in_v", "in_gate", "out", "gate", "up", "down")
WIDE = (*WIDE, "time.r", "time.k", "time.v", "time.g", "channel.k")
SPLIT_BY = {
    **{f"{name}.kernel": {"stage", "fsdp", "tensor"} for name in WIDE},
    **{
        f"time.{name}.{part}.kernel": {"stage", "fsdp"}
        for name in ("decay", "rate", "value", "gate")
        for part in ("down", "up")
    },
    "embed.wte": {"fsdp", "tensor"},
    "head.embed_out": {"fsdp", "tensor"},
    **{
        f"{place}.norm.{leaf}": {"fsdp"}
        for place in ("embed", "head")
        for leaf in ("scale", "bias")
    },
    **{name: {"stage"} for name in ("A_log_head", "D_head", "head_norm.scale")},
    "to_dt.bias": {"stage"},
    "to_decay.bias": {"stage"},
}


def _model(family: str) -> StateSpaceLM:
    """Every axis is even, and half of one is not as long as another's whole."""
    sizes: dict[str, Any] = {
        "d_state": 6,
        "dt_rank": 2,
        "chunk_size": 3,
        "mixer_mlp": "delta" in family,
    }
    model: Any = model_of(family=family, **sizes)
    return model


def _expected(name: str) -> set[str]:
    if name.endswith((".count", ".ns_coeffs")) or name == "step":
        return set()
    found = {end: axes for end, axes in SPLIT_BY.items() if name.endswith("." + end)}
    return found[max(found, key=len)] if found else {"stage", "fsdp"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_leaf_is_really_split_by_its_axes(family: str) -> None:
    for axis in ("data", "fsdp", "tensor", "stage"):
        state = abstract_state(_model(family), optimizer_of("muon"), mesh_of(**{axis: 2}))
        for name, leaf in leaf_names(state):
            share = math.prod(leaf.sharding.shard_shape(leaf.shape)) / math.prod(leaf.shape)
            assert share == (0.5 if axis in _expected(name) else 1.0), (axis, name)
    assert any(".mu." in name for name, _ in leaf_names(state))


def _trained(family: str, axes: Axes) -> list[Any]:
    """State and metrics after each of three steps from a random state, on the host."""
    mesh, model, optimizer = mesh_of(**axes), _model(family), optimizer_of("adamw")
    template = abstract_state(model, optimizer, mesh)
    params = jax.tree.map(np.asarray, lively_params(model, 3))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
    state = TrainState(params, zeros.opt_state, zeros.step)
    state = jax.tree.map(lambda leaf, at: jax.device_put(leaf, at.sharding), state, template)
    step = jit_train_step(model, optimizer, SCORING, 1, mesh)
    step = step.lower(template, batches()[0], np.float32(1e-2)).compile(compiler_options=QUICK)
    kept = []
    for batch in batches()[:3]:
        placed = jax.device_put((batch, np.float32(1e-2)), step.input_shardings[0][1:])
        state, metrics = step(state, *placed)
        kept.append(jax.device_get((state, metrics)))
    return kept


EIGHT: list[Axes] = [{"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 2, "tensor": 2, "stage": 2}]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("axes", EIGHT, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_eight_devices_train_as_one(family: str, axes: Axes) -> None:
    expected = _trained(family, {})
    assert_close(_trained(family, axes), expected, 1e-9)
    moved = np.abs(expected[2][0].params["embed"]["wte"] - expected[0][0].params["embed"]["wte"])
    assert moved.max() > 1e-4


@functools.cache
def _two_stages() -> Mesh:
    return stage_mesh(2)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "family",
    [f if f == "rwkv7" else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES],
)
def test_pipeline_equals_sequential(family: str) -> None:
    """RWKV-7 is the fast one: its layers hand on more than the others'."""
    model = recurrent_model(family)
    params, state = lively_params(model), old_state(model, 2)
    mask = np.ones((3, 2, 4), bool)
    mask[1, 0] = mask[2, 1, :2] = False
    text = segments_of(random_tokens(model, 3, 2, 4), mask)

    def read(params: Any, state: Any, schedule: str) -> Any:
        options = {"schedule": schedule, "mesh": _two_stages()}
        return armt_jax.run_segments(model, params, state, text, **options)

    run = functools.partial(quick_jit, static_argnames="schedule")(read)
    (after, hidden), (right, expected) = (
        run(params, state, schedule) for schedule in ("pipeline", "sequential")
    )
    assert_close(after, right, 1e-10)
    assert_close(np.asarray(hidden)[mask], np.asarray(expected)[mask], 1e-10)
