"""Every figure's sweep can be made, and its models are of one size of state."""

from __future__ import annotations

import importlib
from pathlib import Path

import jax
import pytest

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.models import create_model, state_size
from armt_jax.training.state import count_parameters
from configs.figures import models
from experiments.figure_claims import CLAIMS
from experiments.figure_tables import TITLES
from experiments.sweep_grid import Sweep, cell, read_sweep, tuning_cells
from experiments.sweep_runs import check

ROOT = Path(__file__).parents[1]
FIGURES = ("fig2a", "fig2b", "fig4a", "fig4b")
VARIANTS = ("default", "all", "paper", "tiny")
CASES = [(name, variant) for name in FIGURES for variant in VARIANTS]
CASES += [("ablations", "default"), ("ablations", "tiny")]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def load(figure: str, variant: str = "default") -> Sweep:
    module = importlib.import_module(f"configs.figures.{figure}")
    return read_sweep(module.get_config(variant))


@pytest.mark.parametrize(("figure", "variant"), CASES)
def test_every_run_of_a_figure_can_be_made(figure: str, variant: str) -> None:
    sweep = load(figure, variant)
    assert sweep.figure == figure
    check(sweep)
    one = cell(sweep, "armt", 0, next(iter(sweep.rates))).config
    assert one.evaluation.num_pairs == sweep.lengths
    assert one.task.num_pairs in sweep.lengths
    if variant != "paper":
        assert max(one.curriculum.num_pairs) in sweep.lengths
    if figure != "ablations" and variant != "paper":
        assert len(tuning_cells(sweep)) == len(sweep.models) * len(sweep.rates)
        # Rates are chosen on samples that no figure shows.
        assert {two.config.seed for two in tuning_cells(sweep)}.isdisjoint(sweep.seeds)


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ConfigError, match="variant = 'big': must be one of default, all, paper"):
        load("fig2a", "big")
    with pytest.raises(ConfigError, match="variant = 'all': must be one of default, tiny"):
        load("ablations", "all")


def test_figures_of_a_pool_share_their_runs() -> None:
    for first, second in (("fig2b", "fig4a"), ("fig2a", "fig4b")):
        one, other = (cell(load(name), "armt", 1, "muon_5e-3") for name in (first, second))
        assert one == other


def test_every_figure_has_claims_and_a_title() -> None:
    assert CLAIMS.keys() == TITLES.keys() == {*FIGURES, "ablations"}


def model_config(name: str) -> ModelConfig:
    sweep = load("fig2a", "all") if name in models.EQUAL_STATE else load("fig4a", "all")
    named = load("fig4b") if name in ("rmt", "prmt") else sweep
    return cell(named, name, 0, "muon_5e-3").config.model


def test_armt_has_the_state_that_appendix_e_says() -> None:
    config = model_config("armt")
    assert (config.n_layer, config.d_model, config.d_mem) == (4, 128, 32)
    assert state_size(create_model(config)) == 4 * (6 * 32 * 128 + 6 * 32)


@pytest.mark.parametrize("name", models.EQUAL_STATE)
def test_states_are_armts_within_5_percent(name: str) -> None:
    model, armt = create_model(model_config(name)), create_model(model_config("armt"))
    assert state_size(model) == pytest.approx(state_size(armt), rel=0.05)


@pytest.mark.parametrize("name", ["armt", "rmt", "prmt", "delta", *models.EQUAL_STATE])
def test_models_have_about_half_a_million_parameters(name: str) -> None:
    config = model_config(name)
    params = jax.eval_shape(create_model(config).init, jax.random.key(0))
    assert config.n_layer == 4
    assert 450_000 < count_parameters(params) < 800_000


def test_the_grid_of_rates_differs_in_the_rate_alone() -> None:
    sweep = load("fig2b")
    settings = {}
    for rate in sweep.rates:
        values = cell(sweep, "mamba", 0, rate).config
        optimizer = values.optimizer
        settings[rate] = (optimizer.name, optimizer.learning_rate, optimizer.muon_learning_rate)
        assert values.curriculum == cell(sweep, "rmt", 0, rate).config.curriculum
    assert len(set(settings.values())) == len(settings) == 5
    for name, rate, muon in settings.values():
        assert name == "adamw" or rate == pytest.approx(0.4 * muon)
