"""Every impossible value of a setting is refused by one line: name, value, what is accepted."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from armt_jax.config import FAMILIES, ConfigError, ModelConfig, check_pairs, from_config_dict
from tests.config_values import VALID, changed

# (setting, value, what the message must be; `{field} = {value!r}: ` stands before it)
IMPOSSIBLE: list[tuple[str, Any, str]] = [
    ("name", "", "must not be empty"),
    ("workdir", "", "must name a folder"),
    ("seed", -1, "must be in [0, 2**31)"),
    ("seed", 2**31, "must be in [0, 2**31)"),
    ("model.family", "lstm", f"must be one of {', '.join(FAMILIES)}"),
    ("model.memory_passing", "up", "must be one of released, layerwise"),
    ("model.retrieval", "top2", "must be one of exact, top1"),
    ("model.retrieval_states", 0, "must be at least 1"),
    ("model.d_state", 0, "must be at least 1"),
    ("model.expand", 0, "must be at least 1"),
    ("model.chunk_size", 0, "must be at least 1"),
    (
        "model.rotary_scaling",
        (8.0, 1.0, 4.0, 64.0),
        "must be empty with gpt2: only Llama's frequencies are changed",
    ),
    ("model.d_conv", 1, "must be at least 2"),
    ("model.dt_rank", -1, "must be 0 (d_model / 16) or more"),
    ("model.attention_window", -1, "must be 0 (full) or more"),
    ("model.context_tokens", 0, "must be at least 1"),
    ("model.backbone", "bert", "must be one of gpt2, gpt_neox, llama"),
    (
        "model.rule",
        "hebb",
        "must be one of armt, armt_sequential, armt_no_gamma, linear, delta, delta_hard",
    ),
    *(
        (f"model.{name}", 0, "must be at least 1")
        for name in ("n_layer", "n_head", "d_model", "vocab_size", "n_positions")
    ),
    ("model.num_mem_tokens", 0, "must be at least 1"),
    ("model.d_mem", -4, "must be at least 1"),
    ("model.nu", 0, "must be at least 1"),
    ("model.nu", 64, "must be less than 2 * model.d_mem = 64"),
    ("model.memory_layers", (2,), "must be rising numbers of layers, 0 to 1; empty but for ARMT"),
    ("model.n_head", 3, "must divide model.d_model = 128"),
    ("model.rotary_pct", 0.0, "must be in (0, 1]"),
    ("model.rotary_pct", 1.5, "must be in (0, 1]"),
    ("model.rotary_base", 0.0, "must be positive"),
    ("model.layer_norm_eps", 0.0, "must be positive"),
    ("model.d_ff", 0, "must be at least 1"),
    ("model.n_kv_head", 0, "must be at least 1"),
    ("model.n_kv_head", 2, "must be None or model.n_head with gpt2, which shares no keys"),
    (
        "model.tie_embeddings",
        False,
        "must be None or True: GPT-2's output matrix is its token embedding",
    ),
    ("model.initializer_range", 0.0, "must be positive"),
    ("model.initializer_range", float("nan"), "must be positive"),
    ("model.attention_init_scale", 0.0, "must be positive"),
    ("model.position_init_scale", -1.0, "must be positive"),
    ("model.memory_token_init_scale", 0.0, "must be positive"),
    ("model.dtype", "int8", "must be one of float32, bfloat16, float64"),
    ("model.matmul_precision", "low", "must be one of default, high, highest"),
    (
        "model.vocab_size",
        102,
        "must be at least 103: the separators of associative retrieval are tokens 100 to 102",
    ),
    ("task.variant", "recall", "must be one of remember, rewrite"),
    ("task.num_pairs", 0, "must be at least 1"),
    ("task.num_pairs", 17, "must be at most 16, the number of keys of 1 digits"),
    ("task.key_size", 0, "must be at least 1"),
    ("task.value_size", 0, "must be at least 1"),
    ("curriculum.num_pairs", (), "needs at least one stage"),
    *(
        (f"curriculum.{name}", value, "needs 2 entries, one for each of curriculum.num_pairs")
        for name, value in (
            ("variant", ("remember",)),
            ("key_size", (1, 1, 1)),
            ("key_symbols", (16,)),
            ("random_symbols", (True,)),
            ("max_steps", (10,)),
            ("target", ()),
        )
    ),
    ("curriculum.num_queries", -1, "must be 0 (every key) or more"),
    ("optimizer.name", "sgd", "must be one of adamw, muon"),
    ("optimizer.learning_rate", 0.0, "must be positive"),
    ("optimizer.muon_learning_rate", -1.0, "must be positive"),
    ("optimizer.weight_decay", -0.1, "must be 0 or more"),
    ("optimizer.b1", 1.0, "must be in [0, 1)"),
    ("optimizer.b2", -0.5, "must be in [0, 1)"),
    ("optimizer.eps", 0.0, "must be positive"),
    ("optimizer.warmup_steps", -1, "must be 0 or more"),
    ("optimizer.schedule", "cosine", "must be one of constant, linear"),
    ("optimizer.scope", "epoch", "must be one of stage, last_stage, run"),
    ("optimizer.final_fraction", 1.5, "must be in [0, 1]"),
    ("optimizer.clip", "size", "must be one of norm, value, none"),
    ("optimizer.clip_threshold", 0.0, "must be positive"),
    *(
        (f"train.{name}", 0, "must be at least 1")
        for name in (
            "batch_size",
            "grad_accum",
            "log_every",
            "eval_every",
            "eval_samples",
            "checkpoint_every",
        )
    ),
    ("train.grad_accum", 3, "must divide train.batch_size = 8"),
    ("train.schedule", "pipeline", "must be one of auto, sequential, chunked, diagonal, whole"),
    ("train.remat", "full", "must be one of none, segment, sqrt"),
    ("train.bptt", -1, "must be 0 (the whole context) or more"),
    ("train.data_workers", -1, "must be 0 or more"),
    ("train.memory_contexts", -1, "must be 0 or more"),
    ("mesh.data", 0, "must be at least 1, or -1 for every device"),
    ("mesh.data", -2, "must be at least 1, or -1 for every device"),
    *((f"mesh.{name}", 0, "must be at least 1") for name in ("fsdp", "tensor", "stage")),
    ("evaluation.num_pairs", (), "needs at least one length"),
    ("evaluation.samples", 0, "must be at least 1"),
    ("evaluation.batch_size", 0, "must be at least 1"),
]


@pytest.mark.parametrize(("field", "value", "accepted"), IMPOSSIBLE)
def test_impossible_value_is_refused_by_name(field: str, value: Any, accepted: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_config_dict(changed(field, value))
    assert str(error.value) == f"{field} = {value!r}: {accepted}"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "curriculum.variant",
            ["remember", "forget"],
            "curriculum.variant[1] = 'forget': must be one of remember, rewrite",
        ),
        ("curriculum.num_pairs", [4, 0], "curriculum.num_pairs[1] = 0: must be at least 1"),
        (
            "curriculum.num_pairs",
            [17, 40],
            "curriculum.num_pairs[0] = 17: must be at most 16, the number of keys of 1 digits",
        ),
        ("curriculum.key_size", [0, 1], "curriculum.key_size[0] = 0: must be at least 1"),
        ("curriculum.key_symbols", [1, 16], "curriculum.key_symbols[0] = 1: must be 2 to 16"),
        ("curriculum.key_symbols", [16, 17], "curriculum.key_symbols[1] = 17: must be 2 to 16"),
        (
            "curriculum.key_symbols",
            [3, 16],
            "curriculum.num_pairs[0] = 4: must be at most 3, the number of keys of 1 digits of 3 "
            "symbols",
        ),
        (
            "curriculum.random_symbols",
            [True, False],
            "curriculum.num_pairs[0] = 4: must be at most 2, the number of keys of 1 digits of 2 "
            "symbols",
        ),
        ("curriculum.max_steps", [1, 0], "curriculum.max_steps[1] = 0: must be at least 1"),
        (
            "curriculum.target",
            [0.9, 0.0],
            "curriculum.target[1] = 0.0: must be positive "
            "(above 1: the stage always uses its max_steps)",
        ),
        ("evaluation.num_pairs", [0, 4], "evaluation.num_pairs[0] = 0: must be at least 1"),
        (
            "evaluation.num_pairs",
            [4, 17],
            "evaluation.num_pairs[1] = 17: must be at most 16, the number of keys of 1 digits",
        ),
        (
            "task.value_size",
            70,
            "segment length = 73: must be at most 64 (model.n_positions = 64)",
        ),
        (
            "curriculum.key_size",
            [1, 70],
            "segment length = 73: must be at most 64 (model.n_positions = 64)",
        ),
    ],
)
def test_impossible_entry_or_sum_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_config_dict(changed(field, value))
    assert str(error.value) == message


def test_every_group_is_covered_by_the_table() -> None:
    """A setting added to a group comes with its impossible values, or is listed here."""
    free = {
        "model.wrap_pos",
        "model.mixer_mlp",
        "curriculum.random_num_pairs",
        "optimizer.reset_per_stage",
    }
    tested = {field for field, _, _ in IMPOSSIBLE}
    for group in VALID:
        if isinstance(VALID[group], dict):
            cls = type(getattr(from_config_dict(VALID), group))
            fields = {f"{group}.{field.name}" for field in dataclasses.fields(cls)}
            assert fields - tested - free == set()


def test_rewrite_has_no_limit_of_pairs() -> None:
    check_pairs("x", "rewrite", 5000, 1)
    check_pairs("x", "remember", 256, 2)
    with pytest.raises(ConfigError, match=r"^x = 257: must be at most 256"):
        check_pairs("x", "remember", 257, 2)


def test_rotated_dimensions_must_be_pairs() -> None:
    """GPT-NeoX rotates pairs of a head's dimensions; GPT-2 has no rotary positions to refuse."""
    sizes: dict[str, Any] = {"n_head": 2, "d_model": 12, "rotary_pct": 0.5}
    ModelConfig(backbone="gpt2", **sizes)
    with pytest.raises(ConfigError) as error:
        ModelConfig(backbone="gpt_neox", **sizes)
    accepted = "must rotate an even number of dimensions, 2 or more, of a head's 6; this rotates 3"
    assert str(error.value) == f"model.rotary_pct = 0.5: {accepted}"
    with pytest.raises(ConfigError, match="this rotates 0"):
        ModelConfig(backbone="gpt_neox", n_head=2, d_model=12, rotary_pct=0.1)
    ModelConfig(backbone="gpt_neox", n_head=2, d_model=12, rotary_pct=0.34)


def test_a_llamas_heads_share_keys_evenly_and_turn_whole() -> None:
    with pytest.raises(ConfigError) as error:
        ModelConfig(backbone="llama", n_head=4, n_kv_head=3)
    assert str(error.value) == "model.n_kv_head = 3: must divide model.n_head = 4"
    with pytest.raises(ConfigError) as error:
        ModelConfig(backbone="llama", n_head=4, d_model=12)
    accepted = "must leave heads of an even width for rotary pairs, not 3"
    assert str(error.value) == f"model.n_head = 4: {accepted}"
    config = ModelConfig(backbone="llama", n_head=4, n_kv_head=1, d_model=24, rotary_pct=0.5)
    assert (config.kv_heads, config.rotary_dim) == (1, 6)
