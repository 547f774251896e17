"""Language modelling: which text is read, in which pieces, and how far it is evaluated."""

from __future__ import annotations

import dataclasses

from armt_jax.config.babilong import TOKENIZERS
from armt_jax.config.checks import one_of, positive, require

TASK_NAME = "language_modelling"
BUILT_IN = "built_in"
MEMORIES = ("kept", "reset")
SHORTEST_REPEAT = 6


@dataclasses.dataclass(frozen=True)
class LanguageModellingConfig:
    """Text that is predicted token by token (arXiv 2407.04841, Appendix G).

    ``dataset`` is a folder of ``data_dir`` (None: ``$ARMT_DATA_DIR``) such as ``wikitext-2``, the
    path of any other folder, or ``built_in``: made-up prose, for runs without data. A split is a
    file (``train.txt``, ``wiki.train.tokens``), cut at WikiText's titles, or a folder ``train`` of
    ``.txt`` files, a document each; the others are ``valid`` and ``test``. ``tokenizer`` is
    ``gpt2`` (files in ``gpt2-bpe`` of the data folder) or ``small``: trained on the training
    text, with ``model.vocab_size`` entries. Segments have ``segment_size`` tokens. ``memory`` is
    ``kept`` from segment to segment, or ``reset`` in front of every segment: the control.
    """

    name: str
    dataset: str
    data_dir: str | None
    tokenizer: str
    segment_size: int
    memory: str

    def __post_init__(self) -> None:
        one_of("task.name", self.name, (TASK_NAME,))
        require(bool(self.dataset), "task.dataset", self.dataset, "must name a folder of text")
        one_of("task.tokenizer", self.tokenizer, TOKENIZERS)
        one_of("task.memory", self.memory, MEMORIES)
        positive(self, "task", "segment_size")


@dataclasses.dataclass(frozen=True)
class LanguageModellingCurriculum:
    """Stages of training, an entry of each tuple a stage.

    Its contexts have ``num_segments`` segments of ``segment_size`` tokens, 0 for the task's own; it
    takes ``max_steps`` steps. ``repeats`` says everything twice: pieces of 6 tokens to so many, a
    new length for each, stand two times in a row; 0 is the text as it is. A memory that is to look
    up what stood behind a token learns it from such text, and from segments so short that the
    second time lies behind a border (``BUILD_NOTES.md``, "Language modelling"). The last stage has
    the task's segments and the text as it is.
    """

    num_segments: tuple[int, ...]
    segment_size: tuple[int, ...]
    repeats: tuple[int, ...]
    max_steps: tuple[int, ...]

    def __post_init__(self) -> None:
        stages = len(self.num_segments)
        require(stages >= 1, "curriculum.num_segments", self.num_segments, "needs a stage at least")
        fields = (("num_segments", 1), ("segment_size", 0), ("repeats", 0), ("max_steps", 1))
        for name, least in fields:
            values = getattr(self, name)
            each = f"needs {stages} entries, one for each of curriculum.num_segments"
            require(len(values) == stages, f"curriculum.{name}", values, each)
            for index, value in enumerate(values):
                message = f"must be at least {least}"
                require(value >= least, f"curriculum.{name}[{index}]", value, message)
        for index, longest in enumerate(self.repeats):
            message = f"must be 0 (the text as it is) or at least {SHORTEST_REPEAT} tokens"
            is_length = longest == 0 or longest >= SHORTEST_REPEAT
            require(is_length, f"curriculum.repeats[{index}]", longest, message)
        message = "must be 0, the text as it is: it is what is evaluated"
        require(self.repeats[-1] == 0, "curriculum.repeats[-1]", self.repeats[-1], message)

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.num_segments)


@dataclasses.dataclass(frozen=True)
class LanguageModellingEvaluation:
    """Contexts of ``num_segments`` segments of the test split; means are from ``first_segment`` on.

    Segments count from 1: ``first_segment = 8`` of 15 is the mean over segments 8 to 15. These are
    also read with a memory of the last ``horizons`` segments only, one number after the other.
    ``samples`` is the most contexts that are read, 0 for all of the split.
    """

    num_segments: int
    first_segment: int
    horizons: tuple[int, ...]
    samples: int
    batch_size: int

    def __post_init__(self) -> None:
        positive(self, "evaluation", "num_segments", "first_segment", "batch_size")
        first, count = self.first_segment, self.num_segments
        within = f"must be at most evaluation.num_segments = {count}"
        require(first <= count, "evaluation.first_segment", first, within)
        require(self.samples >= 0, "evaluation.samples", self.samples, "must be 0 (all) or more")
        for index, horizon in enumerate(self.horizons):
            require(
                1 <= horizon < first,
                f"evaluation.horizons[{index}]",
                horizon,
                f"must be at least 1, and below evaluation.first_segment = {first}, before which "
                "there are no more segments",
            )
