"""Which samples of BABILong the flags mean: those of our models' evaluation.

By default 100 of 4k tokens each. ``--workdir`` names a run of BABILong, whose tokenizer and books
make exactly the samples that the run is evaluated on.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from armt_jax.config import BabilongConfig, BabilongExperiment, ConfigError
from armt_jax.evaluation.babilong import evaluation_set
from armt_jax.tasks.babilong import setup
from armt_jax.tasks.babilong.babi import DATA_VARIABLE
from armt_jax.tasks.babilong.evaluation_sets import EvaluationSet
from armt_jax.tasks.babilong.noise import TokenisedBooks
from armt_jax.training.workdir import read_config
from experiments.shared_flags import LENGTHS, SAMPLES, WORKDIR

_TASKS = flags.DEFINE_string("tasks", "qa1", "bAbI tasks, such as qa1,qa2.")

_LENGTH, _SAMPLES = "4k", 100
_GPT2_SIZE, _SMALL_SIZE, _SEGMENT = 50_257, 2_048, 512


@dataclasses.dataclass(frozen=True)
class SampleSource:
    """Where samples come from: settings of the benchmark, and its test books as tokens."""

    config: BabilongConfig
    books: TokenisedBooks

    @property
    def about(self) -> dict[str, Any]:
        """``noise`` and ``facts`` of a cell."""
        facts = "simulator" if setup.data_folder(self.config) is None else "babi"
        return {"noise": self.config.noise, "facts": facts}

    def sets(self, allowed: tuple[str, ...]) -> Iterator[tuple[str, str, EvaluationSet]]:
        """Task, length and samples, for all that the flags name.

        Raises:
          ConfigError: a task that is not ``allowed``, an impossible length, missing data.
        """
        samples = _SAMPLES if SAMPLES.value is None else SAMPLES.value
        if samples < 1:
            raise ConfigError(f"--samples = {samples}: must be at least 1")
        tasks, lengths = _parts(_TASKS.value), _parts(LENGTHS.value or _LENGTH)
        for task in tasks:
            if task not in allowed:
                raise ConfigError(f"--tasks = {task!r}: must be some of {', '.join(allowed)}")
        for task in tasks:
            config = dataclasses.replace(self.config, task=task)
            for length in lengths:
                yield task, length, evaluation_set(config, self.books, length, samples)


def sample_source() -> SampleSource:
    """Samples of ``--workdir``; without it GPT-2's tokens of the data folder's books.

    Without a data folder stories are simulated, books and tokenizer built in.

    Raises:
      ConfigError: a folder that is no run of BABILong, data that are missing.
    """
    run = None
    if WORKDIR.value is not None:
        run = Path(WORKDIR.value)
        experiment = read_config(run)
        if not isinstance(experiment, BabilongExperiment):
            raise ConfigError(f"--workdir = {str(run)!r}: must be a run of BABILong")
        config, size = experiment.task, experiment.model.vocab_size
    else:
        has_data = bool(os.environ.get(DATA_VARIABLE))
        config = BabilongConfig(
            name="babilong",
            task="qa1",
            data_dir=None,
            facts="babi" if has_data else "simulator",
            noise="books" if has_data else "built_in",
            tokenizer="gpt2" if has_data else "small",
            segment_size=_SEGMENT,
        )
        size = _GPT2_SIZE if has_data else _SMALL_SIZE
    tokenizer = setup.tokenizer(config, size, run)
    return SampleSource(config, setup.tokenised_books(config, "test", tokenizer))


def _parts(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",")))
