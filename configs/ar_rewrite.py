"""Associative retrieval, Rewrite: keys repeat, and the latest value of a key is the answer.

    python -m experiments.main --config=configs/ar_rewrite.py[:VARIANT]

Any value can be replaced: ``--config.model.rule=delta_hard --config.seed=1``.

Variant   Model             Trains on                           Cost
default   4 x 128, GPT-2    Remember, then to 50 updates        one CPU core, 39 minutes
paper     4 x 128, NeoX     to 50 updates                       one GPU
tiny      1 x 32, GPT-2     1 pair, then 3 updates, 32 steps    2 CPU cores, a smoke run

Aim: exact match of 0.995 or more at 500 updates, ten times the trained length.
Measured (seeds 0 to 2, 700 steps, 1,000 unseen contexts each, ``results/ar_rewrite.json``): 1.000
at 50, 100, 200, 300, 400 and 500 updates.
Ablation (``--config.model.rule=...``, seed 0): ``delta`` has 1.000 at all of these,
``armt_no_gamma`` 1.000, 1.000, 0.995, 0.931, 0.781 and 0.662: without gamma it breaks in the
hundreds of updates.
The model first learns to look up (Remember, 4 unique keys, every key asked) and then to replace,
in contexts of 2 to 16 keys and as many values (``random_symbols``): few of them are rewritten
often, which shows what replacing leaves behind.
Thousands of updates: ``python -m experiments.evaluate --workdir=... --pairs=5000 --samples=100``.
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
        "name": "ar_rewrite",
        "workdir": "runs/ar_rewrite",
        "task": {"variant": "rewrite", "num_pairs": 500, "key_size": 1, "value_size": 1},
        "curriculum": {
            "variant": ("remember", "remember", "rewrite", "rewrite"),
            "num_pairs": (4, 12, 12, 50),
            "key_size": (1,) * 4,
            "key_symbols": (16,) * 4,
            "random_symbols": (False, False, True, True),
            "max_steps": (3000, 500, 500, 500),
            "target": (0.98, 0.99, 0.99, 1.1),
            "num_queries": 0,
            "random_num_pairs": False,
        },
        "evaluation": {
            "num_pairs": (50, 100, 200, 300, 400, 500),
            "samples": 1000,
            "batch_size": 100,
        },
    }


def _paper() -> dict[str, Any]:
    return {
        "workdir": "runs/ar_rewrite_paper",
        "curriculum": {
            "variant": ("rewrite",) * 8,
            "num_pairs": (1, 2, 3, 5, 10, 20, 40, 50),
            "key_size": (1,) * 8,
            "key_symbols": (16,) * 8,
            "random_symbols": (False,) * 8,
            "max_steps": (2000, *(10_000,) * 7),
            "target": (1.0,) * 8,
            "num_queries": 1,
        },
        "evaluation": {
            "num_pairs": (10, 20, 50, 100, 200, 300, 400, 500, 5000),
            "samples": 10_000,
        },
    }


def _tiny() -> dict[str, Any]:
    return {
        "workdir": "runs/ar_rewrite_tiny",
        "task": {"num_pairs": 3, "key_size": 1},
        "curriculum": {
            "variant": ("remember", "rewrite"),
            "num_pairs": (1, 3),
            "key_size": (1, 1),
            "key_symbols": (16, 16),
            "random_symbols": (False,) * 2,
            "max_steps": (16, 16),
            "target": (0.99, 0.99),
        },
        "evaluation": {"num_pairs": (1, 3, 6), "samples": 100, "batch_size": 50},
    }


VARIANTS = {
    "default": (),
    "paper": (base.paper, _paper),
    "tiny": (base.tiny, _tiny),
}
