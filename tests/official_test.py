"""The authors' names and layouts, there and back, and what a checkpoint that does not fit says."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax import ConfigError
from armt_jax.config import BACKBONES, ModelConfig
from armt_jax.interop import load_official, to_official
from armt_jax.models import create_model
from tests.small_models import SIZES

ROOT = {
    "gpt2": "memory_cell.model.transformer.",
    "gpt_neox": "memory_cell.model.gpt_neox.",
    "llama": "memory_cell.model.model.",
}
BLOCK = {"gpt2": "h.1.layer.", "gpt_neox": "layers.1.layer.", "llama": "layers.1.layer."}
# Names and shapes (as torch keeps them) of one tensor of each kind, written by hand: width 16,
# hidden width 24, key width 4, 23 tokens, 16 positions, 2 memory tokens.
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "gpt2": {
        "memory_cell.memory": (2, 16),
        "memory_cell.model.transformer.wte.weight": (23, 16),
        "memory_cell.model.transformer.wpe.weight": (16, 16),
        "memory_cell.model.transformer.h.0.layer.attn.c_attn.weight": (16, 48),
        "memory_cell.model.transformer.h.0.layer.attn.c_attn.bias": (48,),
        "memory_cell.model.transformer.h.1.layer.mlp.c_fc.weight": (16, 24),
        "memory_cell.model.transformer.h.1.layer.mlp.c_proj.weight": (24, 16),
        "memory_cell.model.transformer.h.1.layer.ln_2.weight": (16,),
        "memory_cell.model.transformer.h.1.W_mq.weight": (4, 16),
        "memory_cell.model.transformer.h.1.W_mv.weight": (16, 16),
        "memory_cell.model.transformer.h.1.W_mb.weight": (1, 16),
        "memory_cell.model.transformer.h.1.W_mb.bias": (1,),
        "memory_cell.model.transformer.ln_f.bias": (16,),
    },
    "gpt_neox": {
        "memory_cell.memory": (2, 16),
        "memory_cell.model.gpt_neox.embed_in.weight": (23, 16),
        "memory_cell.model.gpt_neox.layers.0.layer.attention.query_key_value.weight": (48, 16),
        "memory_cell.model.gpt_neox.layers.1.layer.mlp.dense_h_to_4h.weight": (24, 16),
        "memory_cell.model.gpt_neox.layers.1.layer.mlp.dense_4h_to_h.weight": (16, 24),
        "memory_cell.model.gpt_neox.layers.1.layer.post_attention_layernorm.bias": (16,),
        "memory_cell.model.gpt_neox.layers.1.W_mk.weight": (4, 16),
        "memory_cell.model.gpt_neox.final_layer_norm.weight": (16,),
        "memory_cell.model.embed_out.weight": (23, 16),
    },
    "llama": {
        "memory_cell.memory": (2, 16),
        "memory_cell.model.model.embed_tokens.weight": (23, 16),
        "memory_cell.model.model.layers.0.layer.self_attn.k_proj.weight": (8, 16),
        "memory_cell.model.model.layers.1.layer.mlp.gate_proj.weight": (24, 16),
        "memory_cell.model.model.layers.1.layer.mlp.down_proj.weight": (16, 24),
        "memory_cell.model.model.layers.1.layer.post_attention_layernorm.weight": (16,),
        "memory_cell.model.model.layers.1.W_mk.weight": (4, 16),
        "memory_cell.model.model.norm.weight": (16,),
        "memory_cell.model.lm_head.weight": (23, 16),
    },
}


FAMILY_SHAPES: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {
    ("rmt", "gpt2"): {
        "memory_cell.memory": (2, 16),
        "memory_cell.model.transformer.wpe.weight": (16, 16),
        "memory_cell.model.transformer.h.1.mlp.c_proj.weight": (24, 16),
        "memory_cell.model.transformer.h.0.ln_1.bias": (16,),
    },
    ("rmt", "gpt_neox"): {
        "memory_cell.model.gpt_neox.layers.1.attention.query_key_value.weight": (48, 16),
        "memory_cell.model.embed_out.weight": (23, 16),
    },
    ("prmt", "gpt2"): {
        "memory_cell.memory": (2, 16),
        "memory_cell.model.transformer.h.1.memory": (1, 2, 16),
        "memory_cell.model.transformer.h.1.layer.mlp.c_proj.weight": (24, 16),
    },
    ("prmt", "gpt_neox"): {
        "memory_cell.model.gpt_neox.layers.0.memory": (1, 2, 16),
        "memory_cell.model.gpt_neox.layers.1.layer.mlp.dense_4h_to_h.weight": (16, 24),
    },
}


def _config(backbone: str, **changes: Any) -> ModelConfig:
    shared = {"n_kv_head": 1} if backbone == "llama" else {}
    return ModelConfig(**{**SIZES, "backbone": backbone, "d_ff": 24, **shared, **changes})


def _state_dict(config: ModelConfig, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Random arrays under every name that a checkpoint of ``config`` has."""
    model = create_model(config)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.float32))
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    rng = np.random.default_rng(0)
    named = to_official(blank, config)
    return {name: rng.normal(size=array.shape).astype(dtype) for name, array in named.items()}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_names_and_layouts_are_torchs(backbone: str) -> None:
    named = _state_dict(_config(backbone))
    assert {name: named[name].shape for name in SHAPES[backbone]} == SHAPES[backbone]


