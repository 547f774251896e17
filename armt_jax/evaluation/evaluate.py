"""Counting right answers over a whole frozen set, in bounded memory."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from armt_jax.evaluation.exact_match import MatchCount
from armt_jax.evaluation.scoring import Scoring
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.processes import global_batch, on_mesh, share_of
from armt_jax.sharding import batched, data_mesh, replicated
from armt_jax.sharding.placement import Placement


class Evaluator:
    """Exact match of a model on frozen sets; compiled once per shape of a batch."""

    def __init__(
        self, model: SegmentModel, scoring: Scoring, batch_size: int, mesh: Mesh | None = None
    ) -> None:
        """What ``scoring`` asks for, about ``batch_size`` contexts at a time.

        A batch is shared out over the axes ``data`` and ``fsdp`` of ``mesh`` (by default, over all
        devices), and made a little larger where it does not divide.

        Raises:
          ConfigError: a mesh over which the model cannot be split.
        """
        mesh = data_mesh(jax.device_count()) if mesh is None else mesh
        placement = Placement(model, mesh)
        shares = math.prod(mesh.shape[axis] for axis in placement.batch_axes)
        self.batch_size = -(-batch_size // shares) * shares

        def count(params: Params, batch: Any) -> MatchCount:
            whole = placement.enter(params)
            scores = scoring.score(placement.model, whole, batch, stages=placement.stages)
            return placement.total(scores.matches)

        self._shardings = placement.shardings
        self._count = jax.jit(
            placement.run(count, P()),
            in_shardings=(self._shardings, batched(mesh)),
            out_shardings=replicated(mesh),
        )
        self._batched = batched(mesh)

    def __call__(self, params: Params, samples: Any) -> tuple[int, int]:
        """Right answers and queries over all ``samples`` (leading axis: contexts).

        Every process has all samples, scores its share of each batch and gets the sums over all.
        """
        params = on_mesh(params, self._shardings)
        share, shares = share_of(self._batched, self.batch_size)
        rows = self.batch_size // shares
        correct = total = 0
        for start in range(0, samples.context.shape[0], self.batch_size):
            first = start + share * rows
            own = jax.tree.map(lambda x, i=first: x[i : i + rows], samples)
            batch = global_batch(fill_up(own, rows), self._batched, self.batch_size)
            counts = self._count(params, batch)
            correct, total = correct + int(counts.correct), total + int(counts.total)
        return correct, total


def fill_up(batch: Any, size: int) -> Any:
    """``batch`` with rows of padding (no pair, no query) up to ``size`` contexts."""
    missing = size - batch.context.shape[0]
    if missing <= 0:
        return batch
    return jax.tree.map(
        lambda x: np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]), batch
    )
