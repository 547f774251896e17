"""Mined noise: what a loop over every segment finds, drawn as said, kept as a file."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax import ConfigError
from armt_jax.evaluation.scoring import MarkedAnswer
from armt_jax.models import create_model
from armt_jax.models.protocol import Segment
from armt_jax.recurrence.gates import OPEN
from armt_jax.tasks.babilong import mining, stage_data
from armt_jax.tasks.babilong.examples import ExampleMaker
from armt_jax.tasks.babilong.likeness import FactLikeness
from armt_jax.tasks.babilong.mining import MinedNoise, mine
from armt_jax.tasks.babilong.noise import draw_passage
from armt_jax.tasks.babilong.planting import Planter
from armt_jax.tasks.babilong.sample import sample_rng
from armt_jax.tasks.babilong.simulator import Simulator
from armt_jax.tasks.babilong.stage_data import BabilongData
from tests.small_models import lively_params, small_model
from tests.tasks.babilong.stories import small_books

SIZE, STORIES, SEARCHED, EACH, KEY = 17, 4, 20, 8, 5
BOOKS = small_books()


def maker(**changes: Any) -> ExampleMaker:
    settings = {
        "questions": Simulator("qa1", 0),
        "books": BOOKS,
        "max_segments": 12,
        "segment_size": SIZE,
        "num_queries": 2,
        "query_size": 40,
        "max_facts": 4,
        "noise_before": 1,
        "noise_behind": 6,
    }
    return ExampleMaker(**{**settings, **changes})


def model_and_params() -> tuple[Any, Any]:
    """One whose hard gates open for some segments and not for others."""
    model = small_model(
        rule="delta_hard", backbone="gpt_neox", vocab_size=BOOKS.tokenizer.vocab_size
    )
    params = lively_params(model)
    bias = params["layers"]["memory"]["W_mb"]["bias"]
    params["layers"]["memory"]["W_mb"]["bias"] = bias - 3.0
    return model, params


def looped(model: Any, params: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows, highest logits and widest gates of all segments that are to be read, in order."""
    bare = maker(noise_before=0, noise_behind=0)
    made = [bare.forked(sample_rng(KEY, index)) for index in range(STORIES)]
    state = model.init_state(STORIES)
    for index in range(12):
        tokens = jnp.asarray([one.context[index] for one in made])
        mask = jnp.asarray([one.context_mask[index] for one in made])
        state = model.write(params, state, Segment(tokens, mask))
    logits = jax.jit(model.gate_logits)
    windows, highest = [], []
    for call in range(3):  # 3 x 8 segments: the first number of calls that reads 20
        rng = sample_rng(KEY, STORIES + call)
        passage = draw_passage(BOOKS, (EACH + 1) * SIZE, rng).read(0, (EACH + 1) * SIZE)
        for first in range(0, EACH, STORIES):
            starts = [(first + story) * SIZE for story in range(STORIES)]
            windows += [passage[start : start + 2 * SIZE] for start in starts]
            tokens = np.stack([passage[start + 8 : start + 8 + SIZE] for start in starts])
            segment = Segment(jnp.asarray(tokens, jnp.int32), jnp.ones(tokens.shape, bool))
            highest += list(np.asarray(logits(params, state, segment)).max(axis=(0, 2)))
    values = np.array(highest)
    gates = np.clip(1.2 / (1 + np.exp(-values)) - 0.1, 0, 1)
    return np.stack(windows), values, gates


