"""Comparing schedules: nothing that differs is timed, and turns are taken fairly."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax import ConfigError
from benchmarks import side_by_side
from benchmarks.cases import find_case
from benchmarks.efficiency import efficiency, with_measured_efficiency
from benchmarks.side_by_side import (
    TOLERANCE,
    Program,
    build,
    compare,
    contestants,
    largest_difference,
    take_turns,
)
from tests.small_models import quick_jit


def test_largest_difference() -> None:
    expected = {"a": np.array([1.0, -4.0]), "b": np.array([0.5])}
    assert largest_difference(expected, expected) == 0
    other = {"a": np.array([1.0, -4.2]), "b": np.array([0.51])}
    assert largest_difference(other, expected) == pytest.approx(0.05)
    for wrong in (np.nan, np.inf):
        broken = {"a": np.array([wrong, -4.0]), "b": np.array([0.5])}
        assert largest_difference(broken, expected) == np.inf
    silent = {"a": np.array([1.0, -4.0]), "b": np.zeros(1)}
    assert largest_difference(expected, silent) == np.inf
    with pytest.raises(ValueError, match="zero throughout"):
        largest_difference(np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match=r"a leaf of \(1,\): must be \(2,\)"):
        largest_difference({"a": np.zeros(1)}, {"a": np.ones(2)})


def test_turns_are_taken() -> None:
    order: list[str] = []
    runs = [lambda name=name: order.append(name) for name in "ABC"]
    # Readings before and after each run: it takes 0.5, 1.5, 2.5, ... seconds.
    readings = itertools.chain.from_iterable((10.0 * i, 10.0 * i + i + 0.5) for i in range(6))
    times = take_turns(runs, 2, lambda: next(readings))
    assert "".join(order) == "ABCABC"
    assert times == [[0.5, 3.5], [1.5, 4.5], [2.5, 5.5]]


def test_contestants() -> None:
    assert contestants("read", 1, 4) == [
        "sequential",
        "chunked",
        "diagonal",
        "sequential, layers apart",
    ]
    assert contestants("train", 4, 12)[3:] == ["pipeline, 2 stages", "pipeline, 4 stages"]
    assert contestants("train", 8, 6)[3:] == ["pipeline, 2 stages"]


def test_what_differs_or_needs_too_much_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    outputs = {"sequential": 1.0, "chunked": 1.0, "diagonal": 1.01}

    def compiled(name: str, *_: Any) -> Program:
        def run() -> Any:
            ran.append(name)
            return np.full(2, outputs.get(name, 1.0))

        return Program(run, 2.0, 2**20 if name.endswith("apart") else 8)

    monkeypatch.setattr(side_by_side, "compile_schedule", compiled)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    rows = {r["schedule"]: r for r in compare(find_case("tiny"), "read", 3, 2**19)}
    assert rows["diagonal"]["left_out"] == "differs from sequential by 1.0e-02"
    assert rows["sequential, layers apart"]["left_out"] == "needs 0.0 GiB"
    # Once to compare, three times in turns.
    assert [ran.count(name) for name in rows] == [4, 4, 1, 0]
    for name in ("sequential", "chunked"):
        assert len(rows[name]["seconds_all"]) == 3
    assert rows["sequential"]["against_first"] == 1.0
    for name in ("diagonal", "sequential, layers apart"):
        assert "seconds" not in rows[name]


def test_ratios_are_of_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is twice as slow in the second round and four times in the third."""
    monkeypatch.setattr(
        side_by_side, "compile_schedule", lambda *_: Program(lambda: np.ones(1), 1.0, None)
    )
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    turns = [[1.0, 2.0, 4.0], [0.5, 1.0, 2.0], [3.0, 6.0, 1.0]]
    monkeypatch.setattr(side_by_side, "take_turns", lambda *_: turns)
    case = find_case("tiny", segments=4)
    rows = compare(case, "train", 3, 0)
    assert [r["against_first"] for r in rows] == [1.0, 0.5, 3.0]
    assert [r["seconds"] for r in rows] == [2.0, 1.0, 3.0]
    # Four segments take five steps of two layers: of a long text 4 / 5 of that.
    assert [r["against_first_long"] for r in rows] == pytest.approx([1.0, 0.5, 2.4])


def test_what_is_compared_depends_on_all_of_the_memory() -> None:
    """Else all schedules would agree, whatever they did with it."""
    case = find_case("tiny", segments=3)
    function, (params, segments) = build("sequential", case, "read")
    read = quick_jit(function)
    state = read(params, segments)
    assert np.all(np.abs(state.A).max(axis=(1, 2, 3)) > 1e-2)
    others = [(params, segments._replace(tokens=jnp.flip(segments.tokens, axis=0)))]
    for name in ("W_mq", "W_mk", "W_mv", "W_mb"):
        memory = jax.tree.map(lambda leaf: leaf, params["layers"]["memory"])
        # Not a factor, which the normaliser would take out again.
        memory[name]["kernel"] = jnp.roll(
            memory[name]["kernel"], 1, axis=1 if name == "W_mv" else 0
        )
        others.append(({**params, "layers": {**params["layers"], "memory": memory}}, segments))
    for changed in others:
        assert largest_difference(read(*changed), state) > 5 * TOLERANCE


def test_find_case() -> None:
    assert find_case("tiny", segments=3).segments == 3
    assert find_case("tiny").segments == 6
    with pytest.raises(ConfigError, match=r"case = 'vast': must be one of tiny, 4x128_b1_t5"):
        find_case("vast")


def test_measured_efficiency_is_that_of_the_schedule_where_every_step_costs_the_same() -> None:
    rows = [{"segments": s, "seconds": 0.25 * (s + 4 - 1)} for s in (8, 2, 32)]
    for found in with_measured_efficiency(rows, 4):
        assert found["steps"] == found["segments"] + 3
        assert found["efficiency"] == efficiency(found["segments"], 4)
        assert found["measured_efficiency"] == pytest.approx(found["efficiency"])
    assert efficiency(5, 4) == 5 / 8
    # A start that costs two steps more: 2 segments take 7 steps' time and not 5.
    slow = with_measured_efficiency([rows[2], {"segments": 2, "seconds": 0.25 * 7}], 4)
    assert slow[1]["measured_efficiency"] == pytest.approx(2 / 7)
