"""The folder of a run, as a model that reads: one of BABILong, or a language model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from armt_jax.config import (
    AnyExperiment,
    BabilongExperiment,
    ConfigError,
    LanguageModellingExperiment,
)
from armt_jax.models import create_model
from armt_jax.reading.forms import BabilongForm, PlainForm, TextForm, question_end
from armt_jax.reading.reading_model import ReadingModel
from armt_jax.tasks.babilong import setup as babilong
from armt_jax.tasks.babilong.tokenizers import END, BabilongTokenizer, load_tokenizer
from armt_jax.tasks.language_modelling import setup as language_modelling
from armt_jax.training.workdir import read_config
from armt_jax.tuning import restored
from armt_jax.tuning.restored import CHECKPOINTS

TOKENIZER = babilong.TOKENIZER_FILE


class Run(NamedTuple):
    """What was trained: ready to read, its tokenizer, and the step it is of."""

    reading: ReadingModel
    tokenizer: BabilongTokenizer
    step: int


def read_run(folder: Path, step: int | str, warn: Callable[[str], None]) -> Run:
    """The model of the run in ``folder``; see ``load_reading_model``."""
    experiment = read_config(folder)
    if not isinstance(experiment, BabilongExperiment | LanguageModellingExperiment):
        raise ConfigError(
            f"folder {str(folder)!r}: is a run of {experiment.name!r}, which reads no text; must "
            "be one of BABILong or of language modelling"
        )
    if not (folder / CHECKPOINTS).is_dir():
        raise ConfigError(f"folder {str(folder)!r}: has no checkpoint yet")
    tokenizer, form = _form(experiment, folder)
    found = restored(experiment, folder, step, warn=warn)
    if found is None:
        raise ConfigError(f"folder {str(folder)!r}: has no checkpoint yet")
    is_babilong = isinstance(experiment, BabilongExperiment)
    reading = ReadingModel(
        create_model(experiment.model),
        found.state.params,
        form,
        experiment.task.segment_size,
        experiment.name,
        experiment.task.segment_overlap if is_babilong else 0,
    )
    return Run(reading, tokenizer, found.step)


def existing(path: Path) -> Path:
    """``path``, which must be a tokenizer's file."""
    if not path.is_file():
        raise ConfigError(f"tokenizer {str(path)!r}: there is no such file")
    return path


def _form(experiment: AnyExperiment, folder: Path) -> tuple[BabilongTokenizer, TextForm]:
    """How the run took text; its tokenizer, which no run that was not begun has."""
    assert isinstance(experiment, BabilongExperiment | LanguageModellingExperiment)
    task, size = experiment.task, experiment.model.vocab_size
    if task.tokenizer == "small":  # which a training would make where it is missing
        tokenizer = load_tokenizer(existing(folder / TOKENIZER))
        tokenizer.check_model(size)
    elif isinstance(experiment, BabilongExperiment):
        tokenizer = babilong.tokenizer(experiment.task, size, folder)
    else:
        tokenizer = language_modelling.tokenizer(experiment.task, size, folder)
    if isinstance(experiment, BabilongExperiment):
        return tokenizer, BabilongForm(tokenizer, question_end(experiment.task.task))
    return tokenizer, PlainForm(tokenizer.backend, END)
