"""Standard deviations of the initial weights, and what the scales of a config change."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from armt_jax import ModelConfig, create_model
from armt_jax.models import Params

SIZES = {"d_model": 128, "n_layer": 8, "num_mem_tokens": 32, "initializer_range": 0.05}
ATTENTION = {"gpt2": ("attn", "c_proj"), "gpt_neox": ("attention", "dense")}
MLP = {"gpt2": ("mlp", "c_proj"), "gpt_neox": ("mlp", "dense_4h_to_h")}


def params_of(backbone: str, **changes: float) -> Params:
    config = ModelConfig(**{"backbone": backbone, **SIZES, **changes})
    return create_model(config).init(jax.random.key(0))


def spread(params: Params, *path: str) -> float:
    leaf = params
    for name in path:
        leaf = leaf[name]
    return float(np.std(np.asarray(leaf)))


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "share"), [("gpt2", 0.25), ("gpt_neox", 1.0)])
def test_without_scales_the_projections_are_the_backbones(backbone: str, share: float) -> None:
    params = params_of(backbone)
    for path in (ATTENTION, MLP):
        std = spread(params, "layers", "block", *path[backbone], "kernel")
        assert std == pytest.approx(0.05 * share, rel=0.02)
    assert spread(params, "embed", "memory") == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("backbone", ["gpt2", "gpt_neox"])
def test_a_scale_of_attention_leaves_the_mlp_alone(backbone: str) -> None:
    plain, scaled = params_of(backbone), params_of(backbone, attention_init_scale=3.0)
    attention, mlp = (("layers", "block", *path[backbone], "kernel") for path in (ATTENTION, MLP))
    assert spread(scaled, *attention) == pytest.approx(0.15, rel=0.02)
    assert spread(scaled, *mlp) == spread(plain, *mlp)


def test_positions_and_memory_tokens_have_scales_of_their_own() -> None:
    params = params_of("gpt2", position_init_scale=0.5, memory_token_init_scale=0.2)
    assert spread(params, "embed", "wpe") == pytest.approx(0.025, rel=0.05)
    assert spread(params, "embed", "memory") == pytest.approx(0.01, rel=0.05)
    assert spread(params, "embed", "wte") == pytest.approx(0.05, rel=0.05)
