"""The models of the figures at one size of state (Appendix E); not an experiment of its own.

4 layers of width 128, 0.5 to 0.8 million parameters, and about the 99,072 floats of state that ARMT
has with ``d_mem = 32``: ``A`` and ``z``, 4 x (192 x 128 + 192). The last inputs of convolutions and
token shifts are counted in the others' (``armt_jax.state_size``; ``tests/figure_configs_test.py``
holds each to 5 %). Appendix E says that Mamba's state size is 32 as ARMT's memory dimension is; a
third of the floats: ``mamba_32`` is that one.

RWKV's state is width squared over heads, so it reaches the size with one head of width 156 only.
RMT and PRMT have what 4 memory tokens hold, as in the paper: 512 and 2,048 floats.
"""

from typing import Any

# Families that are held to ARMT's state, and the one of the paper's own setting.
EQUAL_STATE = ("mamba", "mamba2", "delta_net", "gated_delta_net", "rwkv5", "rwkv7", "sliding")

MODELS: dict[str, dict[str, Any]] = {
    "armt": {"model": {"family": "armt", "d_ff": 128}},
    "armt_no_gamma": {"model": {"family": "armt", "d_ff": 128, "rule": "armt_no_gamma"}},
    "linear": {"model": {"family": "armt", "d_ff": 128, "rule": "linear"}},
    "armt_sequential": {"model": {"family": "armt", "d_ff": 128, "rule": "armt_sequential"}},
    "delta": {"model": {"family": "armt", "d_ff": 128, "rule": "delta"}},
    "delta_hard": {"model": {"family": "armt", "d_ff": 128, "rule": "delta_hard"}},
    "mamba": {"model": {"family": "mamba", "d_state": 96}},
    "mamba_32": {"model": {"family": "mamba", "d_state": 32}},
    "mamba2": {"model": {"family": "mamba2", "d_state": 96}},
    "delta_net": {"model": {"family": "delta_net", "d_state": 88}},
    "gated_delta_net": {"model": {"family": "gated_delta_net", "d_state": 88}},
    "rwkv5": {"model": {"family": "rwkv5", "d_model": 156, "n_head": 1, "d_ff": 96}},
    "rwkv7": {"model": {"family": "rwkv7", "d_model": 156, "n_head": 1, "d_ff": 96}},
    # Without the memory's matrices; d_ff makes up for their parameters.
    "rmt": {"model": {"family": "rmt", "d_ff": 224}},
    "prmt": {"model": {"family": "prmt", "d_ff": 224}},
    "prmt_layerwise": {"model": {"family": "prmt", "d_ff": 224, "memory_passing": "layerwise"}},
    "rmt_r": {"model": {"family": "rmt_r", "d_ff": 224, "retrieval_states": 512}},
    # References: everything seen, and the last tokens that as many floats hold.
    "transformer": {"model": {"family": "transformer", "backbone": "gpt_neox", "d_ff": 224}},
    "sliding": {
        "model": {
            "family": "transformer",
            "backbone": "gpt_neox",
            "d_ff": 224,
            "attention_window": 97,
        }
    },
}

# AdamW's part of Muon moves with it, at the ratio of configs/associative_retrieval.py.
RATES: dict[str, dict[str, Any]] = {
    "muon_2e-3": {"optimizer": {"name": "muon", "learning_rate": 8e-4, "muon_learning_rate": 2e-3}},
    "muon_5e-3": {"optimizer": {"name": "muon", "learning_rate": 2e-3, "muon_learning_rate": 5e-3}},
    "muon_1e-2": {"optimizer": {"name": "muon", "learning_rate": 4e-3, "muon_learning_rate": 1e-2}},
    "adamw_1e-3": {"optimizer": {"name": "adamw", "learning_rate": 1e-3}},
    "adamw_3e-3": {"optimizer": {"name": "adamw", "learning_rate": 3e-3}},
}
PAPER_RATE: dict[str, dict[str, Any]] = {
    "adamw_3e-4": {"optimizer": {"name": "adamw", "learning_rate": 3e-4}}
}
# Settings that say how large a model is: left out where the base experiment is a tiny one.
SIZES = ("d_ff", "d_model", "n_head", "d_state", "retrieval_states", "attention_window")


def chosen(names: tuple[str, ...], *, tiny: bool = False) -> dict[str, dict[str, Any]]:
    """Settings of the named models; with ``tiny`` what they are, without how large."""
    models = {name: MODELS[name] for name in names}
    if not tiny:
        return models
    return {
        name: {"model": {key: v for key, v in settings["model"].items() if key not in SIZES}}
        for name, settings in models.items()
    }
