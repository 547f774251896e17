"""What a stage of training reads, whatever the task: the trainer knows this and no task.

``RetrievalData`` is that of associative retrieval.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from armt_jax.evaluation.scoring import AnswerAtEnd, Scoring
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.tasks.associative_retrieval import NUM_SYMBOLS, AssociativeRetrieval, Batch
from armt_jax.tasks.frozen_sets import frozen_size, load_frozen_together
from armt_jax.tasks.stream import train_stream


class BatchStream(Iterator[Any], Protocol):
    """Endless batches."""

    def close(self) -> None:
        """End what reads ahead."""
        ...


class StageData(Protocol):
    """A task of one size: its training stream, its validation set, and what is scored."""

    @property
    def label(self) -> str:
        """For people, such as ``remember, 50 pairs of key size 2``."""
        ...

    @property
    def scoring(self) -> Scoring:
        """What is predicted of a batch: the same for all stages of a run."""
        ...

    @property
    def validation_size(self) -> int:
        """Contexts of the validation set."""
        ...

    def validation(self, samples: int) -> Any:
        """The first contexts of the validation set, one query each, as one batch."""
        ...

    def stream(
        self,
        seed: int,
        batch_size: int,
        *,
        start: int,
        num_workers: int,
        stage: int,
        shard_index: int,
        shard_count: int,
    ) -> BatchStream:
        """Training batches from number ``start`` on; arguments as in ``train_stream``."""
        ...


@runtime_checkable
class DataForModel(StageData, Protocol):
    """Data that are chosen by what the model has learnt when the stage begins."""

    def for_model(
        self,
        model: SegmentModel,
        params: Params,
        path: Path,
        begins: bool,
        say: Callable[[str], None],
    ) -> StageData:
        """These, for ``model`` with ``params`` (of this process alone).

        What is chosen is kept as the file ``path`` (any ending), by the first process. A stage that
        goes on, not ``begins``, reads it instead. ``say`` is called with lines for people.
        """
        ...


@dataclasses.dataclass(frozen=True)
class RetrievalData:
    """``StageData`` of associative retrieval."""

    task: AssociativeRetrieval

    @property
    def label(self) -> str:
        """``remember, 50 pairs of key size 2`` (``of 4 symbols``, where not of 16)."""
        task = self.task
        noun = "pair" if task.num_pairs == 1 else "pairs"
        symbols = "" if task.key_symbols == NUM_SYMBOLS else f" of {task.key_symbols} symbols"
        if task.random_symbols:
            symbols = f" of 2 to {task.key_symbols} symbols"
        return f"{task.variant}, {task.num_pairs} {noun} of key size {task.key_size}{symbols}"

    @property
    def scoring(self) -> AnswerAtEnd:
        """See ``StageData``."""
        return AnswerAtEnd(self.task.value_size)

    @property
    def validation_size(self) -> int:
        """See ``StageData``."""
        return frozen_size(self.task, "validation")

    def validation(self, samples: int) -> Batch:
        """See ``StageData``; built by one process, read by all."""
        return load_frozen_together(self.task, "validation", samples)

    def stream(self, seed: int, batch_size: int, **place: int) -> BatchStream:
        """See ``StageData``."""
        return train_stream(self.task, seed, batch_size, **place)
