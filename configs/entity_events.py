"""Events on mutable entities: what is the latest value of an attribute that was set many times?

    python -m experiments.main --config=configs/entity_events.py[:VARIANT]

Any value can be replaced: ``--config.model.rule=delta_hard --config.seed=1``.

Variant   Model            Trains on                                    Cost
default   4 x 128, GPT-2   to 50 events on 8 entities of 4 attributes   2 CPU cores, not finished
tiny      1 x 32, GPT-2    4 events on 2 entities, 32 steps             2 CPU cores, a smoke run

Attributes are set, overwritten and deleted; the last of them hold numbers. Evaluated to 500 events,
ten times what is trained on: a memory that keeps old values beside new ones loses there.
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
        "name": "entity_events",
        "workdir": "runs/entity_events",
        "task": {
            "name": "entity_events",
            "num_events": 50,
            "num_entities": 8,
            "num_attributes": 4,
            "numeric_attributes": 2,
            "value_size": 2,
            "delete_share": 0.2,
        },
        "curriculum": {
            "num_events": (4, 12, 24, 50),
            "num_entities": (4, 4, 8, 8),
            "num_attributes": (1, 2, 4, 4),
            "numeric_attributes": (0, 1, 2, 2),
            "delete_share": (0.0, 0.1, 0.2, 0.2),
            "max_steps": (3000, 1000, 1000, 500),
            "target": (0.98, 0.98, 0.98, 1.1),
            "num_queries": 0,
        },
        "evaluation": {"num_events": (25, 50, 100, 200, 500), "samples": 1000, "batch_size": 100},
    }


def _tiny() -> dict[str, Any]:
    return {
        "workdir": "runs/entity_events_tiny",
        "task": {
            "num_events": 4,
            "num_entities": 2,
            "num_attributes": 2,
            "numeric_attributes": 1,
        },
        "curriculum": {
            "num_events": (4, 4),
            "num_entities": (2, 2),
            "num_attributes": (2, 2),
            "numeric_attributes": (1, 1),
            "delete_share": (0.2, 0.2),
            "max_steps": (16, 16),
            "target": (0.99, 0.99),
        },
        "evaluation": {"num_events": (4, 8), "samples": 50, "batch_size": 50},
    }


VARIANTS = {
    "default": (),
    "tiny": (base.tiny, _tiny),
}
