"""Operations of recurrent families: by hand for one, and for all what a wider state adds."""

from __future__ import annotations

import dataclasses

import pytest

from armt_jax.config import STATE_SPACE_FAMILIES, ModelConfig
from benchmarks.flops import context_flops, query_flops
from benchmarks.recurrent_flops import STATE_PRODUCTS

CONFIG = ModelConfig(family="mamba", n_layer=2, n_head=2, d_model=8, vocab_size=20, d_state=3)


def test_mamba_by_hand() -> None:
    d, i, n, rank, width = 8, 16, 3, 1, 4
    matrices = 2 * d * i + 2 * i * n + i * rank + rank * i + i * d
    # Convolution; the state takes up B x and is read by C.
    one_layer = 2 * (matrices + width * i + 2 * i * n)
    assert context_flops(CONFIG, 5) == 5 * 2 * one_layer
    assert query_flops(CONFIG, 5, 2) == 5 * 2 * one_layer + 2 * 2 * d * 20


@pytest.mark.parametrize("family", STATE_SPACE_FAMILIES)
def test_every_recurrent_family_is_counted(family: str) -> None:
    config = dataclasses.replace(CONFIG, family=family)
    per_token = context_flops(config, 5) / 5
    assert per_token == context_flops(config, 1)
    floats = 2 * (2 * 4 * 4 if family.startswith("rwkv") else 3 * 16)
    assert per_token > 2 * STATE_PRODUCTS[family] * floats


def test_a_delta_rule_touches_its_state_three_times() -> None:
    narrow = dataclasses.replace(CONFIG, family="delta_net")
    wide = dataclasses.replace(narrow, d_state=4)
    # A key wider by one: 2 heads of q and k more, their taps, and a row of each head's state.
    matrices, taps, state = 2 * 2 * 8, 2 * 2 * 4, 2 * 8
    added = 2 * 2 * (matrices + taps + 3 * state)
    assert context_flops(wide, 1) - context_flops(narrow, 1) == added
