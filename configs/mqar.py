"""MQAR: multi-query associative recall with the settings of Zoology (arXiv 2312.04927).

    python -m experiments.main --config=configs/mqar.py[:VARIANT]

Any value can be replaced: ``--config.model.family=mamba --config.seed=1``.

Variant   Model            Trains on                                   Cost
default   4 x 128, GPT-2   4 to 16 pairs, 64 to 256 tokens             2 CPU cores, not finished
zoology   4 x 128, GPT-2   4 to 64 pairs, 64 to 512 tokens             GPUs, not run
tiny      1 x 32, GPT-2    2 pairs in 16 tokens, 32 steps              2 CPU cores, a smoke run

Vocabulary of 8,192, keys asked early (power 0.01), random filler; the text is read in segments, and
every key is asked inside it. What differs from Zoology: stages of growing length instead of one
training on all of them.
"""

from typing import Any

import ml_collections

from armt_jax.config import ConfigError
from configs import associative_retrieval as base


def get_config(variant: str = "default") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise ConfigError(f"--config variant = {variant!r}: must be one of {', '.join(VARIANTS)}")
    config = ml_collections.ConfigDict(base.default())
    config.update(_default())
    for change in VARIANTS[variant]:
        config.update(change())
    return config


def _default() -> dict[str, Any]:
    return {
        "name": "mqar",
        "workdir": "runs/mqar",
        "model": {"vocab_size": 8192},
        "task": {
            "name": "mqar",
            "num_pairs": 16,
            "length": 256,
            "vocab_size": 8192,
            "power": 0.01,
            "random_filler": True,
            "segment_size": 32,
        },
        "curriculum": {
            "num_pairs": (4, 8, 16),
            "length": (64, 128, 256),
            "max_steps": (3000, 1000, 1000),
            "target": (0.98, 0.99, 1.1),
        },
        "evaluation": {
            "num_pairs": (4, 8, 16, 32),
            "length": (64, 128, 256, 512),
            "samples": 500,
            "batch_size": 50,
        },
    }


def _zoology() -> dict[str, Any]:
    return {
        "workdir": "runs/mqar_zoology",
        "task": {"num_pairs": 64, "length": 512},
        "curriculum": {
            "num_pairs": (4, 8, 16, 32, 64),
            "length": (64, 128, 256, 512, 512),
            "max_steps": (3000, 2000, 2000, 2000, 4000),
            "target": (0.98, 0.99, 0.99, 0.99, 1.1),
        },
        "train": {"batch_size": 256},
        "evaluation": {
            "num_pairs": (4, 8, 16, 32, 64, 128, 256),
            "length": (64, 128, 256, 512, 512, 1024, 1024),
            "samples": 1000,
        },
    }


def _tiny() -> dict[str, Any]:
    return {
        "workdir": "runs/mqar_tiny",
        "model": {"vocab_size": 64},
        "task": {"num_pairs": 2, "length": 16, "vocab_size": 64, "segment_size": 8},
        "curriculum": {
            "num_pairs": (2, 2),
            "length": (16, 16),
            "max_steps": (16, 16),
            "target": (0.99, 0.99),
        },
        "evaluation": {"num_pairs": (2, 4), "length": (16, 32), "samples": 50},
    }


VARIANTS = {
    "default": (),
    "zoology": (_zoology,),
    "tiny": (base.tiny, _tiny),
}
