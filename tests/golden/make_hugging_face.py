"""Write ``tests/golden/hf_*.npz``: small random models of transformers, their logits and gradients.

Not needed to test armt_jax; it says where the numbers come from. In an environment of its own
(the files were written with torch 2.13.0, transformers 5.23.0):

    pip install torch transformers safetensors numpy
    python tests/golden/make_hugging_face.py

A file holds ``config`` (the text of the ``config.json`` that ``save_pretrained`` writes), ``tokens
[b, t]``, ``logits [b, t, v]``, ``logits_5_to_10`` of these tokens read alone, the ``loss``
transformers computes of ``labels = tokens``, every weight of the saved file under ``state/NAME``
(float32) and its gradient under ``grad/NAME``. Logits, loss and gradients are computed in float64
from the float32 weights.
"""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from safetensors.numpy import load_file

FOLDER = pathlib.Path(__file__).parent
COMMON = {"vocab_size": 23, "attn_implementation": "eager"}
WIDTHS = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"n_layer": 2, "n_head": 4, "n_embd": 16, "n_positions": 20}),
    "gpt2_inner": (
        "GPT2",
        {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 20, "n_inner": 24},
    ),
    "gpt_neox": (
        "GPTNeoX",
        {**WIDTHS, "intermediate_size": 40, "rotary_pct": 0.5, "max_position_embeddings": 32},
    ),
    "gpt_neox_tied": (
        "GPTNeoX",
        {
            **WIDTHS,
            "intermediate_size": 32,
            "rotary_pct": 1.0,
            "rotary_emb_base": 500,
            "layer_norm_eps": 1e-3,
            "tie_word_embeddings": True,
        },
    ),
    "llama": (
        "Llama",
        {**WIDTHS, "num_key_value_heads": 2, "intermediate_size": 24, "rms_norm_eps": 1e-5},
    ),
    "llama_tied": (
        "Llama",
        {
            **WIDTHS,
            "num_key_value_heads": 1,
            "intermediate_size": 40,
            "tie_word_embeddings": True,
            "rope_theta": 300.0,
            "rms_norm_eps": 1e-2,
        },
    ),
    "llama_all_heads": ("Llama", {**WIDTHS, "intermediate_size": 24}),
    "llama_3": (
        "Llama",
        {
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "intermediate_size": 24,
            "rope_theta": 100.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
}
CLASSES = {"GPT2": "GPT2LMHeadModel", "GPTNeoX": "GPTNeoXForCausalLM", "Llama": "LlamaForCausalLM"}


def make(name: str, kind: str, settings: dict[str, Any], seed: int) -> None:
    """One file."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**COMMON, **settings)
    model = getattr(transformers, CLASSES[kind])(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            is_scale = ("norm" in key and key.endswith("weight")) or (
                ".ln_" in key and "weight" in key
            )
            parameter.copy_(float(is_scale) + 0.3 * torch.randn_like(parameter))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        text = (pathlib.Path(folder) / "config.json").read_text()
        state = load_file(pathlib.Path(folder) / "model.safetensors")
    model = model.double()
    tokens = torch.randint(0, 23, (2, 13))
    out = model(input_ids=tokens, labels=tokens)
    out.loss.backward()
    with torch.no_grad():
        alone = model(input_ids=tokens[:, 5:10]).logits
    # In memory transformers 5 calls every head alike; in files GPT-NeoX's keeps its first name.
    renamed = {"lm_head.weight": "embed_out.weight"} if kind == "GPTNeoX" else {}
    grads = {
        renamed.get(key, key): parameter.grad.numpy() for key, parameter in model.named_parameters()
    }
    arrays: dict[str, Any] = {
        "config": np.asarray(text),
        "tokens": tokens.numpy().astype(np.int32),
        "logits": out.logits.detach().numpy(),
        "logits_5_to_10": alone.numpy(),
        "loss": out.loss.detach().numpy(),
        **{f"state/{key}": value for key, value in state.items()},
        **{f"grad/{key}": value for key, value in grads.items()},
    }
    np.savez_compressed(FOLDER / f"hf_{name}.npz", **arrays)


if __name__ == "__main__":
    print("torch", torch.__version__, "transformers", transformers.__version__)
    for index, (name, (kind, settings)) in enumerate(CASES.items()):
        make(name, kind, settings, index)
        print(name, (FOLDER / f"hf_{name}.npz").stat().st_size, "bytes")
