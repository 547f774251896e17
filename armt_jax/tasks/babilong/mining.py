"""Hard negatives: the noise that a model's own write gates open for.

What opens a gate of a trained memory is rare, one segment in hundreds, and another one in every
model ("Mary", "Uncle John" in one of qa1's). Random noise hardly ever shows it to the loss, and a
measure that knows no model guesses at it. So the model reads much noise when a stage begins,
without a gradient, and is then trained on what was nearest to opening a gate.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax.config import ConfigError
from armt_jax.memory import associative
from armt_jax.models import ARMT
from armt_jax.models.protocol import Params, Segment
from armt_jax.recurrence import run_segments
from armt_jax.recurrence.gates import OPEN, side_by_side
from armt_jax.tasks.babilong.examples import ExampleMaker
from armt_jax.tasks.babilong.noise import draw_passage, write_arrays
from armt_jax.tasks.babilong.planting import Planter
from armt_jax.tasks.babilong.sample import sample_rng

# One in so many segments is kept: with a model that is nearly right, those near to a gate's border.
KEPT = 256
_STORIES = 32
_SEGMENTS = 32  # read after each story in one call


@dataclasses.dataclass(frozen=True, eq=False)
class MinedNoise:
    """What was found.

    Attributes:
      windows: ids ``[k, 2 t]``: a segment of ``t`` in the middle, half of one more on either side.
      opened: share of the segments read as books have them, in which a gate was open; NaN where
        there were none.
      opened_planted: the same of those with words of facts planted.
      logits: float32 ``[k]``, the widest gate's of each window's segment, the highest first.
    """

    windows: np.ndarray
    opened: float
    opened_planted: float
    logits: np.ndarray

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Ids ``[t]`` of one of them, moved by up to half a segment."""
        window = self.windows[rng.integers(self.windows.shape[0])]
        size = window.size // 2
        start = int(rng.integers(size, endpoint=True))
        return window[start : start + size]

    def describe(self) -> str:
        """For people, on one line."""
        shares = {"": self.opened, " with words of facts planted": self.opened_planted}
        opened = " and ".join(
            f"{share:.2e} of the segments of noise{kind}"
            for kind, share in shares.items()
            if np.isfinite(share)
        )
        return (
            f"{opened} open a gate; the {self.logits.size:,} "
            f"nearest to it have logits from {self.logits[-1]:.1f} to {self.logits[0]:.1f}"
        )

    def save(self, path: Path) -> None:
        """As a file, whole or not at all."""
        write_arrays(path, {name: np.asarray(value) for name, value in vars(self).items()})

    @classmethod
    def load(cls, path: Path) -> MinedNoise:
        """What ``save`` wrote.

        Raises:
          ConfigError: a file that is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:  # a zip: checks its sums
                earlier = "opened_planted" not in arrays.files  # nothing was planted then
                planted = np.nan if earlier else float(arrays["opened_planted"])
                opened = float(arrays["opened"])
                return cls(arrays["windows"], opened, planted, arrays["logits"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{str(path)!r}: must be a file of mined noise ({error})") from error


class ReadNoise(NamedTuple):
    """Segments that were read.

    Attributes:
      windows: ids ``[k, 2 t]``, see ``MinedNoise``.
      logits: ``[k]``, the highest of each.
      gates: ``[k]``, the widest of each.
      planted: bool ``[k]``, whether words of facts were planted there.
    """

    windows: np.ndarray
    logits: np.ndarray
    gates: np.ndarray
    planted: np.ndarray


def mine(model: ARMT, params: Params, maker: ExampleMaker, searched: int, key: int) -> MinedNoise:
    """Of ``searched`` random segments, rounded up to whole calls, those that open the widest gates.

    With a planter the widest of those with words of facts planted, and of the others, by their
    shares of all.

    Each is read from the memory of one of 32 stories, and nothing is written.

    Args:
      model, params: what reads; the parameters of one process.
      maker: of the stage: its stories, its books, and what plants words of facts in them.
      searched: segments of noise.
      key: names the stream that stories and noise are drawn from.
    """
    most = max(1, searched // KEPT)
    empty = _Found(np.zeros((0, 2 * maker.segment_size), np.int32), np.zeros(0, np.float32))
    best = [empty, empty]  # of segments as books have them, and of planted ones
    opened, total = np.zeros(2, int), np.zeros(2, int)
    for read in read_noise(model, params, maker, searched, key, maker.planter):
        total += np.bincount(read.planted, minlength=2)
        opened += np.bincount(read.planted[read.gates > OPEN], minlength=2)
        for kind in range(2):
            these = read.planted == kind
            best[kind] = best[kind].add(read.windows[these], read.logits[these]).highest(most)
    # Each kind by its share: nearly all that is nearest to facts is planted.
    kept = np.where(total > 0, np.maximum(1, np.rint(most * total / total.sum())), 0).astype(int)
    plain, planted = (one.highest(int(count)) for one, count in zip(best, kept, strict=True))
    found = plain.add(*planted).highest(int(kept.sum()))
    shares = np.divide(opened, total, out=np.full(2, np.nan), where=total > 0)
    return MinedNoise(found.windows, float(shares[0]), float(shares[1]), found.logits)


class _Found(NamedTuple):
    windows: np.ndarray
    logits: np.ndarray

    def add(self, windows: np.ndarray, logits: np.ndarray) -> _Found:
        return _Found(np.concatenate([self.windows, windows]), np.append(self.logits, logits))

    def highest(self, count: int) -> _Found:
        best = np.argsort(-self.logits, kind="stable")[:count]
        return _Found(self.windows[best], self.logits[best])


def read_noise(
    model: ARMT,
    params: Params,
    maker: ExampleMaker,
    searched: int,
    key: int,
    planter: Planter | None = None,
) -> Iterator[ReadNoise]:
    """The segments that ``mine`` looks at, in pieces; without a ``planter`` as books have them."""
    stories = min(_STORIES, searched)
    count = min(_SEGMENTS, -(-searched // stories))
    each, size = stories * count, maker.segment_size
    params = jax.device_put(params)
    state = _after_stories(model, params, maker, stories, key)
    read = jax.jit(lambda params, state, tokens: _widest(model, params, state, tokens))
    for call in range(-(-searched // each)):
        rng = sample_rng(key, stories + call)
        tokens = draw_passage(maker.books, (each + 1) * size, rng).read(0, (each + 1) * size)
        found = np.lib.stride_tricks.sliding_window_view(tokens.astype(np.int32), 2 * size)[::size]
        inner, planted = slice(size // 2, size // 2 + size), np.zeros(each, bool)
        if planter is not None:
            found = found.copy()
            found[:, inner], planted = planter(found[:, inner], rng)
        middle = found[:, inner].reshape(count, stories, size)
        widest, gates = jax.device_get(read(params, state, middle))
        yield ReadNoise(found, widest.ravel(), gates.ravel(), planted)


def _after_stories(model: ARMT, params: Params, maker: ExampleMaker, stories: int, key: int) -> Any:
    bare = dataclasses.replace(maker, noise_before=0, noise_behind=0)
    made = [bare.forked(sample_rng(key, index)) for index in range(stories)]
    tokens, mask = (
        np.stack([getattr(one, name) for one in made], axis=1)
        for name in ("context", "context_mask")
    )
    state = model.init_state(stories)
    segments = Segment(jnp.asarray(tokens), jnp.asarray(mask))
    return jax.jit(
        lambda params, state, segments: run_segments(
            model, params, state, segments, need_hidden=False
        )[0]
    )(params, state, segments)


def _widest(
    model: ARMT, params: Params, state: Any, tokens: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Of segments ``[s, b, t]``: the highest logit and the widest gate, both ``[s, b]``."""
    logits = side_by_side(model, params, state, Segment(tokens, jnp.ones(tokens.shape, bool)))
    gates = associative.gate(model.rule, logits)
    return jnp.max(logits, axis=(1, 3)).astype(jnp.float32), jnp.max(gates, axis=(1, 3))
