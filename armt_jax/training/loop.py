"""The training loop: stages, steps, evaluations, checkpoints, and stopping in good order.

Every decision follows from the configuration and from what a checkpoint holds (``Position``, from
which the data position follows), never from time: a run that was interrupted, in whatever way, and
started again ends bit-identical to one that was not.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import jax
import numpy as np

from armt_jax.config import AnyExperiment, ConfigError
from armt_jax.host_memory import release_freed_memory
from armt_jax.processes import (
    StopVote,
    connect,
    global_batch,
    is_main,
    mark_agreed,
    one_step_at_a_time,
    share_of,
    together,
)
from armt_jax.sharding import batched, create_mesh
from armt_jax.training import curriculum
from armt_jax.training.checkpoints import Checkpoints
from armt_jax.training.chosen_data import chosen_data
from armt_jax.training.curriculum import Position, Stage
from armt_jax.training.divergence import divergence
from armt_jax.training.experiment_stages import create_stages
from armt_jax.training.interruption import Interrupted, SignalWatch
from armt_jax.training.memory_log import MemoryLog
from armt_jax.training.meter import Meter
from armt_jax.training.metrics import MetricsWriter, NoMetrics
from armt_jax.training.optimizer import learning_rate
from armt_jax.training.programs import StagePrograms
from armt_jax.training.progress import ProgressDisplay, Status
from armt_jax.training.start import start_state
from armt_jax.training.state import TrainState, abstract_state, reset_optimizer
from armt_jax.training.step import StepMetrics
from armt_jax.training.workdir import Workdir
from armt_jax.tuning import show_parameters, tuned_model, tuned_optimizer


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """The end of a training: parameters, where it stands, and seconds over all its sittings."""

    state: TrainState
    position: Position
    seconds: float


class Trainer:
    """One run of one experiment in its folder. ``run`` is called once."""

    def __init__(self, config: AnyExperiment, folder: Workdir) -> None:
        with together():
            self._prepare(config)
        connect(self.mesh)
        self.checkpoints = Checkpoints(folder.checkpoints)
        self._chosen = folder.chosen
        self.state, self.position = self._start()
        with together():
            self.metrics = (
                MetricsWriter(folder.path, self.position.step) if is_main() else NoMetrics()
            )
        self.exact_match: float | None = None
        self._pending: StepMetrics | None = None
        self._memory_log = MemoryLog(config, self.mesh)
        self._vote = StopVote()

    def _prepare(self, config: AnyExperiment) -> None:
        """Whatever needs neither files nor other processes."""
        self.config = config
        self.model = tuned_model(config.model, config.tuning)
        self.optimizer = tuned_optimizer(config.optimizer, config.tuning)
        self.stages = create_stages(config)
        for stage in self.stages:
            most = stage.data.validation_size
            if config.train.eval_samples > most:
                raise ConfigError(
                    f"train.eval_samples = {config.train.eval_samples}: must be at most {most}, "
                    "the size of a validation set"
                )
        self.display = ProgressDisplay(len(self.stages))
        accum = config.train.grad_accum
        self.mesh = create_mesh(config.mesh, config.train.batch_size // accum)
        self.batched = batched(self.mesh)
        self.share = share_of(self.batched, config.train.batch_size)
        self._programs = StagePrograms(config, self.model, self.optimizer, self.mesh)
        self._programs.of(self.stages[0])  # what cannot be made is said before anything is read

    def step(self, state: TrainState, batch: Any, rate: Any) -> tuple[TrainState, StepMetrics]:
        """One step of the current stage."""
        return self._programs.of(self.stages[self.position.stage]).step(state, batch, rate)

    def evaluator(self, params: Any, samples: Any) -> tuple[int, int]:
        """Right answers and questions of ``samples``, by the current stage."""
        return self._programs.of(self.stages[self.position.stage]).evaluate(params, samples)

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return self._seconds_before + time.monotonic() - self._started

    def _start(self) -> tuple[TrainState, Position]:
        """The newest undamaged checkpoint, or fresh parameters where there is none."""
        self._started = time.monotonic()
        template = abstract_state(self.model, self.optimizer, self.mesh)
        found = self.checkpoints.restore(template, warn=self.display.message)
        if found is None:
            self._seconds_before = self._saved_seconds = 0.0
            self._best = -math.inf
            return start_state(self.config, self.model, self.optimizer, self.mesh), Position()
        self.checkpoints.discard_after(found.step)
        self._seconds_before = self._saved_seconds = found.meta["seconds"]
        self._best = found.meta["best"] if found.meta["best"] is not None else -math.inf
        position = Position.from_json(found.meta["position"])
        finished = " (training is finished)" if position.stage == len(self.stages) else ""
        self.display.message(f"going on from the checkpoint of step {found.step:,}{finished}")
        return found.state, position

    def run(self) -> TrainResult:
        """Train to the end of the last stage, from the newest checkpoint where there is one.

        Raises:
          Interrupted: SIGTERM or SIGINT arrived; everything is saved.
          NonFiniteError: training diverged; nothing that is not finite was saved.
          CheckpointError, OSError: something cannot be written.
        """
        try:
            show_parameters(self.config, self.state.params)
            with SignalWatch() as watch, self.display:
                while self.position.stage < len(self.stages):
                    self._run_stage(self.stages[self.position.stage], watch)
                # A vote still under way: all is saved, but a signal must not be forgotten.
                if (number := self._vote.result()) is not None:
                    raise mark_agreed(Interrupted(number, self.position.step))
        finally:
            self.metrics.close()
        return TrainResult(self.state, self.position, self._saved_seconds)

    def _run_stage(self, stage: Stage, watch: SignalWatch) -> None:
        train, started = self.config.train, time.monotonic()
        self.display.stage(stage, self.position.step_in_stage)
        # Read before the first step, not at the first evaluation: what is wrong is said at once.
        self._validation = stage.data.validation(train.eval_samples)
        begins = self.position.step_in_stage == 0
        data = chosen_data(
            self.config, stage, self.state.params, self._chosen, begins, self.display.message
        )
        stream = data.stream(
            self.config.seed,
            train.batch_size,
            start=self.position.step_in_stage,
            num_workers=train.data_workers,
            stage=stage.index,
            shard_index=self.share[0],
            shard_count=self.share[1],
        )
        meter = Meter(self.position.step_in_stage)
        try:
            while self.position.stage == stage.index:
                self._step(stage, next(stream), meter)
                if started is not None:
                    seconds = time.monotonic() - started
                    self.display.message(f"first step ready after {seconds:.1f} s (compilation)")
                    release_freed_memory()
                    started, meter = None, Meter(self.position.step_in_stage)
                self._after_step(stage, watch)
        finally:
            stream.close()

    def _step(self, stage: Stage, batch: Any, meter: Meter) -> None:
        position = self.position
        rate = learning_rate(
            self.config.optimizer, self.config.curriculum, stage.index, position.step_in_stage
        )
        whole = global_batch(batch, self.batched, self.config.train.batch_size)
        self.state, metrics = self.step(self.state, whole, np.float32(rate))
        if one_step_at_a_time():
            jax.block_until_ready((self.state, metrics))
        # The previous step is checked while this one runs: the device is never left idle.
        self._settle()
        self._pending = metrics
        self.position = position = position.stepped()
        meter.add(batch, self.share[1])
        self.display.tick(position.step_in_stage)
        if position.step % self.config.train.log_every == 0:
            self._settle()
            self._log(stage, metrics, rate, meter)

    def _after_step(self, stage: Stage, watch: SignalWatch) -> None:
        """Evaluate, move on, save: whatever is due after this step; then stop if asked to."""
        train, position = self.config.train, self.position
        save = position.step % train.checkpoint_every == 0
        score = None
        if curriculum.evaluation_due(stage, position.step_in_stage, train.eval_every):
            self._settle()
            self.exact_match = self._evaluate(stage)
            score = curriculum.score(stage.index, self.exact_match)
            save = save or score > self._best
            self._best = max(score, self._best)
            if curriculum.stage_ends(stage, position.step_in_stage, self.exact_match):
                self._end_stage(stage, self.exact_match)
                save = True
        stopped_by = self._vote.cast(watch.received)
        if save or stopped_by is not None:
            self._save(score)
        if stopped_by is not None:
            raise mark_agreed(Interrupted(stopped_by, self.position.step))

    def _save(self, score: float | None) -> None:
        self._settle()
        self._saved_seconds = self.seconds
        meta = {
            "position": self.position.to_json(),
            "seconds": self._saved_seconds,
            "best": self._best if math.isfinite(self._best) else None,
        }
        self.checkpoints.save(self.position.step, self.state, meta, score)

    def _evaluate(self, stage: Stage) -> float:
        started = time.monotonic()
        correct, total = self.evaluator(self.state.params, self._validation)
        memory = self._memory_log(self.state.params, self._validation, self.display.message)
        self.metrics.write(
            self.position.step,
            {
                "stage": stage.index,
                "exact_match": correct / total,
                "samples": total,
                **memory,
                "evaluation_seconds": time.monotonic() - started,
            },
        )
        return correct / total

    def _end_stage(self, stage: Stage, exact_match: float) -> None:
        reached = exact_match >= stage.target
        steps = self.position.step_in_stage
        text = f"stage {stage.index + 1} ended after {steps:,} steps: exact match {exact_match:.4f}"
        if not reached and stage.target <= 1.0:
            text = f"warning: {text}, below its target of {stage.target}; going on all the same"
        self.display.message(text)
        self.metrics.write(
            self.position.step,
            {"stage": stage.index, "stage_steps": steps, "stage_reached": int(reached)},
        )
        self.position = self.position.advanced(exact_match, reached, self.seconds)
        self.exact_match = None
        if self.config.optimizer.reset_per_stage and self.position.stage < len(self.stages):
            self.state = reset_optimizer(self.state, self.optimizer)

    def _log(self, stage: Stage, metrics: StepMetrics, rate: float, meter: Meter) -> None:
        values = jax.device_get(metrics)
        tokens_per_second, seconds_per_step = meter.read(self.position.step_in_stage)
        self.metrics.write(
            self.position.step,
            {
                "stage": stage.index,
                "loss": float(values.loss),
                "train_exact_match": float(values.exact_match),
                "grad_norm": float(values.grad_norm),
                "learning_rate": rate,
                "tokens_per_second": tokens_per_second,
                "seconds": self.seconds,
            },
        )
        left = (stage.max_steps - self.position.step_in_stage) * seconds_per_step
        self.display.status(
            Status(
                step=self.position.step,
                step_in_stage=self.position.step_in_stage,
                loss=float(values.loss),
                exact_match=self.exact_match,
                tokens_per_second=tokens_per_second,
                seconds_left=left,
            )
        )

    def _settle(self) -> None:
        """Wait for the last step and refuse to go on where it was not finite."""
        if self._pending is None:
            return
        metrics: Any = jax.device_get(self._pending)
        self._pending = None
        stage = self.position.stage
        where = f"step {self.position.step} (stage {stage + 1}: {self.stages[stage].label})"
        failure = divergence(metrics, self.state.params, where)
        if failure is not None:
            raise mark_agreed(failure)  # every process has these numbers
