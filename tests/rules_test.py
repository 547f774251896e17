"""The table of rules: every leaf of every model and optimizer, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax.config import ConfigError, MeshConfig
from armt_jax.models.armt import ARMT
from armt_jax.recurrence.stages import read_and_ask
from armt_jax.sharding import available_cores, cpu_devices, create_mesh
from armt_jax.sharding.placement import Placement
from armt_jax.sharding.rules import PARAMETERS, RuleError, find_rule, leaf_names, state_shardings
from armt_jax.training.checkpoints import Checkpoints
from armt_jax.training.state import abstract_state
from tests.mesh_cases import busy_state, mesh_of, model_of, optimizer_of
from tests.small_models import segments_of

MODELS = [
    model_of("gpt2"),
    model_of("gpt2", wrap_pos=True, rule="delta"),
    model_of("gpt_neox"),
    model_of("llama"),
    model_of("gpt2", family="rmt_r", wrap_pos=True),
    model_of("gpt_neox", family="prmt"),
]
MODEL_NAMES = ["gpt2", "gpt2-wrap-delta", "gpt_neox", "llama", "rmt_r-gpt2-wrap", "prmt-gpt_neox"]
MATRICES = (
    *("c_attn", "c_fc", "c_proj", "query_key_value", "dense", "dense_h_to_4h", "W_mv"),
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
)
# Axes that split a parameter, by the last parts of its name; not read from the table.
SPLIT_BY = {
    **{f"{name}.kernel": {"stage", "fsdp", "tensor"} for name in MATRICES},
    "dense_4h_to_h.kernel": {"stage", "fsdp", "tensor"},
    **{f"{name}.kernel": {"stage", "fsdp"} for name in ("W_mq", "W_mk", "W_mb")},
    "W_mb.bias": {"stage"},
    **{f"embed.{name}": {"fsdp", "tensor"} for name in ("wte", "embed_in", "embed_tokens")},
    **{f"embed.{name}": {"fsdp"} for name in ("wpe", "memory")},
    **{
        f"head.{norm}.{leaf}": {"fsdp"}
        for norm in ("ln_f", "final_layer_norm", "norm")
        for leaf in ("scale", "bias")
    },
    "head.embed_out": {"fsdp", "tensor"},
    "head.lm_head": {"fsdp", "tensor"},
    "layers.memory": {"stage", "fsdp"},
    **{f"retrieval.{name}.kernel": {"fsdp", "tensor"} for name in ("query", "key", "value")},
}
VECTORS = {"stage", "fsdp"}


def _expected(name: str) -> set[str]:
    if name.endswith((".count", ".ns_coeffs")) or name == "step":
        return set()
    found = [axes for ending, axes in SPLIT_BY.items() if name.endswith("." + ending)]
    if name.endswith(("scale", "bias")) and not found:
        return VECTORS
    assert len(found) == 1, name
    return found[0]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("model", MODELS, ids=MODEL_NAMES)
def test_every_leaf_is_really_split_by_its_axes(model: ARMT, optimizer: str) -> None:
    """The moments too: a share of the shapes says by how much, an axis at a time by which."""
    for axis in ("data", "fsdp", "tensor", "stage"):
        state = abstract_state(model, optimizer_of(optimizer), mesh_of(**{axis: 2}))
        for name, leaf in leaf_names(state):
            assert leaf.sharding is not None
            share = math.prod(leaf.sharding.shard_shape(leaf.shape)) / math.prod(leaf.shape)
            assert share == (0.5 if axis in _expected(name) else 1.0), (axis, name)
    names = [name for name, _ in leaf_names(state)]
    moments = [name for name in names if ".mu." in name]
    assert len(moments) == len(jax.tree.leaves(state.params))


def test_shards_of_one_leaf_on_eight_devices() -> None:
    """Layers, then rows, then columns; each of the eight devices has a part of its own."""
    state: Any = busy_state("gpt2", "adamw", mesh_of(fsdp=2, tensor=2, stage=2))
    for tree in (state.params, state.opt_state[1].mu):
        kernel = tree["layers"]["block"]["attn"]["c_attn"]["kernel"]
        shards = kernel.addressable_shards
        assert [shard.data.shape for shard in shards] == [(1, 4, 12)] * 8
        assert len({str(shard.index) for shard in shards}) == 8


@pytest.mark.parametrize(
    ("backbone", "shapes"),
    [
        (
            "gpt2",
            {
                "embed.wte": (64, 2),
                "layers.block.attn.c_attn.kernel": (2, 2, 12),
                "layers.block.attn.c_proj.kernel": (2, 4, 2),
                "layers.block.mlp.c_fc.kernel": (2, 2, 10),
                "layers.block.mlp.c_proj.kernel": (2, 10, 2),
                "layers.memory.W_mv.kernel": (2, 2, 4),
                "layers.memory.W_mk.kernel": (2, 2, 4),
            },
        ),
        (
            "gpt_neox",
            {
                "embed.embed_in": (64, 2),
                "head.embed_out": (2, 64),
                "layers.block.attention.query_key_value.kernel": (2, 2, 12),
                "layers.block.attention.dense.kernel": (2, 4, 2),
                "layers.block.mlp.dense_h_to_4h.kernel": (2, 2, 10),
                "layers.block.mlp.dense_4h_to_h.kernel": (2, 10, 2),
            },
        ),
        (
            "llama",
            {
                "embed.embed_tokens": (64, 2),
                "head.lm_head": (2, 64),
                "layers.block.self_attn.q_proj.kernel": (2, 2, 4),
                "layers.block.self_attn.k_proj.kernel": (2, 2, 2),
                "layers.block.self_attn.o_proj.kernel": (2, 4, 2),
                "layers.block.mlp.gate_proj.kernel": (2, 2, 10),
                "layers.block.mlp.up_proj.kernel": (2, 2, 10),
                "layers.block.mlp.down_proj.kernel": (2, 10, 2),
            },
        ),
    ],
)
def test_which_axis_splits_rows_and_which_columns(
    backbone: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    """Four devices along ``fsdp``, two along ``tensor``, so that the two cannot be confused."""
    placement = Placement(model_of(backbone), mesh_of(fsdp=4, tensor=2))
    params = jax.eval_shape(model_of(backbone).init, jax.random.key(0))
    shardings = dict(leaf_names(placement.shardings))
    found = {name: shardings[name].shard_shape(leaf.shape) for name, leaf in leaf_names(params)}
    assert shapes.items() <= found.items()


def test_a_leaf_without_a_rule_of_its_rank_is_refused_by_name() -> None:
    with pytest.raises(RuleError, match=r"^layers\.gate\.kernel: must match one rule .* none$"):
        find_rule(PARAMETERS, "layers.gate.kernel", 3)
    with pytest.raises(RuleError, match=r"^embed\.wte has 3 axes: its rule .* is for 2$"):
        find_rule(PARAMETERS, "embed.wte", 3)
    twice = (*PARAMETERS, PARAMETERS[0])
    with pytest.raises(RuleError, match=r"^embed\.wte: must match one .*wte.* and .*wte"):
        find_rule(twice, "embed.wte", 2)
    mesh, state = mesh_of(fsdp=2), abstract_state(MODELS[0], optimizer_of())
    state.params["extra"] = jnp.zeros(3)
    with pytest.raises(RuleError, match=r"^params\.extra: must match one rule"):
        state_shardings(state, mesh)


@pytest.mark.parametrize(
    ("axes", "changes", "message"),
    [
        ({"tensor": 4}, {}, "mesh.tensor = 4: must divide model.n_head = 2"),
        (
            {"tensor": 2},
            {"backbone": "llama", "n_kv_head": 1},
            "mesh.tensor = 2: must divide model.n_kv_head = 1",
        ),
        ({"fsdp": 8}, {"d_model": 12}, "mesh.fsdp = 8: must divide model.d_model = 12"),
        ({"fsdp": 8}, {}, "mesh.fsdp = 8: must divide model.d_ff = 20"),
        ({"tensor": 8}, {"n_head": 8}, "mesh.tensor = 8: must divide model.d_ff = 20"),
        ({"tensor": 2}, {"vocab_size": 129}, "mesh.tensor = 2: must divide model.vocab_size = 129"),
        ({"stage": 4}, {}, "mesh.stage = 4: must divide model.n_layer = 2"),
    ],
)
def test_an_axis_that_does_not_divide_the_model(
    axes: dict[str, int], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        Placement(model_of(**{"backbone": "gpt2", **changes}), mesh_of(**axes))
    assert str(error.value) == message


def test_an_odd_leaf_is_refused_by_name_where_no_setting_is_to_blame() -> None:
    state = abstract_state(MODELS[0], optimizer_of())
    state.params["embed"]["memory"] = jnp.zeros((2, 7))
    with pytest.raises(ConfigError) as error:
        state_shardings(state, mesh_of(fsdp=2))
    expected = "mesh.fsdp = 2: must divide params.embed.memory of shape [2, 7]"
    assert str(error.value) == expected


class _Whole:
    """A model that offers nothing but the protocol's own functions."""

    def __init__(self, model: ARMT) -> None:
        self.config, self.init, self.init_state = model.config, model.init, model.init_state
        self.step, self.write, self.ask = model.step, model.write, model.ask
        self.readout, self.compute_dtype = model.readout, model.compute_dtype


