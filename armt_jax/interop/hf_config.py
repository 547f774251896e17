"""``config.json`` of Hugging Face as settings of a model, and back.

A setting that would make another function of the same weights is refused by name, not ignored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.config.checks import one_of


@dataclasses.dataclass(frozen=True)
class _Keys:
    """How one architecture writes its shape.

    Attributes:
      architecture: transformers' class.
      fields: by our field: their key, and what it is where the file leaves it out.
      fixed: keys that must have one of some values; the first is what a missing key means.
    """

    architecture: str
    fields: dict[str, tuple[str, Any]]
    fixed: dict[str, tuple[Any, ...]]


_KEYS = {
    "gpt2": _Keys(
        "GPT2LMHeadModel",
        {
            "n_layer": ("n_layer", 12),
            "n_head": ("n_head", 12),
            "d_model": ("n_embd", 768),
            "d_ff": ("n_inner", None),
            "vocab_size": ("vocab_size", 50257),
            "n_positions": ("n_positions", 1024),
            "layer_norm_eps": ("layer_norm_epsilon", 1e-5),
            "tie_embeddings": ("tie_word_embeddings", True),
            "initializer_range": ("initializer_range", 0.02),
        },
        {
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
        },
    ),
    "gpt_neox": _Keys(
        "GPTNeoXForCausalLM",
        {
            "n_layer": ("num_hidden_layers", 44),
            "n_head": ("num_attention_heads", 64),
            "d_model": ("hidden_size", 6144),
            "d_ff": ("intermediate_size", 24576),
            "vocab_size": ("vocab_size", 50432),
            "n_positions": ("max_position_embeddings", 2048),
            "layer_norm_eps": ("layer_norm_eps", 1e-5),
            "tie_embeddings": ("tie_word_embeddings", False),
            "initializer_range": ("initializer_range", 0.02),
            "rotary_pct": ("rotary_pct", 0.25),
            "rotary_base": ("rotary_emb_base", 10000.0),
        },
        {
            "hidden_act": ("gelu",),
            "use_parallel_residual": (True,),
            "attention_bias": (True,),
        },
    ),
    "llama": _Keys(
        "LlamaForCausalLM",
        {
            "n_layer": ("num_hidden_layers", 32),
            "n_head": ("num_attention_heads", 32),
            "n_kv_head": ("num_key_value_heads", None),
            "d_model": ("hidden_size", 4096),
            "d_ff": ("intermediate_size", 11008),
            "vocab_size": ("vocab_size", 32000),
            "n_positions": ("max_position_embeddings", 2048),
            "layer_norm_eps": ("rms_norm_eps", 1e-6),
            "tie_embeddings": ("tie_word_embeddings", False),
            "initializer_range": ("initializer_range", 0.02),
            "rotary_base": ("rope_theta", 10000.0),
        },
        {"hidden_act": ("silu",), "attention_bias": (False,), "mlp_bias": (False,)},
    ),
}


_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def backbone_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of ``ModelConfig`` that a ``config.json`` gives.

    Args:
      config: the file's object, as transformers 4 or 5 writes it.
      where: its name, for messages.

    Raises:
      ConfigError: another architecture, or one of its variants that is not built here.
    """
    backbone = config.get("model_type")
    one_of(f"{where}: model_type", backbone, tuple(_KEYS))
    assert isinstance(backbone, str)
    keys = _KEYS[backbone]
    given = {**config, **_rotary_keys(config)}
    for key, accepted in keys.fixed.items():
        value = given.get(key, accepted[0])
        if value not in accepted:
            wanted = " or ".join(repr(option) for option in accepted)
            raise ConfigError(f"{where}: {key} = {value!r}: must be {wanted}")
    fields = {name: given.get(key, default) for name, (key, default) in keys.fields.items()}
    head_dim = given.get("head_dim")
    usual = fields["d_model"] // fields["n_head"]
    if head_dim not in (None, usual):
        raise ConfigError(
            f"{where}: head_dim = {head_dim!r}: must be hidden_size / num_attention_heads = {usual}"
        )
    for name in ("layer_norm_eps", "rotary_base", "rotary_pct"):
        if name in fields:
            fields[name] = float(fields[name])
    scaling = _rotary_scaling(config, backbone, where)
    return {"backbone": backbone, **fields, **({"rotary_scaling": scaling} if scaling else {})}


def config_json(config: ModelConfig) -> dict[str, Any]:
    """The ``config.json`` object of a model's backbone, as transformers 4 and 5 read it."""
    keys = _KEYS[config.backbone]
    values: dict[str, Any] = {
        "model_type": config.backbone,
        "architectures": [keys.architecture],
        **{key: options[0] for key, options in keys.fixed.items()},
    }
    ours = dataclasses.asdict(config)
    ours |= {"tie_embeddings": config.is_tied, "n_kv_head": config.kv_heads, "d_ff": config.ff_dim}
    if config.rotary_scaling:
        numbers = dict(zip(_LLAMA3, config.rotary_scaling, strict=True))
        numbers[_LLAMA3[-1]] = int(numbers[_LLAMA3[-1]])  # tokens
        values["rope_scaling"] = {"rope_type": "llama3", **numbers}
    return values | {key: ours[name] for name, (key, _) in keys.fields.items()}


def _rotary_scaling(config: Mapping[str, Any], backbone: str, where: str) -> tuple[float, ...]:
    """Llama 3's change of the rotary frequencies, in transformers 5's group or the older one."""
    kinds = ("default", "llama3") if backbone == "llama" else ("default",)
    found: tuple[float, ...] = ()
    for name in ("rope_parameters", "rope_scaling"):
        group = config.get(name) or {}
        kind = group.get("rope_type", group.get("type", "default"))
        if kind not in kinds:
            wanted = " or ".join(repr(one) for one in kinds)
            raise ConfigError(f"{where}: {name}.rope_type = {kind!r}: must be {wanted}")
        if kind == "llama3":
            missing = [key for key in _LLAMA3 if not isinstance(group.get(key), (int, float))]
            if missing:
                raise ConfigError(f"{where}: {name}: lacks the number {', '.join(missing)}")
            found = tuple(float(group[key]) for key in _LLAMA3)
    return found


def _rotary_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary settings under the older keys: transformers 5 keeps them in ``rope_parameters``."""
    rope = config.get("rope_parameters") or {}
    renamed = {}
    if "rope_theta" in rope:
        renamed |= {"rope_theta": rope["rope_theta"], "rotary_emb_base": rope["rope_theta"]}
    if "partial_rotary_factor" in rope:
        renamed["rotary_pct"] = rope["partial_rotary_factor"]
    if "rotary_pct" not in config and "partial_rotary_factor" in config:
        renamed["rotary_pct"] = config["partial_rotary_factor"]
    return renamed
