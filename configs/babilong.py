"""BABILong: answer a question whose facts lie among the sentences of books (arXiv 2406.10149)."""

from typing import Any

import ml_collections

from armt_jax.config import ConfigError
from armt_jax.config.babilong import BABI_TASKS, SIMULATED_TASKS
from configs import associative_retrieval as base

PRESETS = ("default", "paper", "tiny")


def get_config(variant: str = "qa1") -> ml_collections.ConfigDict:
    """``TASK`` or ``TASK,PRESET``."""
    task, _, preset = variant.partition(",")
    preset = preset or "default"
    if task not in BABI_TASKS or preset not in PRESETS:
        raise ConfigError(
            f"--config variant = {variant!r}: must be a task qa1 to qa20, and behind a comma one "
            f"of {', '.join(PRESETS)}"
        )
    config = ml_collections.ConfigDict(base.default())
    config.update(_default(task))
    if preset == "paper":
        config.update(_paper(task))
    if preset == "tiny":
        config.update(base.tiny())
        config.update(_tiny(task))
    return config


def _default(task: str) -> dict[str, Any]:
    return {
        "name": f"babilong_{task}",
        "workdir": f"runs/babilong_{task}",
        "model": {"rule": "delta_hard", "vocab_size": 1024, "n_positions": 96},
        "task": {
            "name": "babilong",
            "task": task,
            "data_dir": None,
            "facts": "simulator" if task in SIMULATED_TASKS else "babi",
            "noise": "books",
            "tokenizer": "small",
            "segment_size": 64,
        },
        "curriculum": {
            "num_segments": (4, 4, 4, 8, 8, 16),
            "max_facts": (4, 4, 4, 8, 0, 0),
            "fact_per_segment": (True, True, True, True, False, False),
            "noise": (0.0, 0.3, 1.0, 1.0, 1.0, 1.0),
            "max_steps": (1500, 500, 500, 500, 500, 400),
            "target": (0.98, 0.98, 0.98, 0.98, 0.98, 1.1),
            "num_queries": 0,
            "random_num_segments": True,
        },
        "evaluation": {"lengths": ("1024", "4k", "64k"), "samples": 100, "batch_size": 20},
    }


def _tiny(task: str) -> dict[str, Any]:
    return {
        "workdir": f"runs/babilong_{task}_tiny",
        "model": {"vocab_size": 512, "n_positions": 64},
        "task": {"noise": "built_in", "segment_size": 48},
        "curriculum": {
            "num_segments": (2, 4),
            "max_facts": (4, 0),
            "fact_per_segment": (True, False),
            "noise": (0.5, 1.0),
            "max_steps": (8, 8),
            "target": (0.99, 0.99),
        },
        "train": {"eval_samples": 32},
        "evaluation": {"lengths": ("512",), "samples": 8, "batch_size": 4},
    }


def _paper(task: str) -> dict[str, Any]:
    return {}
