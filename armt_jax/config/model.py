"""The shape of a model."""

from __future__ import annotations

import dataclasses

from armt_jax.config import room
from armt_jax.config.backbone_settings import check_backbone
from armt_jax.config.checks import one_of, positive, require
from armt_jax.config.families import (
    BACKBONES,
    DTYPES,
    FAMILIES,
    MATMUL_PRECISIONS,
    MEMORY_COPIES,
    MEMORY_PASSINGS,
    ON_BACKBONES,
    RETRIEVALS,
    STATE_SPACE_FAMILIES,
)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape of a segment-recurrent model.

    ``d_mem`` is the width of keys and queries before the feature map: the associative matrix
    of one layer has ``2 * nu * d_mem`` rows (DPFP) and ``d_model`` columns. ``n_positions`` is
    the number of learned positions of a GPT-2 before any wrapping: without ``wrap_pos`` the
    tokens and the memory tokens of one segment share them, with it memory tokens get
    rows of their own. ``rotary_pct`` (GPT-NeoX) is the rotated share of a head;
    Llama turns all of it. ``rotary_base`` is the base of the rotary frequencies of both, and
    ``rotary_scaling`` (Llama) is Llama 3's change of them for texts longer than those of its
    pretraining: ``(factor, low_freq_factor, high_freq_factor, original_max_position_embeddings)``,
    empty for none (``models/attention.py``).
    ``n_kv_head`` (Llama) is the number of key and value heads, each shared by the queries of
    ``n_head / n_kv_head`` heads (None: one each). ``d_ff`` None is 4 times ``d_model`` in every
    backbone.
    ``tie_embeddings`` makes the output matrix the token embedding's transpose; None: as the
    backbone's first release has it, tied in GPT-2 (always), apart in GPT-NeoX and Llama.
    ``layer_norm_eps`` is also RMSNorm's.
    ``initializer_range`` is the standard deviation of embeddings and weight matrices at
    initialisation (Hugging Face's name and, at 0.02, its value, meant for width 768). Recall reads
    the residual stream without a norm, so a narrow model that starts at 0.02 remembers next to
    nothing at first: its features are far below ``eps``, and little of a segment reaches its
    memory tokens (``BUILD_NOTES.md``). ``attention_init_scale``, ``position_init_scale`` and
    ``memory_token_init_scale`` multiply it for the output projection of attention (None: as the
    MLP's, GPT-2's ``1/sqrt(2 n_layer)``, the others' 1), the learned positions and the memory
    tokens.
    ``dtype`` is the dtype of the computation, ``None`` following the parameters;
    the memory state, what is projected for it, softmax, layer norm's statistics and logits are
    never narrower than float32. ``matmul_precision`` is that of all matrix products, as JAX names
    it: on accelerators ``default`` computes float32 with fewer digits (``models/precision.py``).

    ``d_mem``, ``nu``, ``rule`` and ``memory_layers`` are ARMT's alone. ``memory_layers`` has the
    numbers, from 0, of the layers with a memory; empty: all of them. In the others ``W_V`` stays
    zero, as it starts: they store nothing and recall nothing (``models/frozen.py``).

    PRMT: ``memory_passing`` is ``released``, what the authors' code computes, or ``layerwise``,
    what the paper describes (``models/prmt.py``).

    RMT-R: ``retrieval`` is ``exact``, attention to all kept memory states, or ``top1``, to the one
    state that attention weighs most. ``retrieval_states`` is how many states are kept, newest last;
    from as many segments on, the oldest makes room.

    Transformer: ``attention_window`` is how many tokens a token sees, itself included, whatever
    segment they are in; 0 is full attention, which sees all of at most ``context_tokens``.
    """

    family: str = "armt"
    backbone: str = "gpt2"
    n_layer: int = 4
    n_head: int = 4
    n_kv_head: int | None = None
    d_model: int = 128
    vocab_size: int = 128
    n_positions: int = 64
    num_mem_tokens: int = 4
    d_mem: int = 32
    nu: int = 3
    rule: str = "armt"
    memory_layers: tuple[int, ...] = ()
    wrap_pos: bool = False
    rotary_pct: float = 0.25
    rotary_base: float = 10000.0
    rotary_scaling: tuple[float, ...] = ()
    layer_norm_eps: float = 1e-5
    d_ff: int | None = None
    tie_embeddings: bool | None = None
    initializer_range: float = 0.02
    attention_init_scale: float | None = None
    position_init_scale: float = 1.0
    memory_token_init_scale: float = 1.0
    dtype: str | None = None
    matmul_precision: str = "default"
    # PRMT
    memory_passing: str = "released"
    # RMT-R
    retrieval: str = "exact"
    retrieval_states: int = 256
    # Transformer
    attention_window: int = 0
    context_tokens: int = 2048
    # mamba, mamba2, delta_net, gated_delta_net, rwkv5, rwkv7
    d_state: int = 32
    d_conv: int = 4
    expand: int = 2
    dt_rank: int = 0
    mixer_mlp: bool = False
    chunk_size: int = 16

    def __post_init__(self) -> None:
        one_of("model.family", self.family, FAMILIES)
        one_of("model.backbone", self.backbone, BACKBONES)
        positive(self, "model", "n_layer", "n_head", "d_model", "vocab_size", "n_positions")
        require(
            self.d_model % self.n_head == 0,
            "model.n_head",
            self.n_head,
            f"must divide model.d_model = {self.d_model}",
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
        # A list, where it was read from JSON.
        object.__setattr__(self, "rotary_scaling", tuple(self.rotary_scaling))
        check_backbone(self)
        if self.dtype is not None:
            one_of("model.dtype", self.dtype, DTYPES)
        one_of("model.matmul_precision", self.matmul_precision, MATMUL_PRECISIONS)
        if self.family in MEMORY_COPIES:
            positive(self, "model", "num_mem_tokens")
        if self.family == "armt":
            self._check_armt()
        self._check_memory_layers()
        self._check_other_families()
        self._check_state_space()

    def _check_other_families(self) -> None:
        """Settings whose defaults suit every family; a wrong one is refused whoever reads it."""
        one_of("model.memory_passing", self.memory_passing, MEMORY_PASSINGS)
        one_of("model.retrieval", self.retrieval, RETRIEVALS)
        positive(self, "model", "retrieval_states", "context_tokens")
        window = self.attention_window
        require(window >= 0, "model.attention_window", window, "must be 0 (full) or more")

    def _check_armt(self) -> None:
        from armt_jax.memory.rules import PRESETS

        one_of("model.rule", self.rule, tuple(PRESETS))
        positive(self, "model", "d_mem", "nu")
        require(
            self.nu < 2 * self.d_mem,
            "model.nu",
            self.nu,
            f"must be less than 2 * model.d_mem = {2 * self.d_mem}",
        )

    def _check_memory_layers(self) -> None:
        layers = tuple(self.memory_layers)  # a list, where it was read from JSON
        object.__setattr__(self, "memory_layers", layers)
        rising = layers == tuple(n for n in range(self.n_layer) if n in layers)
        accepted = f"must be rising numbers of layers, 0 to {self.n_layer - 1}; empty but for ARMT"
        right = rising and (self.family == "armt" or not layers)
        require(right, "model.memory_layers", layers, accepted)

    @property
    def layers_with_memory(self) -> tuple[int, ...]:
        """Numbers of the layers that have an associative memory (ARMT)."""
        return self.memory_layers or tuple(range(self.n_layer))

    @property
    def memory_rule(self) -> str:
        """What tells models of one shape apart in a table: ARMT's rule, or the family."""
        if self.family == "prmt" and self.memory_passing != "released":
            return f"prmt_{self.memory_passing}"
        if self.memory_layers:
            return f"{self.rule}_layers_{'_'.join(map(str, self.memory_layers))}"
        return self.rule if self.family == "armt" else self.family

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
    def d_inner(self) -> int:
        """Inner width of a state-space mixer: ``expand`` times the model's width."""
        return self.expand * self.d_model

    @property
    def residual_init(self) -> float:
        """Initial standard deviation of the projection that ends an MLP."""
        scale = (2 * self.n_layer) ** -0.5 if self.backbone == "gpt2" else 1.0
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
    def kv_heads(self) -> int:
        """Heads of keys and values: ``n_kv_head``, or one for each head of queries."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def is_tied(self) -> bool:
        """Whether the output matrix is the token embedding's transpose."""
        return self.backbone == "gpt2" if self.tie_embeddings is None else self.tie_embeddings

    @property
    def rotary_dim(self) -> int:
        """Dimensions of a head that rotary positions turn (GPT-NeoX, Llama)."""
        return self.head_dim if self.backbone == "llama" else int(self.rotary_pct * self.head_dim)

    @property
    def ff_dim(self) -> int:
        """Width of the hidden layer of the MLP: ``d_ff``, or 4 times the model's width."""
        return self.d_ff if self.d_ff is not None else 4 * self.d_model

    @property
    def memory_positions(self) -> int:
        """Positions that a segment's memory tokens take, all copies of them."""
        return MEMORY_COPIES.get(self.family, 0) * self.num_mem_tokens

    @property
    def prefix_positions(self) -> int:
        """Of these, those in front of the segment's tokens."""
        return max(0, MEMORY_COPIES.get(self.family, 0) - 1) * self.num_mem_tokens

    @property
    def has_learned_positions(self) -> bool:
        """Whether positions are rows of a table and can run out."""
        return self.family in ON_BACKBONES and self.backbone == "gpt2"

    def check_segment(self, length: int) -> None:
        """Raise ``ConfigError`` where a segment of ``length`` tokens has no room in positions."""
        room.check_segment(self, length)

    def check_text(self, length: int) -> None:
        """Raise ``ConfigError`` where a text of ``length`` tokens is longer than it reads."""
        room.check_text(self, length)

    def check_new_tokens(self, text: int, last: int, new: int) -> None:
        """Raise ``ConfigError`` where there is no room to continue a text.

        Args:
          text: tokens of the whole text.
          last: of them, those of the last segment, which is continued without memory tokens behind.
          new: tokens to generate.
        """
        room.check_new_tokens(self, text, last, new)
