"""The shape of a model."""

from __future__ import annotations

import dataclasses

from armt_jax.config.checks import one_of, positive, require

FAMILIES = (
    "armt",
    "mamba",
    "mamba2",
    "delta_net",
    "gated_delta_net",
    "rwkv5",
    "rwkv7",
)
# Recurrent models: no attention, no positions, no memory tokens.
STATE_SPACE_FAMILIES = (
    "mamba",
    "mamba2",
    "delta_net",
    "gated_delta_net",
    "rwkv5",
    "rwkv7",
)
BACKBONES = ("gpt2", "gpt_neox")
DTYPES = ("float32", "bfloat16", "float64")
MATMUL_PRECISIONS = ("default", "high", "highest")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape of a segment-recurrent model.

    ``d_mem`` is the width of keys and queries before the feature map: the associative matrix
    of one layer has ``2 * nu * d_mem`` rows (DPFP) and ``d_model`` columns. ``n_positions`` is
    the number of learned positions of a GPT-2 before any wrapping: without ``wrap_pos`` the
    tokens and the memory tokens of one segment share them, with it memory tokens get
    ``num_mem_tokens`` rows of their own. ``rotary_pct`` (GPT-NeoX) is the rotated share of a head.
    ``initializer_range`` is the standard deviation of embeddings and weight matrices at
    initialisation (Hugging Face's name and, at 0.02, its value, meant for width 768). Recall reads
    the residual stream without a norm, so a narrow model that starts at 0.02 remembers next to
    nothing at first: its features are far below ``eps``, and little of a segment reaches its
    memory tokens (``BUILD_NOTES.md``). ``attention_init_scale``, ``position_init_scale`` and
    ``memory_token_init_scale`` multiply it for the output projection of attention (None: as the
    MLP's, GPT-2's ``1/sqrt(2 n_layer)``, GPT-NeoX's 1), the learned positions and the memory
    tokens.
    ``dtype`` is the dtype of the computation, ``None`` following the parameters;
    the memory state, what is projected for it, softmax, layer norm's statistics and logits are
    never narrower than float32. ``matmul_precision`` is that of all matrix products, as JAX names
    it: on accelerators ``default`` computes float32 with fewer digits (``models/precision.py``).
    """

    family: str = "armt"
    backbone: str = "gpt2"
    n_layer: int = 4
    n_head: int = 4
    d_model: int = 128
    vocab_size: int = 128
    n_positions: int = 64
    num_mem_tokens: int = 4
    d_mem: int = 32
    nu: int = 3
    rule: str = "armt"
    wrap_pos: bool = False
    rotary_pct: float = 0.25
    rotary_base: float = 10000.0
    layer_norm_eps: float = 1e-5
    d_ff: int | None = None
    initializer_range: float = 0.02
    attention_init_scale: float | None = None
    position_init_scale: float = 1.0
    memory_token_init_scale: float = 1.0
    dtype: str | None = None
    matmul_precision: str = "default"
    # mamba, mamba2, delta_net, gated_delta_net, rwkv5, rwkv7
    d_state: int = 32
    d_conv: int = 4
    expand: int = 2
    dt_rank: int = 0
    mixer_mlp: bool = False
    chunk_size: int = 16

    def __post_init__(self) -> None:
        from armt_jax.memory.rules import PRESETS

        one_of("model.family", self.family, FAMILIES)
        one_of("model.backbone", self.backbone, BACKBONES)
        one_of("model.rule", self.rule, tuple(PRESETS))
        sizes = ("n_layer", "n_head", "d_model", "vocab_size", "n_positions", "num_mem_tokens")
        positive(self, "model", *sizes, "d_mem", "nu")
        require(
            self.d_model % self.n_head == 0,
            "model.n_head",
            self.n_head,
            f"must divide model.d_model = {self.d_model}",
        )
        require(
            self.nu < 2 * self.d_mem,
            "model.nu",
            self.nu,
            f"must be less than 2 * model.d_mem = {2 * self.d_mem}",
        )
        require(
            0.0 < self.rotary_pct <= 1.0, "model.rotary_pct", self.rotary_pct, "must be in (0, 1]"
        )
        if self.backbone == "gpt_neox" and not self.is_state_space:
            rotated = self.rotary_dim
            require(
                rotated >= 2 and rotated % 2 == 0,
                "model.rotary_pct",
                self.rotary_pct,
                "must rotate an even number of dimensions, 2 or more, of a head's "
                f"{self.head_dim}; this rotates {rotated}",
            )
        numbers = ("rotary_base", "layer_norm_eps", "initializer_range", "attention_init_scale")
        for name in (*numbers, "position_init_scale", "memory_token_init_scale"):
            value = getattr(self, name)
            if value is not None:
                require(value > 0, f"model.{name}", value, "must be positive")
        if self.d_ff is not None:
            positive(self, "model", "d_ff")
        if self.dtype is not None:
            one_of("model.dtype", self.dtype, DTYPES)
        one_of("model.matmul_precision", self.matmul_precision, MATMUL_PRECISIONS)
        self._check_state_space()

    def _check_state_space(self) -> None:
        positive(self, "model", "d_state", "expand", "chunk_size")
        require(self.d_conv >= 2, "model.d_conv", self.d_conv, "must be at least 2")
        require(
            self.dt_rank >= 0, "model.dt_rank", self.dt_rank, "must be 0 (d_model / 16) or more"
        )
        if self.family in ("rwkv5", "rwkv7"):
            require(not self.mixer_mlp, "model.mixer_mlp", True, "must be False, RWKV has its own")

    @property
    def is_state_space(self) -> bool:
        """Whether the family is one of ``STATE_SPACE_FAMILIES``."""
        return self.family in STATE_SPACE_FAMILIES

    @property
    def learned_positions(self) -> bool:
        """Whether there is a table of positions, which bounds the length of a segment."""
        return self.backbone == "gpt2" and not self.is_state_space

    @property
    def d_inner(self) -> int:
        """Inner width of a state-space mixer: ``expand`` times the model's width."""
        return self.expand * self.d_model

    @property
    def residual_init(self) -> float:
        """Initial standard deviation of the projection that ends an MLP."""
        scale = 1.0 if self.backbone == "gpt_neox" else (2 * self.n_layer) ** -0.5
        return self.initializer_range * scale

    @property
    def attention_init(self) -> float:
        """Initial standard deviation of the projection that ends an attention."""
        if self.attention_init_scale is None:
            return self.residual_init
        return self.initializer_range * self.attention_init_scale

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_head

    @property
    def rotary_dim(self) -> int:
        """Dimensions of a head that rotary positions turn (GPT-NeoX)."""
        return int(self.rotary_pct * self.head_dim)

    @property
    def ff_dim(self) -> int:
        """Width of the hidden layer of the MLP: ``d_ff``, or 4 times the model's width."""
        return self.d_ff if self.d_ff is not None else 4 * self.d_model

    def check_segment(self, length: int) -> None:
        """Raise ``ConfigError`` where a segment of ``length`` tokens has no room in positions."""
        if not self.learned_positions:
            return
        room = self.n_positions - (0 if self.wrap_pos else self.num_mem_tokens)
        require(
            length <= room,
            "segment length",
            length,
            f"must be at most {room} (model.n_positions = {self.n_positions}"
            + ("" if self.wrap_pos else f" less model.num_mem_tokens = {self.num_mem_tokens}")
            + ")",
        )
