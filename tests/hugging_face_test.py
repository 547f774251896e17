"""Imported models against transformers: logits, losses and gradients; and starting as themselves.

Golden values: ``tests/golden/make_hugging_face.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax.interop import load_hugging_face
from armt_jax.interop.pretrained import export_arrays
from armt_jax.models import Params
from tests.hf_files import CASES, MEMORY, golden, write_folder
from tests.small_models import quick_jit

# float32; the largest logits are of order 10, the largest gradients of order 1.
TOLERANCE = 1e-4


def load(folder: Path, case: str, **settings: Any) -> tuple[Params, armt_jax.ModelConfig]:
    return load_hugging_face(write_folder(folder, case), **{**MEMORY, **settings})


QUICK = ("gpt2", "gpt_neox", "llama_tied", "llama_3")
ALL = [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]


@pytest.mark.parametrize("case", ALL)
def test_logits_loss_and_gradients_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    reference = golden(case)
    params, config = load(tmp_path, case)
    model, tokens = armt_jax.create_model(config), jnp.asarray(reference["tokens"])

    def loss(params: Params) -> tuple[jax.Array, jax.Array]:
        out = armt_jax.forward(model, params, tokens, segment_size=tokens.shape[1])
        return armt_jax.next_token_loss(out.logits, tokens), out.logits

    (value, logits), grads = quick_jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(logits, reference["logits"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(value, reference["loss"], rtol=0, atol=TOLERANCE)
    backbone, memory = export_arrays(grads, config)
    expected = reference.group("grad")
    assert backbone.keys() == expected.keys()
    for name, gradient in expected.items():
        np.testing.assert_allclose(backbone[name], gradient, rtol=0, atol=TOLERANCE, err_msg=name)
        assert np.abs(gradient).max() > 10 * TOLERANCE, f"{name}: a gradient of 0 would pass, too"
    # Nothing after the segment asks its memory.
    assert not any(np.any(gradient) for gradient in memory.values())


@pytest.mark.parametrize("case", QUICK)
def test_a_pretrained_model_starts_as_itself_in_every_segment(case: str, tmp_path: Path) -> None:
    """``W_V = 0``: each segment's logits are those of the backbone that reads it alone."""
    reference = golden(case)
    params, config = load(tmp_path, case)
    model, tokens = armt_jax.create_model(config), jnp.asarray(reference["tokens"])[:, :10]
    run = quick_jit(lambda p: armt_jax.forward(model, p, tokens, segment_size=5).logits)
    logits = run(params)
    np.testing.assert_allclose(logits[:, :5], reference["logits"][:, :5], rtol=0, atol=TOLERANCE)
    second = reference["logits_5_to_10"]
    np.testing.assert_allclose(logits[:, 5:], second, rtol=0, atol=TOLERANCE)
    # A memory that writes changes the second segment and not the first.
    kernel = params["layers"]["memory"]["W_mv"]["kernel"]
    noise = jax.random.normal(jax.random.key(1), kernel.shape, kernel.dtype)
    memory = {**params["layers"]["memory"], "W_mv": {"kernel": noise}}
    written = run({**params, "layers": {**params["layers"], "memory": memory}})
    np.testing.assert_array_equal(written[:, :5], logits[:, :5])
    assert np.abs(written[:, 5:] - second).max() > 100 * TOLERANCE


def test_the_memory_is_fresh_and_as_the_authors_draw_it(tmp_path: Path) -> None:
    params, config = load(tmp_path, "llama", num_mem_tokens=500, d_mem=8)
    again, _ = load_hugging_face(tmp_path, num_mem_tokens=500, d_mem=8)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    other, _ = load_hugging_face(tmp_path, num_mem_tokens=500, d_mem=8, rng=jax.random.key(1))
    assert np.any(other["embed"]["memory"] != params["embed"]["memory"])
    memory = params["layers"]["memory"]
    assert not np.any(memory["W_mv"]["kernel"])
    bound = config.d_model**-0.5
    for name in ("W_mq", "W_mk", "W_mb"):
        largest = float(np.abs(memory[name]["kernel"]).max())
        assert 0.8 * bound < largest <= bound
        assert np.any(memory[name]["kernel"] != other["layers"]["memory"][name]["kernel"])
    spread = float(np.std(golden("llama")["state/model.embed_tokens.weight"]))
    assert float(np.std(params["embed"]["memory"])) == pytest.approx(spread, rel=0.05)


def test_memory_tokens_with_positions_of_their_own(tmp_path: Path) -> None:
    """``wrap_pos``: rows of the position table that the pretrained one does not have."""
    params, config = load(tmp_path, "gpt2", wrap_pos=True)
    table = golden("gpt2")["state/transformer.wpe.weight"]
    assert params["embed"]["wpe"].shape == (20 + 2, 16)
    np.testing.assert_array_equal(params["embed"]["wpe"][:20], table)
    assert np.any(params["embed"]["wpe"][20:])
    # Now all 20 positions are there for tokens.
    config.check_segment(20)
    tokens = jnp.asarray(golden("gpt2")["tokens"])
    model = armt_jax.create_model(config)
    logits = armt_jax.forward(model, params, tokens, segment_size=13).logits
    np.testing.assert_allclose(logits, golden("gpt2")["logits"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("gpt2_inner", {"backbone": "gpt2", "d_ff": 24, "n_positions": 20, "is_tied": True}),
        ("gpt_neox", {"rotary_pct": 0.5, "rotary_base": 10000.0, "is_tied": False, "d_ff": 40}),
        ("gpt_neox_tied", {"rotary_pct": 1.0, "rotary_base": 500.0, "layer_norm_eps": 1e-3}),
        ("llama", {"n_kv_head": 2, "rotary_base": 10000.0, "layer_norm_eps": 1e-5}),
        ("llama_tied", {"n_kv_head": 1, "rotary_base": 300.0, "is_tied": True}),
        ("llama_all_heads", {"kv_heads": 4, "layer_norm_eps": 1e-6, "n_positions": 2048}),
    ],
)
def test_config_json_is_read(case: str, expected: dict[str, Any], tmp_path: Path) -> None:
    _, config = load(tmp_path, case)
    assert {name: getattr(config, name) for name in expected} == expected
    assert (config.family, config.num_mem_tokens, config.d_mem) == ("armt", 2, 4)
