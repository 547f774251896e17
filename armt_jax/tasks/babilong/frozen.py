"""Frozen evaluation sets of short contexts, as a TFDS builder without TensorFlow.

Long contexts are made while they are read (``EvaluationSet``); up to some hundred thousand tokens a
set can be kept as files, the same for everybody who measures on it. The name of a set has a hash of
all that its samples depend on, so another tokenizer, other books or another seed is another set.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from armt_jax.config import ConfigError
from armt_jax.tasks import tfds_sets
from armt_jax.tasks.babilong.evaluation_sets import EvaluationSet
from armt_jax.tasks.babilong.sample import BabilongSample

_SPLIT = "test"


class FrozenSample(NamedTuple):
    """One sample as it was stored.

    Attributes:
      id: position of the question in its test file.
      context: int32 ``[n]``.
      query: int32 ``[u]``: question, GEN, answer, end.
      prompt_size: tokens of question and GEN, the beginning of ``query``.
      fact_spans: int64 ``[f, 2]``, where facts stand in the context.
      question, answer: as text.
    """

    id: int
    context: np.ndarray
    query: np.ndarray
    prompt_size: int
    fact_spans: np.ndarray
    question: str
    answer: str


@dataclasses.dataclass(kw_only=True)
class FrozenBabilongConfig(tfds.core.BuilderConfig):
    """Config of the builder; ``samples`` is the set to be frozen."""

    samples: EvaluationSet


class FrozenBabilong(tfds.core.GeneratorBasedBuilder):
    """Contexts and queries as token ids, with the places of facts."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First sets."}  # noqa: RUF012 (TFDS's name)

    @property
    def samples(self) -> EvaluationSet:
        """The set that is frozen."""
        config = self.builder_config
        if not isinstance(config, FrozenBabilongConfig):
            raise ConfigError("config = None: must be a FrozenBabilongConfig")
        return config.samples

    def _info(self) -> tfds.core.DatasetInfo:
        tokens = self.samples.books.tokenizer.dtype
        features = {
            "id": tfds.features.Scalar(dtype=np.int64),
            "context": tfds.features.Tensor(shape=(None,), dtype=tokens, encoding="bytes"),
            "query": tfds.features.Tensor(shape=(None,), dtype=tokens, encoding="bytes"),
            "prompt_size": tfds.features.Scalar(dtype=np.int64),
            "fact_ends": tfds.features.Tensor(shape=(None,), dtype=np.int64, encoding="bytes"),
            "question": tfds.features.Text(),
            "answer": tfds.features.Text(),
        }
        text = "BABILong (arXiv 2406.10149): bAbI questions in long contexts."
        return tfds_sets.dataset_info(self, text, features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {_SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        dtype = self.samples.books.tokenizer.dtype
        for index, sample in enumerate(self.samples):
            yield index, _record(self.samples.ids[index], sample, dtype)


def load_frozen_babilong(
    samples: EvaluationSet, data_dir: str | os.PathLike[str] | None = None
) -> list[FrozenSample]:
    """The samples of a set from its files, which are written on the first use.

    Args:
      samples: the set; with its files there, none of its samples is made.
      data_dir: folder of the sets; None for ``tfds_sets.default_data_dir()``.

    Raises:
      ConfigError: a set too large for files, a folder that cannot be written, a damaged set.
    """
    num_bytes = len(samples) * samples.num_tokens * samples.books.tokenizer.dtype.itemsize
    if num_bytes > tfds_sets.MAX_BYTES:
        raise ConfigError(
            f"num_tokens = {samples.num_tokens}: {len(samples)} samples are too large to freeze; "
            f"at most {tfds_sets.MAX_BYTES * samples.num_tokens // num_bytes} tokens each, or an "
            "EvaluationSet, which makes them as they are read"
        )
    config = FrozenBabilongConfig(name=set_name(samples), samples=samples)
    records = tfds_sets.read_set(FrozenBabilong, config, data_dir, _SPLIT, len(samples))
    return [_sample(record) for record in records]


def set_name(samples: EvaluationSet) -> str:
    """Name of a set's folder: its task and size, and a hash of what its samples depend on."""
    books = samples.books
    depends = {
        "ids": samples.ids,
        "questions": [repr(question) for question in samples.questions],
        "tokens": samples.num_tokens,
        "seed": samples.seed,
        "depth": samples.depth,
        "tokenizer": books.tokenizer.fingerprint,
        "books": [books.corpus.fingerprint(index) for index in range(len(books))],
    }
    digest = hashlib.blake2b(repr(depends).encode(), digest_size=8).hexdigest()
    return f"{samples.questions[0].task}_{samples.num_tokens}_{len(samples)}_{digest}"


def _record(index: int, sample: BabilongSample, dtype: np.dtype) -> dict[str, Any]:
    return {
        "id": index,
        "context": sample.context().astype(dtype),
        "query": sample.query.tokens.astype(dtype),
        "prompt_size": sample.query.prompt.size,
        "fact_ends": sample.fact_spans.reshape(-1),
        "question": sample.question.question,
        "answer": sample.question.answer,
    }


def _sample(record: dict[str, Any]) -> FrozenSample:
    return FrozenSample(
        id=int(record["id"]),
        context=record["context"].astype(np.int32),
        query=record["query"].astype(np.int32),
        prompt_size=int(record["prompt_size"]),
        fact_spans=record["fact_ends"].reshape(-1, 2),
        question=record["question"].decode(),
        answer=record["answer"].decode(),
    )
