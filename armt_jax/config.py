"""Every setting of an experiment, as frozen dataclasses that check themselves.

A config file returns an ``ml_collections.ConfigDict``; ``from_config_dict`` turns it into
an ``ExperimentConfig`` once. An unknown key, a missing key, a wrong type or an impossible
value is a ``ConfigError`` of one line: the field, the value, and what would be accepted.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_collections import ConfigDict

FAMILIES = ("armt",)
BACKBONES = ("gpt2", "gpt_neox")
DTYPES = ("float32", "bfloat16", "float64")
VARIANTS = ("remember", "rewrite")


class ConfigError(ValueError):
    """A setting that cannot be: one line naming the field, the value and what is accepted."""


def _require(ok: bool, field: str, value: object, accepted: str) -> None:
    if not ok:
        raise ConfigError(f"{field} = {value!r}: {accepted}")


def _one_of(field: str, value: object, options: tuple[str, ...]) -> None:
    _require(value in options, field, value, f"must be one of {', '.join(options)}")


def _positive(owner: object, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        _require(value >= 1, f"{prefix}.{name}", value, "must be at least 1")


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
    memory tokens (``BUILD_NOTES.md``).
    ``dtype`` is the dtype of the computation, ``None`` following the parameters;
    the memory state is never narrower than float32.
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
    dtype: str | None = None

    def __post_init__(self) -> None:
        from armt_jax.memory.rules import PRESETS

        _one_of("model.family", self.family, FAMILIES)
        _one_of("model.backbone", self.backbone, BACKBONES)
        _one_of("model.rule", self.rule, tuple(PRESETS))
        sizes = ("n_layer", "n_head", "d_model", "vocab_size", "n_positions", "num_mem_tokens")
        _positive(self, "model", *sizes, "d_mem", "nu")
        _require(
            self.d_model % self.n_head == 0,
            "model.n_head",
            self.n_head,
            f"must divide model.d_model = {self.d_model}",
        )
        _require(
            self.nu < 2 * self.d_mem,
            "model.nu",
            self.nu,
            f"must be less than 2 * model.d_mem = {2 * self.d_mem}",
        )
        _require(
            0.0 < self.rotary_pct <= 1.0, "model.rotary_pct", self.rotary_pct, "must be in (0, 1]"
        )
        if self.backbone == "gpt_neox":
            rotated = self.rotary_dim
            _require(
                rotated >= 2 and rotated % 2 == 0,
                "model.rotary_pct",
                self.rotary_pct,
                "must rotate an even number of dimensions, 2 or more, of a head's "
                f"{self.head_dim}; this rotates {rotated}",
            )
        for name in ("rotary_base", "layer_norm_eps", "initializer_range"):
            value = getattr(self, name)
            _require(value > 0, f"model.{name}", value, "must be positive")
        if self.d_ff is not None:
            _positive(self, "model", "d_ff")
        if self.dtype is not None:
            _one_of("model.dtype", self.dtype, DTYPES)

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
        if self.backbone != "gpt2":
            return
        room = self.n_positions - (0 if self.wrap_pos else self.num_mem_tokens)
        _require(
            length <= room,
            "segment length",
            length,
            f"must be at most {room} (model.n_positions = {self.n_positions}"
            + ("" if self.wrap_pos else f" less model.num_mem_tokens = {self.num_mem_tokens}")
            + ")",
        )


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Associative retrieval: what evaluation asks (training takes its sizes from the curriculum).

    ``variant`` is ``remember`` (unique keys) or ``rewrite`` (keys repeat, the latest value
    counts). A key has ``key_size`` digits of 0..15, a value ``value_size``.
    """

    variant: str
    num_pairs: int
    key_size: int
    value_size: int

    def __post_init__(self) -> None:
        _one_of("task.variant", self.variant, VARIANTS)
        _positive(self, "task", "num_pairs", "key_size", "value_size")
        check_pairs("task.num_pairs", self.variant, self.num_pairs, self.key_size)


