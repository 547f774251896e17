"""``StageData`` of BABILong: what the trainer reads in a stage of its curriculum."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from armt_jax.config import BabilongExperiment, ConfigError
from armt_jax.config.babilong import INVENTED_DIFFICULTIES
from armt_jax.evaluation.scoring import MarkedAnswer
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.processes import is_main
from armt_jax.recurrence.gates import with_gates
from armt_jax.tasks.babilong import setup
from armt_jax.tasks.babilong.examples import ExampleMaker, ForkedExample
from armt_jax.tasks.babilong.inventions import invention, longest_query
from armt_jax.tasks.babilong.likeness import FactLikeness
from armt_jax.tasks.babilong.mining import MinedNoise, mine
from armt_jax.tasks.babilong.noise import TokenisedBooks
from armt_jax.tasks.babilong.planting import Planter
from armt_jax.tasks.babilong.questions import QuestionSource, training_questions
from armt_jax.tasks.babilong.sample import make_query, sample_rng
from armt_jax.tasks.babilong.solver import all_questions
from armt_jax.tasks.babilong.tokenizers import BabilongTokenizer
from armt_jax.tasks.babilong.training_stream import babilong_stream, stream_key
from armt_jax.tasks.stage_data import BatchStream

VALIDATION_SIZE = 1_000
# No seed of a run, whose are below 2**31.
_VALIDATION_SEED = 2**62
# Questions that are looked at to find how long questions and answers get.
_LOOKED_AT = 2_000
_MOST_QUERIES = 32


@dataclasses.dataclass(frozen=True)
class QuerySizes:
    """Tokens of the longest query, of the longest answer with its end, and questions a context."""

    query: int
    answer: int
    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class BabilongData:
    """One stage. ``maker`` is of training; ``validation_maker`` makes contexts of full length."""

    label: str
    maker: ExampleMaker
    validation_maker: ExampleMaker
    scoring: MarkedAnswer
    mined_from: int = 0
    mining_key: int = 0
    validation_size: int = VALIDATION_SIZE

    def validation(self, samples: int) -> ForkedExample:
        """The first validation contexts, all of full length, one question each."""
        key = stream_key(_VALIDATION_SEED)
        made = [self.validation_maker.forked(sample_rng(key, i)) for i in range(samples)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *made)

    def stream(self, seed: int, batch_size: int, **place: Any) -> BatchStream:
        """See ``StageData``."""
        return babilong_stream(self.maker, seed, batch_size, **place)

    def for_model(
        self,
        model: SegmentModel,
        params: Params,
        path: Path,
        begins: bool,
        say: Callable[[str], None],
    ) -> BabilongData:
        """See ``DataForModel``: with noise that ``model`` has trouble with, where it is mined."""
        if self.mined_from == 0:
            return self
        path = path.with_suffix(".npz")
        mined = None if begins else _load(path, say)
        if mined is None:
            say(f"reading {self.mined_from:,} segments of noise for what opens the write gates")
            armt = with_gates(model)
            mined = mine(armt, params, self.maker, self.mined_from, self.mining_key)
            say(mined.describe())
            if is_main():
                mined.save(path)
        return dataclasses.replace(self, maker=dataclasses.replace(self.maker, mined=mined))


def _load(path: Path, say: Callable[[str], None]) -> MinedNoise | None:
    try:
        return MinedNoise.load(path)
    except ConfigError as error:
        say(f"warning: {error}: mining again, so the run does not end as an uninterrupted one")
        return None


def babilong_data(
    config: BabilongExperiment, stages: Sequence[int] | None = None
) -> tuple[BabilongData, ...]:
    """The stages of a training, with the tokenizer of its folder.

    Args:
      config: its configuration.
      stages: which, from 0; all by default.

    Raises:
      ConfigError: data that are missing, or a tokenizer that the model has no room for.
    """
    task, curriculum = config.task, config.curriculum
    workdir, start = Path(config.workdir), config.tuning.start
    tokenizer = setup.tokenizer(task, config.model.vocab_size, workdir, start)
    books = setup.tokenised_books(task, "train", tokenizer)
    simulated = task.facts == "simulator"
    sources = [
        training_questions(task.task, seed, setup.data_folder(task), simulated)
        for seed in (config.seed, _VALIDATION_SEED)
    ]
    sizes = query_sizes(tokenizer, sources[0], curriculum.num_queries)
    config.model.check_segment(sizes.query)
    likeness = None
    if max(curriculum.noise_choices) > 1 or any(curriculum.noise_planted):
        likeness = FactLikeness(sources[0], books)
    return tuple(
        _stage(config, books, sources, sizes, likeness, index)
        for index in (range(curriculum.num_stages) if stages is None else stages)
    )


def _stage(
    config: BabilongExperiment,
    books: TokenisedBooks,
    sources: list[QuestionSource],
    sizes: QuerySizes,
    likeness: FactLikeness | None,
    index: int,
) -> BabilongData:
    task, curriculum = config.task, config.curriculum
    num_segments, max_facts = curriculum.num_segments[index], curriculum.max_facts[index]
    each, segment_size = curriculum.facts_per_segment[index], config.segment_size(index)
    names, planted = curriculum.names[index], curriculum.noise_planted[index]
    planter = Planter(likeness, planted) if likeness is not None and planted else None
    query_size = sizes.query
    if names:
        query_size = max(query_size, longest_query(task.task, books.tokenizer, names))
        config.model.check_segment(query_size)
    # Of invented people, and of the first rooms of invented relations, each can be asked about.
    most = min(max_facts, _MOST_QUERIES) if names else sizes.count
    most = min(most, curriculum.num_queries or most)
    before, behind = curriculum.noise_before[index], curriculum.noise_behind[index]
    training, validation = (
        ExampleMaker(
            questions=source,
            books=books,
            max_segments=num_segments,
            segment_size=segment_size,
            num_queries=count,
            query_size=query_size,
            random_segments=random_segments,
            max_facts=max_facts,
            facts_per_segment=each,
            noise=curriculum.noise[index],
            names=names,
            invention=invention(task.task, curriculum.difficulty[index]),
            noise_before=before,
            noise_behind=behind,
            likeness=likeness,
            noise_choices=curriculum.noise_choices[index],
            planter=planter,
            overlap=task.segment_overlap,
        )
        for source, count, random_segments in (
            (sources[0], most, curriculum.random_num_segments[index]),
            (sources[1], 1, False),
        )
    )
    plural = "" if num_segments == 1 else "s"
    facts = "" if max_facts == 0 else f", at most {max_facts} facts"
    dense = "" if each == 0 else f", up to {each} in each"
    if names:
        dense += f", of {names} names"
        if task.task in INVENTED_DIFFICULTIES:
            of = INVENTED_DIFFICULTIES[task.task]
            dense += f", difficulty {curriculum.difficulty[index]} of {of}"
    label = f"{task.task}, {num_segments} segment{plural} of {segment_size} tokens{facts}{dense}"
    if before or behind:
        label += f", up to {before} of noise before and {behind} behind"
    weights = curriculum.drift_weight[index], curriculum.gate_weight[index]
    scoring = MarkedAnswer(sizes.answer, before, behind, *weights)
    mined_from = curriculum.noise_mined[index]
    key = stream_key(config.seed, index, "mining")
    return BabilongData(label, training, validation, scoring, mined_from, key)


def query_sizes(
    tokenizer: BabilongTokenizer, questions: QuestionSource, num_queries: int
) -> QuerySizes:
    """Sizes that hold every question and answer of the first 2,000 stories or so.

    A question that turns out longer later is refused by name (``ExampleMaker``).
    """
    query = answer = count = 1
    for index in range(min(questions.num_questions, _LOOKED_AT)):
        question = questions.question(index)
        asked = [(question.question, question.answer)]
        if num_queries != 1:
            asked += all_questions(question.task, question.facts)
        count = max(count, len(asked) - 1)
        for text, right in asked:
            made = make_query(tokenizer, text, right)
            query = max(query, made.tokens.size)
            answer = max(answer, int(made.loss_mask.sum()))
    most = min(count, _MOST_QUERIES)
    return QuerySizes(query, answer, min(num_queries, most) if num_queries else most)