@pytest.mark.parametrize(("family", "backbone"), FAMILY_SHAPES)
def test_names_layouts_and_round_trip_of_other_families(family: str, backbone: str) -> None:
    config = _config(backbone, family=family, wrap_pos=False)
    named = _state_dict(config)
    expected = FAMILY_SHAPES[family, backbone]
    assert {name: named[name].shape for name in expected} == expected
    params = load_official(named, config)
    back = to_official(params, config)
    assert back.keys() == named.keys()
    for name, array in named.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)
    if family == "prmt":
        wrong = {name: x[0] if name.endswith("1.memory") else x for name, x in named.items()}
        with pytest.raises(
            ConfigError, match=r"1\.memory has shape \(2, 16\), must be \(1, 2, 16\)"
        ):
            load_official(wrong, config)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_round_trip_is_bit_identical(backbone: str) -> None:
    config = _config(backbone, wrap_pos=True)
    named = _state_dict(config)
    params = load_official(named, config)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    back = to_official(params, config)
    assert back.keys() == named.keys()
    for name, array in named.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array, err_msg=name)


def test_every_matrix_is_oriented_and_every_layer_in_its_place() -> None:
    """GPT-2's Conv1D stores (in, out), a torch Linear (out, in): square ones would not show it."""
    config = _config("gpt2")
    named = _state_dict(config)
    layers = load_official(named, config)["layers"]
    for i in range(2):
        start = f"memory_cell.model.transformer.h.{i}."
        projection = layers["block"]["attn"]["c_proj"]["kernel"][i]
        np.testing.assert_array_equal(projection, named[f"{start}layer.attn.c_proj.weight"])
        values = layers["memory"]["W_mv"]["kernel"][i]
        np.testing.assert_array_equal(values, named[f"{start}W_mv.weight"].T)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_aliases_and_buffers_are_accepted(backbone: str) -> None:
    config = _config(backbone)
    named = _state_dict(config)
    params = load_official(named, config)
    more = dict(named)
    layers = f"{ROOT[backbone]}{BLOCK[backbone].split('.')[0]}."
    for name in named:
        if name.startswith(layers):
            more[f"memory_cell.layers.{name.removeprefix(layers)}"] = named[name]
    attention = {"gpt2": "attn", "gpt_neox": "attention", "llama": "self_attn"}[backbone]
    block = f"{ROOT[backbone]}{BLOCK[backbone]}"
    for buffer in ("bias", "masked_bias") if backbone != "llama" else ():
        more[f"{block}{attention}.{buffer}"] = np.ones((1, 1, 8, 8), bool)
    more[f"{block.removesuffix('layer.')}W_mem"] = np.zeros((1, 24, 16))
    more[f"{block.removesuffix('layer.')}z"] = np.zeros((1, 24))
    if backbone == "gpt2":
        more["memory_cell.model.lm_head.weight"] = named[f"{ROOT[backbone]}wte.weight"]
    else:
        more[f"{block}attention.rotary_emb.inv_freq"] = np.ones(4)
    jax.tree.map(np.testing.assert_array_equal, load_official(more, config), params)


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("gpt2", "memory_cell.layers.7.W_mq.weight"),
        # GPT-NeoX has an output matrix of its own, under another name.
        ("gpt_neox", "memory_cell.model.lm_head.weight"),
    ],
)
def test_an_alias_without_its_original_is_not_a_parameter(backbone: str, name: str) -> None:
    config = _config(backbone)
    named = {**_state_dict(config), name: np.zeros((4, 16))}
    with pytest.raises(ConfigError) as error:
        load_official(named, config)
    assert str(error.value).endswith(f": {name} is not a parameter of this model")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_everything_that_does_not_fit_is_listed_at_once(backbone: str) -> None:
    config = _config(backbone)
    named = _state_dict(config)
    block = f"{ROOT[backbone]}{BLOCK[backbone]}"
    missing = f"{block.removesuffix('layer.')}W_mq.weight"
    odd = {"gpt2": f"{block}mlp.c_fc.weight", "gpt_neox": f"{block}mlp.dense_h_to_4h.weight"}
    odd["llama"] = f"{block}mlp.up_proj.weight"
    wanted = {"gpt2": (16, 24), "gpt_neox": (24, 16), "llama": (24, 16)}[backbone]
    del named[missing]
    named[odd[backbone]] = named[odd[backbone]].T
    named["memory_cell.extra"] = np.zeros(3)
    named[f"{block}attention.typo"] = np.zeros(3)
    with pytest.raises(ConfigError) as error:
        load_official(named, config)
    message = str(error.value)
    assert message.startswith("official checkpoint does not fit: ")
    assert "\n" not in message
    assert set(message.split(": ", 1)[1].split("; ")) == {
        f"{missing} is missing",
        f"{odd[backbone]} has shape {wanted[::-1]}, must be {wanted}",
        "memory_cell.extra is not a parameter of this model",
        f"{block}attention.typo is not a parameter of this model",
    }


@pytest.mark.parametrize(
    ("given", "asked", "expected"),
    [
        (np.float32, None, jnp.float32),
        (np.float64, None, jnp.float32),
        (np.float32, jnp.bfloat16, jnp.bfloat16),
    ],
)
def test_dtype_is_jaxs_float_or_the_one_asked_for(given: Any, asked: Any, expected: Any) -> None:
    config = _config("gpt2", n_layer=1)
    params = load_official(_state_dict(config, given), config, asked)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(expected)}


@pytest.mark.usefixtures("x64")
def test_float64_is_kept_where_jax_computes_in_it() -> None:
    config = _config("gpt2", n_layer=1)
    named = _state_dict(config, np.float64)
    params = load_official(named, config)
    back = to_official(params, config)
    for name, array in named.items():
        assert back[name].dtype == np.float64
        np.testing.assert_array_equal(back[name], array)
    single = load_official(named, config, jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(single)} == {jnp.dtype(jnp.float32)}