def check_pairs(field: str, variant: str, num_pairs: int, key_size: int) -> None:
    """Raise ``ConfigError`` where ``remember`` is asked for more pairs than there are keys."""
    if variant == "remember":
        _require(
            num_pairs <= 16**key_size,
            field,
            num_pairs,
            f"must be at most {16**key_size}, the number of keys of {key_size} digits",
        )


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
    """Stages of training, one entry of each tuple a stage (paper, Appendices C and E).

    A stage ends when exact match on its validation set reaches ``target`` (with one query per
    context, so that it means what evaluation means) or after its ``max_steps``; a stage that
    runs out of steps below its target is reported. ``num_queries`` is the number of keys asked
    per context, 0 for all of them. With ``random_num_pairs`` every context has 1 to
    ``num_pairs`` pairs, uniformly.
    """

    variant: tuple[str, ...]
    num_pairs: tuple[int, ...]
    key_size: tuple[int, ...]
    max_steps: tuple[int, ...]
    target: tuple[float, ...]
    num_queries: int
    random_num_pairs: bool

    def __post_init__(self) -> None:
        stages = len(self.num_pairs)
        _require(stages >= 1, "curriculum.num_pairs", self.num_pairs, "needs at least one stage")
        for name in ("variant", "key_size", "max_steps", "target"):
            values = getattr(self, name)
            _require(
                len(values) == stages,
                f"curriculum.{name}",
                values,
                f"needs {stages} entries, one for each of curriculum.num_pairs",
            )
        for index in range(stages):
            _one_of(f"curriculum.variant[{index}]", self.variant[index], VARIANTS)
            for name in ("num_pairs", "key_size", "max_steps"):
                value = getattr(self, name)[index]
                _require(value >= 1, f"curriculum.{name}[{index}]", value, "must be at least 1")
            check_pairs(
                f"curriculum.num_pairs[{index}]",
                self.variant[index],
                self.num_pairs[index],
                self.key_size[index],
            )
            # A target above 1 is never reached: the stage uses all its steps.
            _require(
                self.target[index] > 0.0,
                f"curriculum.target[{index}]",
                self.target[index],
                "must be positive (above 1: the stage always uses its max_steps)",
            )
        _require(
            self.num_queries >= 0,
            "curriculum.num_queries",
            self.num_queries,
            "must be 0 (every key) or more",
        )

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.num_pairs)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and decay, and clipping.

    ``schedule`` is ``constant`` or ``linear`` (to ``final_fraction`` of the rate); its steps are
    those of one stage (``scope = 'stage'``, the paper's: every stage is a training of its own)
    or of the sum of all ``max_steps`` (``scope = 'run'``); a ``last_stage`` scope holds the rate
    until the last stage and decays there. ``reset_per_stage`` starts each stage with fresh moments.
    ``clip`` is ``norm`` (global norm), ``value`` (each entry) or ``none``.
    """

    learning_rate: float
    weight_decay: float
    b1: float
    b2: float
    eps: float
    warmup_steps: int
    schedule: str
    scope: str
    final_fraction: float
    reset_per_stage: bool
    clip: str
    clip_threshold: float

    def __post_init__(self) -> None:
        _require(
            self.learning_rate > 0,
            "optimizer.learning_rate",
            self.learning_rate,
            "must be positive",
        )
        _require(
            self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "must be 0 or more"
        )
        for name in ("b1", "b2"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"optimizer.{name}", value, "must be in [0, 1)")
        _require(self.eps > 0, "optimizer.eps", self.eps, "must be positive")
        _require(
            self.warmup_steps >= 0, "optimizer.warmup_steps", self.warmup_steps, "must be 0 or more"
        )
        _one_of("optimizer.schedule", self.schedule, ("constant", "linear"))
        _one_of("optimizer.scope", self.scope, ("stage", "last_stage", "run"))
        _require(
            0 <= self.final_fraction <= 1,
            "optimizer.final_fraction",
            self.final_fraction,
            "must be in [0, 1]",
        )
        _one_of("optimizer.clip", self.clip, ("norm", "value", "none"))
        _require(
            self.clip_threshold > 0,
            "optimizer.clip_threshold",
            self.clip_threshold,
            "must be positive",
        )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Batches, and how often the run logs, evaluates and saves (all in optimizer steps).

    ``batch_size`` contexts make one optimizer step, ``grad_accum`` pieces of it at a time.
    ``eval_samples`` contexts of the validation set are asked at each evaluation.
    ``data_workers`` are Grain's worker processes (0: in the main process).
    """

    batch_size: int
    grad_accum: int
    log_every: int
    eval_every: int
    eval_samples: int
    checkpoint_every: int
    data_workers: int

    def __post_init__(self) -> None:
        _positive(
            self,
            "train",
            "batch_size",
            "grad_accum",
            "log_every",
            "eval_every",
            "eval_samples",
            "checkpoint_every",
        )
        _require(
            self.batch_size % self.grad_accum == 0,
            "train.grad_accum",
            self.grad_accum,
            f"must divide train.batch_size = {self.batch_size}",
        )
        _require(
            self.data_workers >= 0, "train.data_workers", self.data_workers, "must be 0 or more"
        )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """The final evaluation: exact match on unseen contexts, one query each, per number of pairs.

    ``num_pairs`` lists the lengths (updates, for rewrite); each must fit the task's keys.
    """

    num_pairs: tuple[int, ...]
    samples: int
    batch_size: int

    def __post_init__(self) -> None:
        _require(
            len(self.num_pairs) >= 1,
            "evaluation.num_pairs",
            self.num_pairs,
            "needs at least one length",
        )
        for index, value in enumerate(self.num_pairs):
            _require(value >= 1, f"evaluation.num_pairs[{index}]", value, "must be at least 1")
        _positive(self, "evaluation", "samples", "batch_size")


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """One experiment: what ``experiments.main`` needs and nothing else."""

    name: str
    seed: int
    workdir: str
    model: ModelConfig
    task: TaskConfig
    curriculum: CurriculumConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    evaluation: EvaluationConfig

    def __post_init__(self) -> None:
        _require(bool(self.name), "name", self.name, "must not be empty")
        _require(bool(self.workdir), "workdir", self.workdir, "must name a folder")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "must be in [0, 2**31)")
        longest_key = max((self.task.key_size, *self.curriculum.key_size))
        self.model.check_segment(longest_key + self.task.value_size + 2)
        _require(
            self.model.vocab_size > 102,
            "model.vocab_size",
            self.model.vocab_size,
            "must be at least 103: the separators of associative retrieval are tokens 100 to 102",
        )
        for index, value in enumerate(self.evaluation.num_pairs):
            check_pairs(
                f"evaluation.num_pairs[{index}]", self.task.variant, value, self.task.key_size
            )