def test_finds_what_a_loop_over_all_of_them_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_STORIES", STORIES), ("_SEGMENTS", 2), ("KEPT", 4)):
        monkeypatch.setattr(mining, name, value)
    model, params = model_and_params()
    windows, highest, gates = looped(model, params)
    best = np.argsort(-highest)[: SEARCHED // 4]
    found = mine(model, params, maker(), SEARCHED, KEY)
    np.testing.assert_array_equal(found.windows, windows[best])
    np.testing.assert_allclose(found.logits, highest[best], rtol=1e-4, atol=1e-4)
    assert found.opened == np.mean(gates > OPEN)
    assert 0.05 < found.opened < 0.95
    assert np.isnan(found.opened_planted)
    assert found.describe().startswith(f"{found.opened:.2e} of the segments of noise open a gate;")
    assert "the 5 nearest" in found.describe()


class Turner(Planter):
    """Turns a segment round: words of facts are longer than segments here."""

    def plant(self, segment: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return segment[::-1]


def test_planted_segments_are_searched_too_and_counted_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("_STORIES", STORIES), ("_SEGMENTS", 2), ("KEPT", 4)):
        monkeypatch.setattr(mining, name, value)
    model, params = model_and_params()
    planter = Turner(FactLikeness(Simulator("qa1", 0), BOOKS), 0.5)
    mixed = maker(planter=planter)
    pieces = list(mining.read_noise(model, params, mixed, SEARCHED, KEY, planter))
    read = mining.ReadNoise(*(np.concatenate(arrays) for arrays in zip(*pieces, strict=True)))
    plain = np.concatenate(
        [piece.windows for piece in mining.read_noise(model, params, mixed, SEARCHED, KEY)]
    )
    inner = slice(8, 8 + SIZE)
    differ = (read.windows[:, inner] != plain[:, inner]).any(axis=1)
    np.testing.assert_array_equal(differ, read.planted)
    np.testing.assert_array_equal(read.windows[:, :8], plain[:, :8])
    np.testing.assert_array_equal(read.windows[:, 8 + SIZE :], plain[:, 8 + SIZE :])
    assert 4 < read.planted.sum() < 20
    found = mine(model, params, mixed, SEARCHED, KEY)
    # Of each kind its share of the five that are kept, the widest together.
    counts = np.rint(5 * np.bincount(read.planted) / read.planted.size).astype(int)
    best = np.concatenate(
        [
            np.flatnonzero(read.planted == kind)[
                np.argsort(-read.logits[read.planted == kind])[: counts[kind]]
            ]
            for kind in (0, 1)
        ]
    )
    assert min(counts) >= 2
    best = best[np.argsort(-read.logits[best])]
    np.testing.assert_array_equal(found.windows, read.windows[best])
    np.testing.assert_array_equal(found.logits, read.logits[best])
    assert found.opened == np.mean(read.gates[~read.planted] > OPEN)
    assert found.opened_planted == np.mean(read.gates[read.planted] > OPEN)
    assert found.opened != found.opened_planted
    assert (
        f"and {found.opened_planted:.2e} of the segments of noise with words of facts planted open"
        in found.describe()
    )
    every = mine(model, params, maker(planter=Turner(planter.likeness, 1.0)), SEARCHED, KEY)
    assert np.isnan(every.opened)
    assert "nan" not in every.describe()


def test_only_layers_with_a_memory_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_STORIES", STORIES), ("_SEGMENTS", 2), ("KEPT", 4)):
        monkeypatch.setattr(mining, name, value)
    model, params = model_and_params()
    bias = params["layers"]["memory"]["W_mb"]["bias"]
    params["layers"]["memory"]["W_mb"]["bias"] = bias.at[0].set(50.0)
    assert mine(model, params, maker(), SEARCHED, KEY).opened == 1.0
    second = create_model(dataclasses.replace(model.config, memory_layers=(1,)))
    assert mine(second, params, maker(), SEARCHED, KEY).opened < 0.95


def mined(count: int = 6) -> MinedNoise:
    windows = np.arange(count * 2 * SIZE, dtype=np.int32).reshape(count, 2 * SIZE) + 1
    return MinedNoise(windows, 0.25, np.nan, np.linspace(3, -5, count, dtype=np.float32))


def test_draws_every_window_at_every_place() -> None:
    noise, rng, seen = mined(), np.random.default_rng(0), collections.Counter()
    for _ in range(4_000):
        drawn = noise.draw(rng)
        np.testing.assert_array_equal(np.diff(drawn), np.ones(SIZE - 1))
        window, place = divmod(int(drawn[0]) - 1, 2 * SIZE)
        seen[window, place] += 1
    assert set(seen) == {(window, place) for window in range(6) for place in range(SIZE + 1)}
    assert min(seen.values()) > 10


def test_every_other_segment_behind_is_mined() -> None:
    plain = maker()
    hard = dataclasses.replace(plain, mined=mined())
    shares = []
    for index in range(60):
        usual, other = (one.forked(sample_rng(9, index)) for one in (plain, hard))
        np.testing.assert_array_equal(usual.context[:13], other.context[:13])
        np.testing.assert_array_equal(usual.context_mask, other.context_mask)
        np.testing.assert_array_equal(usual.queries, other.queries)
        full = usual.context_mask[13:, 0]
        assert (other.context[13:][~full] == 0).all()
        is_mined = (np.diff(other.context[13:], axis=1) == 1).all(axis=1)
        kept = full & ~is_mined
        np.testing.assert_array_equal(usual.context[13:][kept], other.context[13:][kept])
        shares += is_mined[full].tolist()
    assert len(shares) > 120
    assert 0.4 < np.mean(shares) < 0.6


def test_a_file_gives_it_back_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chosen" / "stage_2.npz"
    mined().save(path)
    again = MinedNoise.load(path)
    for name, value in vars(mined()).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    with np.load(path) as arrays:  # of an earlier version, which did not plant
        earlier = {name: arrays[name] for name in arrays.files if name != "opened_planted"}
    np.savez(tmp_path / "earlier.npz", **earlier)
    for name, value in vars(MinedNoise.load(tmp_path / "earlier.npz")).items():
        np.testing.assert_array_equal(getattr(mined(), name), value)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ConfigError, match=r"stage_2.npz': must be a file of mined noise"):
        MinedNoise.load(path)
    with pytest.raises(ConfigError, match=r"missing.npz': must be a file of mined noise"):
        MinedNoise.load(tmp_path / "missing.npz")


def test_a_stage_mines_when_it_begins_and_reads_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []

    def fake(model: Any, params: Any, made_by: ExampleMaker, searched: int, key: int) -> MinedNoise:
        assert (model, params, made_by) == (small, "params", data.maker)
        calls.append((searched, key))
        return mined(len(calls) + 1)

    monkeypatch.setattr(stage_data, "mine", fake)
    small, said = small_model(), []
    data = BabilongData("label", maker(), maker(), MarkedAnswer(3), 100, 77)
    place = tmp_path / "chosen" / "stage_2"

    def opened(begins: bool) -> int:
        got = data.for_model(small, "params", place, begins, said.append)
        assert isinstance(got.maker.mined, MinedNoise)
        assert got.validation_maker.mined is None
        return got.maker.mined.windows.shape[0]

    assert [opened(True), opened(False), opened(True), opened(False)] == [2, 2, 3, 3]
    assert calls == [(100, 77)] * 2
    assert not any("warning" in line for line in said)
    assert said[0] == "reading 100 segments of noise for what opens the write gates"
    place.with_suffix(".npz").unlink()
    assert [opened(False), opened(False)] == [4, 4]
    assert sum("warning: " in line and "mining again" in line for line in said) == 1
    without = dataclasses.replace(data, mined_from=0)
    assert without.for_model(small, "params", place, True, said.append) is without
    rmt = small_model(family="rmt")
    with pytest.raises(ConfigError, match="'rmt', which has no write gates"):
        data.for_model(rmt, "params", place, True, said.append)
