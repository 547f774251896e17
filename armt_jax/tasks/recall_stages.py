"""``StageData`` of MQAR and of events on entities, and their frozen sets.

A sample is a function of the task's sizes, the split, the seed, the stage and its number. So a
frozen set is not stored: it is made again wherever it is needed, and a test keeps its digest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import jax
import numpy as np

from armt_jax.config import ConfigError
from armt_jax.evaluation.scoring import AnswerAtEnd, AnswersInText, Scoring
from armt_jax.tasks.entity_events import EntityEvents
from armt_jax.tasks.mqar import Mqar
from armt_jax.tasks.stream import TrainStream, open_stream

RecallTask = Mqar | EntityEvents
SIZES = {"validation": 1_000, "test": 10_000}


class RecallSource:
    """Samples of one stream as a Grain random-access source: ``source[i]`` is pure."""

    def __init__(self, task: RecallTask, split: str, seed: int, stage: int) -> None:
        settings = {
            "task": {"kind": type(task).__name__, **dataclasses.asdict(task)},
            "split": split,
            "seed": int(seed),
            "stage": int(stage),
        }
        text = json.dumps(settings, sort_keys=True).encode()
        name = hashlib.blake2b(text, digest_size=8).digest()
        self._task, self._stream = task, int.from_bytes(name, "little")

    def __len__(self) -> int:
        return 2**62  # endless

    def __getitem__(self, index: int) -> Any:
        bits = np.random.Philox(key=np.array([self._stream, index], np.uint64))
        return self._task.sample(np.random.Generator(bits))


def frozen_task(task: RecallTask) -> RecallTask:
    """As it is evaluated: MQAR asks every key, entities are asked for one attribute."""
    return task if isinstance(task, Mqar) else dataclasses.replace(task, num_queries=1)


def frozen(task: RecallTask, split: str, num_samples: int) -> Any:
    """The first contexts of the ``validation`` or ``test`` set, with a leading axis over them.

    Raises:
      ConfigError: another split, or more samples than it has.
    """
    if split not in SIZES:
        raise ConfigError(f"split = {split!r}: must be one of {', '.join(SIZES)}")
    if not 1 <= num_samples <= SIZES[split]:
        raise ConfigError(f"num_samples = {num_samples}: must be in [1, {SIZES[split]}]")
    source = RecallSource(frozen_task(task), split, 0, 0)
    made = [source[index] for index in range(num_samples)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *made)


@dataclasses.dataclass(frozen=True)
class RecallData:
    """``StageData`` of either task."""

    task: RecallTask
    validation_size: int = SIZES["validation"]

    @property
    def label(self) -> str:
        """See ``StageData``."""
        return self.task.label

    @property
    def scoring(self) -> Scoring:
        """See ``StageData``."""
        return scoring_of(self.task)

    def validation(self, samples: int) -> Any:
        """See ``StageData``."""
        return frozen(self.task, "validation", samples)

    def stream(
        self, seed: int, batch_size: int, *, start: int = 0, stage: int = 0, **place: int
    ) -> TrainStream:
        """See ``StageData``."""
        source = RecallSource(self.task, "train", seed, stage)
        return open_stream(source, batch_size, start=start, **place)


def scoring_of(task: RecallTask) -> Scoring:
    """What is predicted: values in the text, or the answer at a query's end."""
    return AnswersInText() if isinstance(task, Mqar) else AnswerAtEnd(task.value_size)
