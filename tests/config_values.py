"""A whole experiment as a nested dict, for the tests of settings to change one by one."""

from __future__ import annotations

import copy
from typing import Any

from armt_jax.config import ExperimentConfig, from_config_dict

VALID: dict[str, Any] = {
    "name": "test",
    "seed": 0,
    "workdir": "runs/test",
    "model": {"n_layer": 2, "rule": "delta", "d_ff": None, "wrap_pos": True, "rotary_pct": 1},
    "task": {"variant": "remember", "num_pairs": 16, "key_size": 1, "value_size": 1},
    "curriculum": {
        "variant": ["remember", "rewrite"],
        "num_pairs": [4, 40],
        "key_size": [1, 1],
        "key_symbols": [16, 16],
        "random_symbols": [False, False],
        "max_steps": [10, 20],
        "target": [0.9, 1.1],
        "num_queries": 0,
        "random_num_pairs": True,
    },
    "optimizer": {
        "name": "adamw",
        "learning_rate": 1e-3,
        "muon_learning_rate": 1e-3,
        "weight_decay": 0.0,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "warmup_steps": 0,
        "schedule": "linear",
        "scope": "stage",
        "final_fraction": 0.0,
        "reset_per_stage": False,
        "clip": "norm",
        "clip_threshold": 1.0,
    },
    "train": {
        "batch_size": 8,
        "grad_accum": 2,
        "schedule": "auto",
        "remat": "none",
        "bptt": 0,
        "log_every": 1,
        "eval_every": 5,
        "eval_samples": 16,
        "checkpoint_every": 5,
        "data_workers": 0,
    },
    "mesh": {"data": 1, "fsdp": 1, "tensor": 1, "stage": 1},
    "evaluation": {"num_pairs": [4, 16], "samples": 16, "batch_size": 8},
}


def retrieval(values: Any) -> ExperimentConfig:
    """The experiment of ``values``, which is one of associative retrieval."""
    config = from_config_dict(values)
    assert isinstance(config, ExperimentConfig)
    return config


def changed(field: str, value: Any) -> dict[str, Any]:
    """``VALID`` with the setting of a dotted name changed (or added)."""
    config = copy.deepcopy(VALID)
    *groups, last = field.split(".")
    owner = config
    for group in groups:
        owner = owner[group]
    owner[last] = value
    return config
