"""Optimizer, batches, devices and the final evaluation."""

from __future__ import annotations

import dataclasses

from armt_jax.config.checks import one_of, positive, require

REMATS = ("none", "segment", "sqrt")
# Of `run_segments`; training is a pipeline where `mesh.stage` says so.
TRAIN_SCHEDULES = ("auto", "sequential", "chunked", "diagonal", "whole")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or Muon with linear warm-up and decay, and clipping.

    ``name`` is ``adamw``, or ``muon`` (Jordan et al. 2024): weight matrices then take
    orthogonalised momentum at ``muon_learning_rate`` (scaled to AdamW's root mean square of 0.2),
    everything else AdamW at ``learning_rate``. Both rates follow the one schedule.
    ``schedule`` is ``constant`` or ``linear`` (to ``final_fraction`` of the rate); its steps are
    those of one stage (``scope = 'stage'``, the paper's: every stage is a training of its own)
    or of the sum of all ``max_steps`` (``scope = 'run'``); a ``last_stage`` scope holds the rate
    until the last stage and decays there. ``reset_per_stage`` starts each stage with fresh moments.
    ``clip`` is ``norm`` (global norm), ``value`` (each entry) or ``none``.
    """

    name: str
    learning_rate: float
    muon_learning_rate: float
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
        one_of("optimizer.name", self.name, ("adamw", "muon"))
        for name in ("learning_rate", "muon_learning_rate"):
            value = getattr(self, name)
            require(value > 0, f"optimizer.{name}", value, "must be positive")
        require(
            self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "must be 0 or more"
        )
        for name in ("b1", "b2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name}", value, "must be in [0, 1)")
        require(self.eps > 0, "optimizer.eps", self.eps, "must be positive")
        require(
            self.warmup_steps >= 0, "optimizer.warmup_steps", self.warmup_steps, "must be 0 or more"
        )
        one_of("optimizer.schedule", self.schedule, ("constant", "linear"))
        one_of("optimizer.scope", self.scope, ("stage", "last_stage", "run"))
        require(
            0 <= self.final_fraction <= 1,
            "optimizer.final_fraction",
            self.final_fraction,
            "must be in [0, 1]",
        )
        one_of("optimizer.clip", self.clip, ("norm", "value", "none"))
        require(
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
    Of the first ``memory_contexts`` of them the metrics get, at each evaluation, what an ARMT's
    memory does (``training/memory_log.py``; 0: nothing).
    ``data_workers`` are Grain's worker processes (0: in the main process).
    ``schedule``, ``remat`` and ``bptt`` say how contexts are read and what of them is kept for the
    backward pass, as ``run_segments`` has them. Queries come after the context: with ``bptt = w``
    their loss trains what the last window of segments writes (``w``, or what a division of the
    number of segments by ``w`` leaves), and everything before it is read without a gradient.
    """

    batch_size: int
    grad_accum: int
    schedule: str
    remat: str
    bptt: int
    log_every: int
    eval_every: int
    eval_samples: int
    checkpoint_every: int
    data_workers: int
    memory_contexts: int = 0

    def __post_init__(self) -> None:
        positive(
            self,
            "train",
            "batch_size",
            "grad_accum",
            "log_every",
            "eval_every",
            "eval_samples",
            "checkpoint_every",
        )
        require(
            self.batch_size % self.grad_accum == 0,
            "train.grad_accum",
            self.grad_accum,
            f"must divide train.batch_size = {self.batch_size}",
        )
        one_of("train.schedule", self.schedule, TRAIN_SCHEDULES)
        one_of("train.remat", self.remat, REMATS)
        require(self.bptt >= 0, "train.bptt", self.bptt, "must be 0 (the whole context) or more")
        for name in ("data_workers", "memory_contexts"):
            value = getattr(self, name)
            require(value >= 0, f"train.{name}", value, "must be 0 or more")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The device mesh, sizes by axis; their product is the number of devices.

    ``data``: devices that share a batch and have everything else alike; -1: as many as there are
    for the other axes and divide the batch. ``fsdp``: devices that share a batch and split
    parameters and moments. ``tensor``: devices that split heads, hidden units and the columns of
    the memories. ``stage``: groups of layers. A CPU counts as one device for each of its cores, or
    as many as the axes ask for (``armt_jax/sharding/devices.py``).
    """

    data: int
    fsdp: int
    tensor: int
    stage: int

    def __post_init__(self) -> None:
        require(
            self.data == -1 or self.data >= 1,
            "mesh.data",
            self.data,
            "must be at least 1, or -1 for every device",
        )
        positive(self, "mesh", "fsdp", "tensor", "stage")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """The final evaluation: exact match on unseen contexts, one query each, per number of pairs.

    ``num_pairs`` lists the lengths (updates, for rewrite); each must fit the task's keys.
    """

    num_pairs: tuple[int, ...]
    samples: int
    batch_size: int

    def __post_init__(self) -> None:
        require(
            len(self.num_pairs) >= 1,
            "evaluation.num_pairs",
            self.num_pairs,
            "needs at least one length",
        )
        for index, value in enumerate(self.num_pairs):
            require(value >= 1, f"evaluation.num_pairs[{index}]", value, "must be at least 1")
        positive(self, "evaluation", "samples", "batch_size")
