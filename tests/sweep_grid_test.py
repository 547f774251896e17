"""Sweeps as values: what they may hold, the runs they stand for, their plan and their results."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import ml_collections
import pytest
from rich.console import Console

from armt_jax.config import ConfigError
from armt_jax.evaluation.sweep_results import read_run
from experiments.sweep_grid import Cell, cell, read_sweep, select, tuning_cells
from experiments.sweep_plan import read_plan, write_plan
from experiments.sweep_runs import check, survey
from experiments.sweep_summary import print_summary
from tests.sweep_cases import finish, small_sweep, sweep_values, tuned_sweep

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # ``base`` is named from there


def one_cell(folder: Path, **changes: Any) -> Cell:
    return cell(small_sweep(folder, **changes), "armt", 0, "muon_5e-3")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model": {}}, "model: unknown field of a sweep; it has figure, pool"),
        ({"models": {}}, r"models = \{\}: must name at least one"),
        ({"models": {"a/b": {}}}, "models.a/b: must be a name"),
        ({"seeds": (0, 0)}, r"seeds = \(0, 0\): must not repeat one"),
        ({"seeds": (True,)}, r"seeds = \(True,\): must be whole numbers"),
        ({"lengths": ()}, r"lengths = \(\): must be whole numbers, at least one"),
        ({"rates": {"a": {}, "b": {}}}, "tuning = None: must say how one of several rates"),
        (
            {"models": {"armt": {"model": {"d_stat": 3}}}},
            "models.armt.model.d_stat = 3: unknown field; there is .*d_state",
        ),
        (
            {"common": {"trian": {}}},
            r"common.trian = \{\}: unknown field; there is .*train",
        ),
        ({"common": {"train": 3}}, "common.train = 3: must be a group of settings"),
        ({"common": {"seed": {"a": 1}}}, "common.seed = {'a': 1}: must be a value"),
        (
            {"models": {"armt": {"model": {"d_mem": 0}}}},
            "models.armt: model.d_mem = 0: must be at least 1",
        ),
    ],
)
def test_a_wrong_sweep_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        check(read_sweep(ml_collections.ConfigDict(sweep_values(tmp_path, **changes))))


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    values = sweep_values(tmp_path)
    del values["common"]
    with pytest.raises(ConfigError, match="common is missing from the sweep"):
        read_sweep(values)


def test_a_run_is_the_base_with_every_change(tmp_path: Path) -> None:
    sweep = tuned_sweep(tmp_path, models={"mamba": {"model": {"family": "mamba", "d_state": 5}}})
    one = cell(sweep, "mamba", 1, "adamw_3e-3")
    config = one.config
    assert (config.model.family, config.model.d_state, config.model.d_model) == ("mamba", 5, 32)
    assert (config.seed, config.optimizer.name, config.optimizer.learning_rate) == (
        1,
        "adamw",
        3e-3,
    )
    assert config.evaluation.num_pairs == (1, 3)
    assert config.curriculum.max_steps == (16, 16)
    assert one.result == tmp_path / "results" / "figures" / "ar_rewrite" / "mamba_seed1.json"
    assert config.workdir == str(tmp_path / "runs" / "ar_rewrite" / "mamba_seed1" / "run")
    tuning = tuning_cells(sweep)
    assert [two.name for two in tuning] == ["tuning/mamba_muon_5e-3", "tuning/mamba_adamw_3e-3"]
    assert {two.config.seed for two in tuning} == {1000}
    assert tuning[0].config.curriculum.max_steps == (4, 4)
    assert tuning[0].config.evaluation.num_pairs == (2,)


def test_parts_by_name(tmp_path: Path) -> None:
    sweep = select(small_sweep(tmp_path), "rmt", "1")
    assert (list(sweep.models), sweep.seeds) == (["rmt"], (1,))
    with pytest.raises(ConfigError, match="--models: 'gru' is none of armt, rmt"):
        select(sweep_all := small_sweep(tmp_path), "gru", None)
    with pytest.raises(ConfigError, match="--seeds: '7' is none of 0, 1"):
        select(sweep_all, None, "7")


def test_plan_and_summary_say_what_the_figure_needs(tmp_path: Path) -> None:
    sweep = tuned_sweep(tmp_path)
    plan = read_plan(write_plan(sweep))
    assert (plan.figure, plan.pool, plan.variant, plan.trained_pairs) == (
        "fig2b",
        "ar_rewrite",
        "rewrite",
        3,
    )
    assert (plan.models, plan.seeds, plan.lengths) == (("armt", "rmt"), (0, 1), (1, 3))
    assert (plan.rates, plan.tuning_lengths) == (("muon_5e-3", "adamw_3e-3"), (2,))
    with pytest.raises(ConfigError, match=r"fig9.json: is missing; python -m experiments.sweep"):
        read_plan(tmp_path / "fig9.json")
    console = Console(record=True, width=100, file=io.StringIO())
    print_summary(sweep, survey(sweep), console)
    text = console.export_text()
    assert "armt_seed1" in text
    assert "waits for its learning rate" in text
    assert "0 of 8 runs are finished" in text


def test_results_of_another_kind_are_refused(tmp_path: Path) -> None:
    one = one_cell(tmp_path)
    finish(one)
    good = json.loads(one.result.read_text())
    for change, line in (
        ({"schema": "other"}, "must be the result of a run of a sweep"),
        ({"schema_version": 2}, "schema_version = 2: must be 1"),
        ({"about": {**good["about"], "extra": 1}}, "about.extra is an unknown field"),
        ({"about": {**good["about"], "seed": "0"}}, "about.seed = '0': must be"),
        ({"rows": [{}]}, r"rows\[0\]\..* is missing"),
    ):
        one.result.write_text(json.dumps({**good, **change}))
        with pytest.raises(ConfigError, match=line):
            read_run(one.result)
