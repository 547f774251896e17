"""The comparison with PyTorch: nothing that differs is timed, and what is left out is said."""

from __future__ import annotations

import dataclasses
import sys
import types
from typing import Any

import pytest

from armt_jax import ConfigError
from benchmarks import torch_comparison
from benchmarks.side_by_side import TOLERANCE
from benchmarks.sizes import reader_config
from benchmarks.train_sizes import retrieval_size
from tests.small_models import SIZES

SMALL = {name: SIZES[name] for name in ("n_layer", "n_head", "d_model", "d_mem", "num_mem_tokens")}


def _programs() -> Any:
    pytest.importorskip("torch", reason="needs torch and transformers (pip install)")
    pytest.importorskip("transformers", reason="needs torch and transformers (pip install)")
    from benchmarks import torch_programs

    return torch_programs


@pytest.mark.parametrize("backbone", ["gpt2", "gpt_neox", "llama"])
@pytest.mark.parametrize("family", ["armt", "rmt", "prmt"])
def test_training_steps_agree(family: str, backbone: str) -> None:
    size = retrieval_size(3, 2, family=family, backbone=backbone)
    size = size._replace(config=dataclasses.replace(size.config, **SMALL))
    contestants = _programs().training(size)
    assert contestants.difference < 1e-4
    for run in contestants.programs.values():
        run()


@pytest.mark.parametrize("epsilon", [1e-5, 1e-2])
def test_readings_agree_unless_something_is_wrong(
    monkeypatch: pytest.MonkeyPatch, epsilon: float
) -> None:
    programs = _programs()
    monkeypatch.setattr("benchmarks.torch_model.EPS", epsilon)
    config = dataclasses.replace(reader_config("small_bytes", 8), **{**SMALL, "n_layer": 4})
    contestants = programs.reading(config, segment=8, block=3)
    assert contestants.tokens == 24
    assert (contestants.difference < 1e-4) == (epsilon == 1e-5)
    for run in contestants.programs.values():
        run()


def _measure_fake(monkeypatch: pytest.MonkeyPatch, difference: float) -> dict[str, Any]:
    """``measure`` with programs that do nothing; the second takes half the time of the first."""
    calls: list[str] = []
    names = ["PyTorch", "armt_jax"]
    fake: Any = types.ModuleType("benchmarks.torch_programs")
    fake.VERSIONS = {"torch": "0"}
    fake.training = lambda size: types.SimpleNamespace(
        programs={name: lambda name=name: calls.append(name) for name in names},
        difference=difference,
        tokens=0,
    )

    def turns(runs: list[Any], rounds: int, warm: int) -> list[list[float]]:
        for run in runs:
            run()
        assert warm > 0
        return [[2.0, 4.0, 9.0][:rounds], [1.0, 2.0, 6.0][:rounds]]

    monkeypatch.setitem(sys.modules, "benchmarks.torch_programs", fake)
    monkeypatch.setattr("benchmarks.torch_programs", fake, raising=False)
    monkeypatch.setattr(torch_comparison, "take_turns", turns)
    result = torch_comparison.measure("train_rmt", 1, 3)
    assert calls == names
    return result


def test_ratios_are_of_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _measure_fake(monkeypatch, 1e-6)["rows"]
    assert [row["program"] for row in rows] == ["PyTorch", "armt_jax"]
    assert [row["against_first"] for row in rows] == [1.0, 0.5]
    assert [row["times_as_fast"] for row in rows] == [1.0, 2.0]
    assert rows[1]["seconds"] == 2.0
    assert rows[1]["difference"] == 1e-6
    shares = [row["sgemm_share"] for row in rows]
    assert shares[1] == pytest.approx(2 * shares[0])


@pytest.mark.parametrize("difference", [2 * TOLERANCE, float("inf"), float("nan")])
def test_what_differs_is_not_timed(monkeypatch: pytest.MonkeyPatch, difference: float) -> None:
    with pytest.raises(ConfigError, match="the two differ by"):
        _measure_fake(monkeypatch, difference)


def test_a_missing_package_and_an_unknown_case_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith("benchmarks.torch_"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("benchmarks.torch_programs", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match="torch is not installed: pip install torch"):
        torch_comparison.measure("train_rmt", 1, 1)
    with pytest.raises(ConfigError, match="case = 'nothing': must be one of read_gpt2_small"):
        torch_comparison.measure("nothing", 1, 1)
