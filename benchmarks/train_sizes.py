"""What training steps are measured on: a model and a batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from armt_jax.config import ModelConfig
from armt_jax.tasks.associative_retrieval import AssociativeRetrieval, Batch
from benchmarks import flops
from benchmarks.sizes import GPT2_SMALL, RETRIEVAL


class TrainSize(NamedTuple):
    """A model, what it reads, and how many of a query's last tokens, less one, are its answer."""

    config: ModelConfig
    batch: Batch
    value_size: int

    @property
    def flops(self) -> float:
        """Operations that a step must do: forward once, backward twice."""
        (count, segments, length), queries = self.batch.context.shape, self.batch.queries.shape[1]
        middle, end = flops.seen_before(self.config, segments, length)
        work = segments * flops.context_flops(self.config, length, middle)
        work += queries * flops.query_flops(self.config, length, self.value_size + 1, end)
        return 3 * count * work


def retrieval_size(
    pairs: int,
    batch: int,
    *,
    family: str = "armt",
    backbone: str = "gpt2",
    rule: str = "armt",
    queries: int = 1,
    key_size: int = 2,
) -> TrainSize:
    """Appendix E's model (4 layers, width 128, 4 heads, d_mem 32, 4 memory tokens) on Remember.

    ``queries``: of each context; 0 asks every key.
    """
    kind = {"family": family, "backbone": backbone, "rule": rule, **RETRIEVAL, "vocab_size": 128}
    config = _config(kind, 32, pairs, (pairs + 1) * (key_size + 3))
    task = AssociativeRetrieval("remember", pairs, key_size, 1, queries, False)
    rng = np.random.default_rng(0)
    samples = [task.sample(rng) for _ in range(batch)]
    stacked = Batch(*(np.stack(leaves) for leaves in zip(*samples, strict=True)))
    return TrainSize(config, stacked, task.value_size)


def gpt2_small_size(
    segments: int,
    batch: int,
    *,
    family: str = "armt",
    backbone: str = "gpt2",
    rule: str = "armt",
    length: int = 512,
) -> TrainSize:
    """GPT-2 small on random tokens: ``segments`` are read, and one more is predicted but its first.

    12 x 768, 10 memory tokens, d_mem 64.
    """
    kind = {"family": family, "backbone": backbone, "rule": rule, **GPT2_SMALL, "vocab_size": 50257}
    config = _config(kind, max(1024, length + 30), segments, (segments + 1) * length)
    rng, shape = np.random.default_rng(0), (batch, segments)
    context = rng.integers(0, config.vocab_size, (*shape, length), np.int32)
    asked = rng.integers(0, config.vocab_size, (batch, 1, length), np.int32)
    texts = Batch(context, np.ones(shape, bool), asked, np.ones((batch, 1), bool))
    # The answer, with the token that ends it, is the segment but its first token.
    return TrainSize(config, texts, length - 2)


def _config(kind: dict[str, Any], positions: int, segments: int, text: int) -> ModelConfig:
    """The model, with ``positions`` or, of a family whose state is the text, all that it needs."""
    if kind["family"] == "transformer":
        positions = max(positions, text)  # learned ones go on through the whole text
    return ModelConfig(
        **kind, n_positions=positions, retrieval_states=segments, context_tokens=text
    )
