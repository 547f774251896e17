"""What the associative retrieval experiments have in common; not an experiment of its own.

The default trains the paper's model size on two CPU cores. Three choices make it learn to look
up within minutes (measured: ``BUILD_NOTES.md``, "Learning to look up"):

- weights start at ``1/sqrt(width)``, positions and memory tokens well below them, and the output
  of attention is not divided by depth, so that what a memory token writes depends on the key;
- weight matrices learn with Muon;
- the first stage has few pairs, every key of them is asked, and batches are small: it needs steps.
"""

from typing import Any

from ml_collections import config_dict


def default() -> dict[str, Any]:
    """The paper's model size (Appendix E), GPT-2 blocks, and a recipe for two CPU cores."""
    return {
        "seed": 0,
        "model": _model(),
        "optimizer": _optimizer(),
        "train": _train(),
        "mesh": {"data": -1, "fsdp": 1, "tensor": 1, "stage": 1},
        "tuning": {
            "start": config_dict.placeholder(str),
            "trains": "all",
            "lora_rank": 8,
            "lora_scale": 1.0,
            "lora_targets": r"layers\.block\..*",
            "groups": (),
            "factors": (),
            "teacher": config_dict.placeholder(str),
            "distill_weight": 0.5,
            "temperature": 1.0,
            "memory_factor": 1.0,
            "gate_factor": 1.0,
        },
    }


def _model() -> dict[str, Any]:
    """The paper's sizes (Appendix E), started as the module's docstring says."""
    return {
        "family": "armt",
        "backbone": "gpt2",
        "n_layer": 4,
        "n_head": 4,
        "n_kv_head": config_dict.placeholder(int),
        "d_model": 128,
        "vocab_size": 128,
        "n_positions": 64,
        "num_mem_tokens": 4,
        "d_mem": 32,
        "nu": 3,
        "rule": "armt",
        "memory_layers": (),
        "wrap_pos": False,
        "rotary_pct": 0.25,
        "rotary_base": 10000.0,
        "rotary_scaling": (),
        "layer_norm_eps": 1e-5,
        "d_ff": 512,
        "tie_embeddings": config_dict.placeholder(bool),
        "initializer_range": 0.088,
        "attention_init_scale": 1.0,
        "position_init_scale": 0.2,
        "memory_token_init_scale": 0.2,
        "dtype": "float32",
        "matmul_precision": "default",
        "memory_passing": "released",
        "retrieval": "exact",
        "retrieval_states": 256,
        "attention_window": 0,
        "context_tokens": 2048,
        # mamba, mamba2, delta_net, gated_delta_net, rwkv5, rwkv7
        "d_state": 32,
        "d_conv": 4,
        "expand": 2,
        "dt_rank": 0,
        "mixer_mlp": False,
        "chunk_size": 16,
    }


def _optimizer() -> dict[str, Any]:
    """Muon for weight matrices, AdamW for the rest."""
    return {
        "name": "muon",
        "learning_rate": 2e-3,
        "muon_learning_rate": 5e-3,
        "weight_decay": 1e-3,
        "b1": 0.9,
        "b2": 0.95,
        "eps": 1e-8,
        "warmup_steps": 50,
        "schedule": "linear",
        "scope": "last_stage",
        "final_fraction": 0.05,
        "reset_per_stage": False,
        "clip": "norm",
        "clip_threshold": 1.0,
    }


def _train() -> dict[str, Any]:
    """Batches of 32; how often is logged, evaluated and saved."""
    return {
        "batch_size": 32,
        "grad_accum": 1,
        "schedule": "auto",
        "remat": "none",
        "bptt": 0,
        "log_every": 10,
        "eval_every": 50,
        "eval_samples": 512,
        "checkpoint_every": 100,
        "data_workers": 0,
        "memory_contexts": 8,
    }


def small() -> dict[str, Any]:
    """A model of 2 layers of 64."""
    sizes = {"n_layer": 2, "d_model": 64, "d_ff": 256, "initializer_range": 0.125}
    return {"model": sizes}


def paper() -> dict[str, Any]:
    """Appendices C and E and the authors' scripts: every stage is a training of its own."""
    return {
        "model": {
            "backbone": "gpt_neox",
            "initializer_range": 0.02,
            "attention_init_scale": 1.0,
            "position_init_scale": 1.0,
            "memory_token_init_scale": 1.0,
        },
        "optimizer": {
            "name": "adamw",
            "learning_rate": 3e-4,
            "b2": 0.999,
            "warmup_steps": 0,
            "scope": "stage",
            "final_fraction": 0.0,
            "reset_per_stage": True,
            "clip": "value",
        },
        "train": {
            "batch_size": 512,
            "eval_every": 250,
            "eval_samples": 1000,
            "checkpoint_every": 250,
        },
    }


def tiny() -> dict[str, Any]:
    """A smoke run: one layer of 32, two stages of 16 steps."""
    return {
        "model": {
            "n_layer": 1,
            "n_head": 2,
            "d_model": 32,
            "num_mem_tokens": 2,
            "d_mem": 8,
            "d_ff": 64,
        },
        "optimizer": {"learning_rate": 5e-3, "warmup_steps": 4},
        "train": {
            "batch_size": 8,
            "log_every": 4,
            "eval_every": 8,
            "eval_samples": 64,
            "checkpoint_every": 10,
            "memory_contexts": 0,
        },
        "mesh": {"data": 1},
    }
