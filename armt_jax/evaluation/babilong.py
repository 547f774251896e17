"""Asking a model the official test questions of BABILong, after contexts of any length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from armt_jax.config import BabilongConfig, BabilongExperiment, ConfigError
from armt_jax.evaluation.answers import answer_prompts
from armt_jax.evaluation.babilong_results import Answer, AnswerFile
from armt_jax.evaluation.long_contexts import read_contexts
from armt_jax.models import create_model
from armt_jax.models.protocol import Params
from armt_jax.streaming import fast_reader
from armt_jax.tasks.babilong import setup
from armt_jax.tasks.babilong.babi import Question
from armt_jax.tasks.babilong.evaluation_sets import (
    LONG_TOKENS,
    EvaluationSet,
    load_hundred_ids,
    official_ids,
)
from armt_jax.tasks.babilong.frozen import set_name
from armt_jax.tasks.babilong.noise import TokenisedBooks
from armt_jax.tasks.babilong.questions import evaluation_questions
from armt_jax.tasks.babilong.sample import BabilongSample, tokens_of_length

# Tokens of an answer, its end included: lists of qa8 are the longest.
ANSWER_TOKENS = 16
# A context this long is worth keeping half-read.
_SNAPSHOT_FROM = 2_000_000
Progress = Callable[[str, int, int], None]


def evaluation_set(
    task: BabilongConfig, books: TokenisedBooks, length: str, samples: int
) -> EvaluationSet:
    """The first ``samples`` of the official set of a length, in unseen books.

    Without bAbI's files the questions are simulated, and all of them are in the set.

    Raises:
      ConfigError: no such length, or data that are missing.
    """
    folder, name = setup.data_folder(task), task.task
    questions = evaluation_questions(name, folder)
    tokens = tokens_of_length(length)
    if folder is None:
        ids = list(range(len(questions)))
    else:
        hundred = load_hundred_ids(folder) if tokens >= LONG_TOKENS else None
        ids = official_ids(name, length, questions, hundred)
    ids = _that_fit(ids, questions, books, tokens) if tokens else ids
    if not ids:
        raise ConfigError(f"length = {length!r}: is too short for every story of {name}")
    return EvaluationSet(books, questions, ids[:samples], tokens)


class BabilongEvaluator:
    """Answers of one checkpoint, kept in a file as they come."""

    def __init__(
        self,
        config: BabilongExperiment,
        params: Params,
        step: int,
        folder: Path,
        progress: Progress | None = None,
    ) -> None:
        """``folder`` keeps answers and half-read contexts; a later evaluator goes on with them.

        ``progress`` is called with a length, tokens read of its contexts, and tokens to read.
        """
        self.config, self.params, self.step = config, params, step
        self.model = create_model(config.model)
        self.folder, self._progress = folder, progress
        folder.mkdir(parents=True, exist_ok=True)
        self.file = AnswerFile(folder / "babilong_answers.jsonl")
        tokenizer = setup.tokenizer(config.task, config.model.vocab_size, Path(config.workdir))
        self.books = setup.tokenised_books(config.task, "test", tokenizer)
        task = config.task
        self._reader = fast_reader(
            self.model, params, task.segment_size, segment_overlap=task.segment_overlap
        )

    def answers(self, length: str, samples: int) -> list[Answer]:
        """All answers at one length, those that are in the file already and new ones.

        Contexts of one number of tokens are read side by side, ``evaluation.batch_size`` of them.
        """
        chosen = evaluation_set(self.config.task, self.books, length, samples)
        name = set_name(chosen)
        found = {a.id: a for a in self.file.read() if (a.set, a.step) == (name, self.step)}
        missing = [index for index, id_ in enumerate(chosen.ids) if id_ not in found]
        size = self.config.evaluation.batch_size if chosen.num_tokens else 1
        for start in range(0, len(missing), size):
            indices = missing[start : start + size]
            batch = [chosen[index] for index in indices]
            reading = f"{name}_{self.step}_{chosen.ids[indices[0]]}"
            tokens = chosen.num_tokens * len(missing), chosen.num_tokens * start
            outputs = self._ask(batch, reading, length, *tokens)
            made = [
                Answer(
                    task=self.config.task.task,
                    length=length,
                    set=name,
                    id=chosen.ids[index],
                    question=sample.question.question,
                    target=sample.question.answer,
                    output=output,
                    step=self.step,
                )
                for index, sample, output in zip(indices, batch, outputs, strict=True)
            ]
            self.file.append(made)
            found |= {answer.id: answer for answer in made}
        return [found[id_] for id_ in chosen.ids]

    def _ask(
        self, batch: Sequence[BabilongSample], reading: str, length: str, total: int, before: int
    ) -> list[str]:
        """The answers to a batch; ``before`` of ``total`` tokens were read before it."""
        tokenizer = self.books.tokenizer

        def on_block(tokens: int) -> None:
            if self._progress is not None:
                self._progress(length, before + tokens * len(batch), total)

        is_long = batch[0].num_tokens >= _SNAPSHOT_FROM
        state = read_contexts(
            self._reader,
            batch,
            pad_token=tokenizer.pad_id,
            on_block=on_block,
            snapshot=self.folder / f"{reading}.safetensors" if is_long else None,
        )
        answers = answer_prompts(
            self.model,
            self.params,
            jax.device_put(state, jax.devices()[0]),
            [[sample.query.prompt] for sample in batch],
            max_new_tokens=ANSWER_TOKENS,
            stop_token=tokenizer.end_id,
        )
        return [tokenizer.decode_answer(ids) for (ids,) in answers]


def _that_fit(
    ids: Sequence[int], questions: Sequence[Question], books: TokenisedBooks, tokens: int
) -> list[int]:
    """Stories whose facts fit into a context of so many tokens of this tokenizer."""

    def size(index: int) -> int:
        return sum(map(len, books.tokenizer.sentences(questions[index].facts)))

    return [index for index in ids if size(index) <= tokens]