def test_a_model_that_cannot_be_split() -> None:
    model = _Whole(MODELS[0])
    Placement(model, mesh_of(data=2, fsdp=2))
    with pytest.raises(ConfigError) as error:
        Placement(model, mesh_of(tensor=2))
    assert str(error.value) == "mesh.tensor = 2: must be 1, _Whole cannot be split by heads"
    text = segments_of(jnp.zeros((1, 1, 3), jnp.int32))
    with pytest.raises(ConfigError) as error:
        read_and_ask(model, 2, {}, text, text)
    assert str(error.value) == "mesh.stage = 2: must be 1, _Whole cannot be asked layer by layer"


@pytest.mark.parametrize(
    ("config", "batch", "message"),
    [
        (
            (2, 2, 2, 2),
            8,
            "mesh.data x fsdp x stage x tensor = 2 x 2 x 2 x 2 = 16: "
            "must be at most 8, the devices here",
        ),
        ((-1, 3, 3, 1), 9, "mesh.fsdp x tensor = 3 x 3 = 9: must be at most 8, the devices here"),
        ((1, 1, 9, 1), 8, "mesh.tensor = 9: must be at most 8, the devices here"),
        (
            (2, 4, 1, 1),
            4,
            "mesh.data x fsdp = 8: must divide train.batch_size / train.grad_accum = 4",
        ),
        ((1, 3, 1, 1), 8, "mesh.fsdp = 3: must divide train.batch_size / train.grad_accum = 8"),
        ((-1, 4, 1, 1), 6, "mesh.fsdp = 4: must divide train.batch_size / train.grad_accum = 6"),
    ],
)
def test_meshes_that_cannot_be(config: tuple[int, ...], batch: int, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        create_mesh(MeshConfig(*config), batch)
    assert str(error.value) == message


def test_data_takes_what_the_other_axes_leave() -> None:
    sizes = {
        (batch, fsdp, others): create_mesh(MeshConfig(-1, fsdp, others, 1), batch).shape["data"]
        for batch, fsdp, others in ((8, 2, 1), (8, 2, 2), (6, 2, 1), (8, 1, 3), (8, 8, 1))
    }
    assert list(sizes.values()) == [4, 2, 3, 2, 1]


def test_devices_of_a_cpu_count_for_all_axes() -> None:
    assert cpu_devices(MeshConfig(2, 2, 2, 2)) == 16
    assert cpu_devices(MeshConfig(-1, 1, 1, 1)) == available_cores()
    assert cpu_devices(MeshConfig(-1, 64, 1, 64)) == 64 * 64


def test_checkpoint_of_one_mesh_is_read_on_others(tmp_path: Path) -> None:
    saved = busy_state("gpt2", "muon", mesh_of(data=2, fsdp=2))
    Checkpoints(tmp_path).save(1, saved, {}, None)
    for mesh in (mesh_of(tensor=2), mesh_of(fsdp=2, stage=2), None):
        template = abstract_state(MODELS[0], optimizer_of("muon"), mesh)
        found = Checkpoints(tmp_path, read_only=True).restore(template, warn=pytest.fail)
        assert found is not None
        jax.tree.map(np.testing.assert_array_equal, found.state, jax.device_get(saved))
        leaves = zip(jax.tree.leaves(found.state), jax.tree.leaves(template), strict=True)
        assert all(leaf.sharding == wanted.sharding for leaf, wanted in leaves)
