"""Language modelling as stages of training: contexts of more and more segments."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from armt_jax.config import LanguageModellingExperiment
from armt_jax.evaluation.next_tokens import NextTokens
from armt_jax.tasks.babilong.setup import TOKENIZER_FILE
from armt_jax.tasks.language_modelling import setup
from armt_jax.tasks.language_modelling.contexts import Context, Contexts
from armt_jax.tasks.language_modelling.stream import context_stream
from armt_jax.tasks.stage_data import BatchStream


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModellingData:
    """``StageData`` of language modelling."""

    label: str
    training: Contexts
    held_out: Contexts
    scoring: NextTokens

    @property
    def validation_size(self) -> int:
        """See ``StageData``."""
        return len(self.held_out)

    def validation(self, samples: int) -> Context:
        """Contexts of the validation split, spread over all of it."""
        places = np.linspace(0, len(self.held_out) - 1, samples).round().astype(int)
        return self.held_out.batch([int(place) for place in places])

    def stream(self, seed: int, batch_size: int, **place: Any) -> BatchStream:
        """See ``StageData``."""
        return context_stream(self.training, seed, batch_size, **place)


def language_modelling_data(
    config: LanguageModellingExperiment,
) -> tuple[LanguageModellingData, ...]:
    """The stages of a training, with the tokenizer of its folder.

    Raises:
      ConfigError: text that is missing, a tokenizer that the model has no room for or that is not
        its teacher's.
    """
    task, teacher = config.task, config.tuning.teacher
    start = config.tuning.start or teacher
    tokenizer = setup.tokenizer(task, config.model.vocab_size, config.workdir, start)
    if teacher is not None and (Path(teacher) / TOKENIZER_FILE).is_file():
        tokenizer.check_same(Path(teacher) / TOKENIZER_FILE, f"tuning.teacher = {teacher!r}")
    train, valid = (setup.token_documents(task, split, tokenizer) for split in ("train", "valid"))
    stages = []
    for stage, count in enumerate(config.curriculum.num_segments):
        size = config.segment_size(stage)
        repeats = config.curriculum.repeats[stage]
        training, held_out = (Contexts(split, count, size, repeats) for split in (train, valid))
        plural = "" if count == 1 else "s"
        reset = ", memory reset in front of each" if task.memory == "reset" else ""
        twice = f", pieces of up to {repeats} read twice" if repeats else ""
        label = (
            f"{task.dataset}, {len(training):,} contexts of {count} segment{plural} of {size} "
            f"tokens{twice}{reset}"
        )
        scoring = NextTokens(reset=task.memory == "reset")
        stages.append(LanguageModellingData(label, training, held_out, scoring))
    return tuple(stages)
