"""BABILong: what is asked, the stages of learning it, and how far it is evaluated."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from armt_jax.config.carrying import CARRYING
from armt_jax.config.checks import one_of, positive, require

TASK_NAME = "babilong"
BABI_TASKS = tuple(f"qa{number}" for number in range(1, 21))
SIMULATED_TASKS = BABI_TASKS[:5]
# How many difficulties invented facts have, where it is more than one.
INVENTED_DIFFICULTIES = {task: len(found) for task, found in CARRYING.items()} | {
    "qa4": 2,
    "qa5": 2,
}
FACT_SOURCES = ("simulator", "babi")
NOISE_SOURCES = ("books", "built_in")
TOKENIZERS = ("gpt2", "small")
LENGTH = re.compile(r"(\d+)([kM]?)")  # of ``tasks.babilong.sample.tokens_of_length``
# Settings of a stage that came later, each with the value of a training without it.
_LATER: dict[str, Any] = {
    "drift_weight": 0.0,
    "noise_choices": 1,
    "noise_planted": 0.0,
    "gate_weight": 0.0,
    "noise_mined": 0,
    "difficulty": 1,
    "learning_rate_factor": 1.0,
}


def fewest_names(task: str, facts: int, difficulty: int) -> int:
    """Names that so many invented facts of ``task`` can need."""
    if task in CARRYING:
        return sum(CARRYING[task][difficulty - 1].sizes(facts))
    if task == "qa4":  # a room of each, and one that at least two relations have
        return facts + -(-facts // 2)
    if task == "qa5":  # a thing of each gift, and one more person than gifts
        return 2 * facts + 1
    return facts


def with_later_settings(values: dict[str, Any]) -> dict[str, Any]:
    """What a run's ``config.json`` held, completed where an earlier version wrote it.

    Experiments of other tasks, and what is no experiment, are returned as they are.
    """
    task, stages = values.get("task"), values.get("curriculum")
    if not (isinstance(task, dict) and task.get("name") == TASK_NAME and isinstance(stages, dict)):
        return values
    segments = stages.get("num_segments")
    count = len(segments) if isinstance(segments, (list, tuple)) else 0
    later = {name: [value] * count for name, value in _LATER.items()}
    if isinstance(stages.get("random_num_segments"), bool):  # once of all stages
        stages = stages | {"random_num_segments": [stages["random_num_segments"]] * count}
    return values | {"task": {"segment_overlap": 0} | task, "curriculum": later | stages}


@dataclasses.dataclass(frozen=True)
class BabilongConfig:
    """The benchmark (arXiv 2406.10149): questions about facts that are hidden in a long text.

    ``task`` is the bAbI task, ``qa1`` to ``qa20``. ``data_dir`` has the folders ``babi``, ``books``
    and ``gpt2-bpe`` (None: ``$ARMT_DATA_DIR``, and what makes its own data where that is unset).
    ``facts`` are those of training: ``simulator`` (fresh stories, every question that a story can
    answer; qa1 to qa5) or ``babi`` (its training files). ``noise`` is ``books``, or ``built_in``
    where there are none. ``tokenizer`` is ``gpt2`` or ``small``: trained on the task, with
    ``model.vocab_size`` entries. Segments have ``segment_size`` tokens, of which the first
    ``segment_overlap`` repeat the last ones of the segment before: a fact of one token more stands
    whole in one of them, wherever it lies.
    """

    name: str
    task: str
    data_dir: str | None
    facts: str
    noise: str
    tokenizer: str
    segment_size: int
    segment_overlap: int = 0

    def __post_init__(self) -> None:
        one_of("task.name", self.name, (TASK_NAME,))
        one_of("task.task", self.task, BABI_TASKS)
        one_of("task.facts", self.facts, FACT_SOURCES)
        if self.facts == "simulator":
            one_of("task.task (task.facts = 'simulator')", self.task, SIMULATED_TASKS)
        one_of("task.noise", self.noise, NOISE_SOURCES)
        one_of("task.tokenizer", self.tokenizer, TOKENIZERS)
        positive(self, "task", "segment_size")
        require(
            0 <= self.segment_overlap < self.segment_size,
            "task.segment_overlap",
            self.segment_overlap,
            f"must be from 0 to {self.segment_size - 1}, below task.segment_size",
        )


@dataclasses.dataclass(frozen=True)
class BabilongCurriculum:
    """Stages of training, one entry of each tuple a stage; a stage ends as in retrieval's.

    A context has ``num_segments`` segments, or 1 to so many, uniformly, with
    ``random_num_segments`` (most are shorter then, so that what goes wrong in long ones alone is
    rarely seen); of ``segment_size`` tokens, 0 for the task's own. Stories have at most
    ``max_facts`` facts, 0 for any number (but never more than one for every five tokens, as the
    authors have it). Facts stand anywhere among the noise (``facts_per_segment`` 0), or every
    segment has 1 to ``facts_per_segment`` of them, with noise between that fills up to a share
    ``noise`` of the rest, both drawn anew for each segment: looking up, and telling facts of one
    segment apart, is learnt there first.
    With ``names`` above 0 the facts of such segments are moves of invented people to invented
    places, in qa2 and qa3 also what they take and leave, in qa4 relations between invented rooms,
    in qa5 gifts, with so many names between them: telling facts of one segment apart is learnt
    there (``tasks/babilong/invented.py``, ``invented_*.py``). ``difficulty`` then says how much of
    the task they hold, 1 to 4 in qa2 and qa3 (``config/carrying.py``), 1 to 2 in qa4 and qa5.
    Contexts of a stage have 0 to ``noise_before`` segments of noise more in front and 0 to
    ``noise_behind`` behind, which are read without a gradient: what leaks too slowly for the
    context's own length comes into the loss. ``num_segments`` does not count them. Each of those
    behind is the likest to facts of 1 to ``noise_choices`` random ones, and in a share
    ``noise_planted`` of them words of facts are planted (``tasks/babilong/planting.py``), in
    validation's contexts as well. In training every other one is instead among those that open the
    write gates widest of ``noise_mined`` (0: none are sought), which the model reads when the stage
    begins (``tasks/babilong/mining.py``), the same share of them planted. ``drift_weight``
    times the relative change that those behind make in the memory is added to the loss, and
    ``gate_weight`` times how far they open its write gates (``recurrence/gates.py``): noise learns
    to leave the memory alone, whatever few errors that would mend within the context.
    ``learning_rate_factor`` times the rates of ``OptimizerConfig`` are those of a stage: where many
    facts share names, steps that are large enough to find out how to look up are too large to get
    the last errors out. ``num_queries`` is the number of questions asked per context, 0 for all
    that it can answer.
    """

    num_segments: tuple[int, ...]
    segment_size: tuple[int, ...]
    max_facts: tuple[int, ...]
    facts_per_segment: tuple[int, ...]
    noise: tuple[float, ...]
    names: tuple[int, ...]
    difficulty: tuple[int, ...]
    noise_before: tuple[int, ...]
    noise_behind: tuple[int, ...]
    noise_choices: tuple[int, ...]
    noise_planted: tuple[float, ...]
    noise_mined: tuple[int, ...]
    drift_weight: tuple[float, ...]
    gate_weight: tuple[float, ...]
    learning_rate_factor: tuple[float, ...]
    max_steps: tuple[int, ...]
    target: tuple[float, ...]
    num_queries: int
    random_num_segments: tuple[bool, ...]

    def __post_init__(self) -> None:
        stages = len(self.num_segments)
        require(stages >= 1, "curriculum.num_segments", self.num_segments, "needs a stage at least")
        fields = [
            field.name for field in dataclasses.fields(self) if field.type.startswith("tuple")
        ]
        for name in fields:
            values = getattr(self, name)
            require(
                len(values) == stages,
                f"curriculum.{name}",
                values,
                f"needs {stages} entries, one for each of curriculum.num_segments",
            )
        for index in range(stages):
            self._check_stage(index)
        require(
            self.num_queries >= 0, "curriculum.num_queries", self.num_queries, "must be 0 or more"
        )

    def _check_stage(self, index: int) -> None:
        least = dict.fromkeys(("num_segments", "max_steps", "noise_choices", "difficulty"), 1)
        least |= {"segment_size": 0, "max_facts": 0}
        may_be_0 = ("facts_per_segment", "names", "noise_before", "noise_behind", "noise_mined")
        least |= dict.fromkeys(may_be_0, 0)
        for name, bound in least.items():
            value = getattr(self, name)[index]
            message = f"must be {bound} or more" if bound == 0 else f"must be at least {bound}"
            require(value >= bound, f"curriculum.{name}[{index}]", value, message)
        names, most = self.names[index], self.max_facts[index]
        dense = self.facts_per_segment[index] > 0 and most > 0
        require(
            names == 0 or (dense and names >= most),
            f"curriculum.names[{index}]",
            names,
            f"must be 0, or at least curriculum.max_facts[{index}] = {most}, which with "
            f"curriculum.facts_per_segment[{index}] must be above 0 then",
        )
        behind = self.noise_behind[index]
        for name in ("drift_weight", "gate_weight"):
            weight = getattr(self, name)[index]
            require(
                weight == 0 or (weight > 0 and behind > 0),
                f"curriculum.{name}[{index}]",
                weight,
                f"must be 0, or positive with curriculum.noise_behind[{index}] (= {behind}) above "
                "0",
            )
        for name, none in (("noise_choices", 1), ("noise_planted", 0), ("noise_mined", 0)):
            value = getattr(self, name)[index]
            require(
                value == none or behind > 0,
                f"curriculum.{name}[{index}]",
                value,
                f"must be {none} with curriculum.noise_behind[{index}] = 0: no noise behind",
            )
        for name in ("noise", "noise_planted"):
            share = getattr(self, name)[index]
            require(0 <= share <= 1, f"curriculum.{name}[{index}]", share, "must be from 0 to 1")
        for name in ("target", "learning_rate_factor"):
            value = getattr(self, name)[index]
            require(value > 0, f"curriculum.{name}[{index}]", value, "must be positive")

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.num_segments)


@dataclasses.dataclass(frozen=True)
class BabilongEvaluation:
    """Lengths of contexts in tokens, and how many of the official test samples are asked at each.

    ``lengths`` are numbers, or names such as ``4k`` and ``1M`` (multiples of 1,000, of a million,
    as the benchmark counts). ``samples`` are asked at each length, ``batch_size`` read at once.
    """

    lengths: tuple[str, ...]
    samples: int
    batch_size: int

    def __post_init__(self) -> None:
        require(len(self.lengths) >= 1, "evaluation.lengths", self.lengths, "needs a length")
        for index, length in enumerate(self.lengths):
            require(
                LENGTH.fullmatch(length) is not None,
                f"evaluation.lengths[{index}]",
                length,
                "must be a number of tokens such as 4096, 64k or 1M",
            )
        positive(self, "evaluation", "samples", "batch_size")