def from_config_dict(config: Mapping[str, Any] | ConfigDict) -> ExperimentConfig:
    """The checked ``ExperimentConfig`` of a ``ConfigDict`` (or any nested mapping).

    Raises:
      ConfigError: unknown or missing key, wrong type, impossible value.
    """
    to_dict = getattr(config, "to_dict", None)
    plain = to_dict() if callable(to_dict) else config
    return typing.cast(ExperimentConfig, _build(ExperimentConfig, plain, ""))


def to_dict(config: ExperimentConfig) -> dict[str, Any]:
    """The experiment as nested plain dicts and lists: what is written as ``config.json``."""
    return typing.cast(dict[str, Any], _plain(dataclasses.asdict(config)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _build(cls: type, values: Any, prefix: str) -> Any:
    where = prefix.rstrip(".") or "config"
    _require(isinstance(values, Mapping), where, values, "must be a group of settings")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        _require(
            key in fields,
            f"{prefix}{key}",
            values[key],
            f"unknown key; {where} has {', '.join(fields)}",
        )
    hints = typing.get_type_hints(cls)
    built = {}
    for name, field in fields.items():
        if name not in values:
            if field.default is dataclasses.MISSING:
                raise ConfigError(f"{prefix}{name} is missing from {where}")
            continue
        built[name] = _convert(hints[name], values[name], f"{prefix}{name}")
    return cls(**built)


def _convert(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, f"{name}.")
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        options = typing.get_args(hint)
        if value is None and types.NoneType in options:
            return None
        return _convert(next(o for o in options if o is not types.NoneType), value, name)
    if origin is tuple:
        _require(isinstance(value, list | tuple), name, value, "must be a list or tuple")
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, entry, f"{name}[{i}]") for i, entry in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    right = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    _require(right, name, value, f"must be of type {hint.__name__}")
    return value
