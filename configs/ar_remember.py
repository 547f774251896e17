"""Associative retrieval, Remember: ARMT learns to store key-value pairs and to look them up.

    python -m experiments.main --config=configs/ar_remember.py[:VARIANT]

Any value can be replaced: ``--config.model.rule=delta_hard --config.seed=1``.

Variant      Model             Trains on                   Cost
default      4 x 128, GPT-2    to 50 pairs, key size 2     2 CPU cores, 38 min measured
quickstart   2 x 64, GPT-2     to 15 pairs, key size 1     2 CPU cores, 72 s measured
paper        4 x 128, NeoX     to 200 pairs, key size 3    one GPU
tiny         1 x 32, GPT-2     1 and 2 pairs, 32 steps     2 CPU cores, a smoke run

``make quickstart`` runs ``quickstart``.

Aim: exact match of 0.99 or more at 50 pairs (default), at 15 pairs (quickstart).
Measured (seed 0, 1,000 unseen contexts, one query): quickstart 1.000 at 15 pairs; default 0.998
at 50 pairs, 0.804 at 100, 0.504 at 200, after 1,250 steps on 2 cores shared with other work.
``--config.model.rule=delta`` (seed 0): 1.000, 0.903 and 0.556 after 1,050 steps of one such core.
The first stage is small enough to find out how to look up, and asks for every key; the second has
keys that no single digit tells apart (``key_symbols``).
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
        "name": "ar_remember",
        "workdir": "runs/ar_remember",
        "task": {"variant": "remember", "num_pairs": 50, "key_size": 2, "value_size": 1},
        "curriculum": {
            "variant": ("remember",) * 5,
            "num_pairs": (4, 4, 8, 16, 50),
            "key_size": (1, 2, 2, 2, 2),
            "key_symbols": (16, 4, 4, 16, 16),
            "random_symbols": (False,) * 5,
            "max_steps": (3000, 2000, 1000, 1000, 600),
            "target": (0.98, 0.98, 0.99, 0.99, 1.1),
            "num_queries": 0,
            "random_num_pairs": False,
        },
        "evaluation": {"num_pairs": (10, 20, 50, 100, 200), "samples": 1000, "batch_size": 100},
    }


def _quickstart() -> dict[str, Any]:
    return {
        "workdir": "runs/ar_remember_quickstart",
        "task": {"num_pairs": 15, "key_size": 1},
        "curriculum": {
            "variant": ("remember",) * 3,
            "num_pairs": (4, 8, 15),
            "key_size": (1,) * 3,
            "key_symbols": (16,) * 3,
            "random_symbols": (False,) * 3,
            "max_steps": (3000, 500, 500),
            "target": (0.98, 0.99, 0.998),
        },
        "evaluation": {"num_pairs": (2, 4, 8, 12, 15, 16)},
    }


def _paper() -> dict[str, Any]:
    return {
        "workdir": "runs/ar_remember_paper",
        "task": {"num_pairs": 200, "key_size": 3},
        "curriculum": {
            "variant": ("remember",) * 10,
            "num_pairs": (1, 2, 3, 5, 10, 20, 40, 50, 50, 200),
            "key_size": (1, 1, 1, 1, 1, 2, 2, 2, 3, 3),
            "key_symbols": (16,) * 10,
            "random_symbols": (False,) * 10,
            "max_steps": (2000, *(10_000,) * 8, 15_000),
            "target": (1.0,) * 10,
            "num_queries": 1,
        },
        "evaluation": {
            "num_pairs": (1, 2, 3, 5, 10, 20, 40, 50, 100, 200, 500),
            "samples": 10_000,
        },
    }


def _tiny() -> dict[str, Any]:
    return {
        "workdir": "runs/ar_remember_tiny",
        "task": {"num_pairs": 2, "key_size": 1},
        "curriculum": {
            "variant": ("remember", "remember"),
            "num_pairs": (1, 2),
            "key_size": (1, 1),
            "key_symbols": (16, 16),
            "random_symbols": (False,) * 2,
            "max_steps": (16, 16),
            "target": (0.99, 0.99),
        },
        "evaluation": {"num_pairs": (1, 2, 4), "samples": 100, "batch_size": 50},
    }


VARIANTS = {
    "default": (),
    "quickstart": (base.small, _quickstart),
    "paper": (base.paper, _paper),
    "tiny": (base.tiny, _tiny),
}
