"""Associative retrieval, Remember: ARMT learns to store key-value pairs and to look them up.

    python -m experiments.main --config=configs/ar_remember.py[:VARIANT]

Any value can be replaced: ``--config.model.rule=delta_hard --config.seed=1``.

Variant      Model             Trains on                   Cost
default      4 x 128, GPT-2    to 50 pairs, key size 2     2 CPU cores, up to 2 hours
quickstart   2 x 64, GPT-2     to 15 pairs, key size 1     2 CPU cores, up to 5 minutes (make quickstart)
paper        4 x 128, NeoX     to 200 pairs, key size 3    one GPU
tiny         1 x 32, GPT-2     1 and 2 pairs, 32 steps     2 CPU cores, 30 seconds

Expected result: exact match of 0.99 or more at 50 pairs (default), at 15 pairs (quickstart).
The model learns to look up one and two pairs first, asked for every key; started on many
pairs, or asked for one key per context, a small model stays on a plateau for thousands of steps.
"""

import ml_collections

from armt_jax.config import ConfigError

VARIANTS = ("default", "quickstart", "paper", "tiny")


def get_config(variant: str = "default") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise ConfigError(f"--config variant = {variant!r}: must be one of {', '.join(VARIANTS)}")
    config = _default()
    if variant != "default":
        config.workdir = f"runs/ar_remember_{variant}"
        {"quickstart": _quickstart, "paper": _paper, "tiny": _tiny}[variant](config)
    return config


def _default() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.name = "ar_remember"
    config.seed = 0
    config.workdir = "runs/ar_remember"

    config.model = model = ml_collections.ConfigDict()
    model.family = "armt"
    model.backbone = "gpt2"
    model.n_layer = 4
    model.n_head = 4
    model.d_model = 128
    model.vocab_size = 128
    model.n_positions = 64
    model.num_mem_tokens = 4
    model.d_mem = 32
    model.nu = 3
    model.rule = "armt"
    model.wrap_pos = False
    model.rotary_pct = 0.25
    model.rotary_base = 10000.0
    model.layer_norm_eps = 1e-5
    model.d_ff = 512
    model.dtype = "float32"

    config.task = task = ml_collections.ConfigDict()
    task.variant = "remember"
    task.num_pairs = 50
    task.key_size = 2
    task.value_size = 1

    config.curriculum = curriculum = ml_collections.ConfigDict()
    curriculum.variant = ("remember",) * 8
    curriculum.num_pairs = (1, 2, 4, 8, 8, 15, 30, 50)
    curriculum.key_size = (1, 1, 1, 1, 2, 2, 2, 2)
    curriculum.max_steps = (500, 1500, 1500, 1500, 1500, 1000, 1000, 1000)
    curriculum.target = (0.99,) * 7 + (0.999,)
    curriculum.num_queries = 0
    curriculum.random_num_pairs = False

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.learning_rate = 1e-3
    optimizer.weight_decay = 1e-3
    optimizer.b1 = 0.9
    optimizer.b2 = 0.999
    optimizer.eps = 1e-8
    optimizer.warmup_steps = 50
    optimizer.schedule = "linear"
    optimizer.scope = "last_stage"
    optimizer.final_fraction = 0.05
    optimizer.reset_per_stage = False
    optimizer.clip = "norm"
    optimizer.clip_threshold = 1.0

    config.train = train = ml_collections.ConfigDict()
    train.batch_size = 32
    train.grad_accum = 1
    train.log_every = 10
    train.eval_every = 50
    train.eval_samples = 512
    train.checkpoint_every = 100
    train.data_workers = 0

    config.evaluation = evaluation = ml_collections.ConfigDict()
    evaluation.num_pairs = (10, 20, 50, 100, 200)
    evaluation.samples = 1000
    evaluation.batch_size = 100
    return config


def _quickstart(config: ml_collections.ConfigDict) -> None:
    config.model.update({"n_layer": 2, "n_head": 4, "d_model": 64, "d_mem": 16, "d_ff": 256})
    config.task.update({"num_pairs": 15, "key_size": 1})
    config.curriculum.variant = ("remember",) * 3
    config.curriculum.num_pairs = (8, 12, 15)
    config.curriculum.key_size = (1,) * 3
    config.curriculum.max_steps = (3000, 500, 500)
    config.curriculum.target = (0.98, 0.99, 0.998)
    config.optimizer.learning_rate = 2e-3
    config.train.batch_size = 64
    config.evaluation.num_pairs = (2, 4, 8, 12, 15, 16)


def _paper(config: ml_collections.ConfigDict) -> None:
    """Appendices C and E, and the authors' scripts: every stage a training of its own."""
    config.model.backbone = "gpt_neox"
    config.task.update({"num_pairs": 200, "key_size": 3})
    config.curriculum.variant = ("remember",) * 10
    config.curriculum.num_pairs = (1, 2, 3, 5, 10, 20, 40, 50, 50, 200)
    config.curriculum.key_size = (1, 1, 1, 1, 1, 2, 2, 2, 3, 3)
    config.curriculum.max_steps = (2000,) + (10_000,) * 8 + (15_000,)
    config.curriculum.target = (1.0,) * 10
    config.curriculum.num_queries = 1
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 0
    config.optimizer.scope = "stage"
    config.optimizer.final_fraction = 0.0
    config.optimizer.reset_per_stage = True
    config.optimizer.clip = "value"
    config.train.batch_size = 512
    config.train.eval_every = 250
    config.train.eval_samples = 1000
    config.train.checkpoint_every = 250
    config.evaluation.num_pairs = (1, 2, 3, 5, 10, 20, 40, 50, 100, 200, 500)
    config.evaluation.samples = 10_000


def _tiny(config: ml_collections.ConfigDict) -> None:
    config.model.update({"n_layer": 1, "n_head": 2, "d_model": 32, "d_mem": 8, "d_ff": 64})
    config.model.num_mem_tokens = 2
    config.task.update({"num_pairs": 2, "key_size": 1})
    config.curriculum.variant = ("remember",) * 2
    config.curriculum.num_pairs = (1, 2)
    config.curriculum.key_size = (1, 1)
    config.curriculum.max_steps = (16, 16)
    config.curriculum.target = (0.99, 0.99)
    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_steps = 4
    config.train.batch_size = 8
    config.train.log_every = 4
    config.train.eval_every = 8
    config.train.eval_samples = 64
    config.train.checkpoint_every = 10
    config.evaluation.num_pairs = (1, 2, 4)
    config.evaluation.samples = 100
    config.evaluation.batch_size = 50
