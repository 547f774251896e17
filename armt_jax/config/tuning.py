"""Fine-tuning: where a training starts, which parameters it changes, and how fast each."""

from __future__ import annotations

import dataclasses
import re

from armt_jax.config.checks import ConfigError, one_of, positive, require

TRAINS = ("all", "memory", "lora")


@dataclasses.dataclass(frozen=True)
class TuningConfig:
    """What is trained of a model.

    ``start`` is a folder whose parameters the training starts from: a run (its best checkpoint),
    what ``experiments.export`` made of one, or a Hugging Face model; None: fresh ones. What the
    folder does not have, such as the memory of a model that had none, stays fresh. ``trains`` is
    ``all`` parameters; ``memory``: the memory tokens and what writes and reads the memory; or
    ``lora``: these, and low-rank changes of the matrices whose names ``lora_targets`` (a regular
    expression) matches: ``lora_scale`` times a product of rank ``lora_rank`` (Hu et al. 2021, arXiv
    2106.09685).

    ``groups`` are regular expressions of whole parameter names, and ``factors`` multiply the
    learning rate of what each one matches; the first that matches counts, and 0 freezes.
    ``memory_factor`` multiplies that of the projections of an associative memory, in models that
    have one: learnt as fast as the rest, they disturb before they help, and gates shut for good.
    ``gate_factor`` multiplies that of the write gates' own projection once more; 0 leaves it as it
    begins.

    ``teacher`` is a folder as ``start``, of a model with the same tokens, for language modelling:
    the loss is then ``1 - distill_weight`` of the text's own and ``distill_weight`` of the
    divergence from what the teacher expects (``evaluation/distillation.py``), for which
    ``temperature`` softens both distributions. A Hugging Face teacher reads
    ``model.context_tokens`` at once.
    """

    start: str | None = None
    trains: str = "all"
    lora_rank: int = 8
    lora_scale: float = 1.0
    lora_targets: str = r"layers\.block\..*"
    groups: tuple[str, ...] = ()
    factors: tuple[float, ...] = ()
    teacher: str | None = None
    distill_weight: float = 0.5
    temperature: float = 1.0
    memory_factor: float = 1.0
    gate_factor: float = 1.0

    def __post_init__(self) -> None:
        one_of("tuning.trains", self.trains, TRAINS)
        positive(self, "tuning", "lora_rank")
        require(self.lora_scale > 0, "tuning.lora_scale", self.lora_scale, "must be positive")
        require(
            len(self.factors) == len(self.groups),
            "tuning.factors",
            self.factors,
            f"needs {len(self.groups)} entries, one for each of tuning.groups",
        )
        weight, temperature = self.distill_weight, self.temperature
        require(0 < weight <= 1, "tuning.distill_weight", weight, "must be above 0, at most 1")
        require(temperature > 0, "tuning.temperature", temperature, "must be positive")
        factor = self.memory_factor
        require(factor > 0, "tuning.memory_factor", factor, "must be positive")
        factor = self.gate_factor
        require(factor >= 0, "tuning.gate_factor", factor, "must be 0 (frozen) or more")
        for index, factor in enumerate(self.factors):
            require(factor >= 0, f"tuning.factors[{index}]", factor, "must be 0 (frozen) or more")
        named = [(f"tuning.groups[{i}]", text) for i, text in enumerate(self.groups)]
        for name, text in (*named, ("tuning.lora_targets", self.lora_targets)):
            try:
                re.compile(text)
            except re.error as error:
                raise ConfigError(
                    f"{name} = {text!r}: must be a regular expression ({error})"
                ) from None

    @property
    def is_plain(self) -> bool:
        """Whether all parameters are trained, at the optimizer's rates, without a teacher."""
        alike = not self.groups and self.memory_factor == self.gate_factor == 1
        return self.trains == "all" and alike and self.teacher is None
