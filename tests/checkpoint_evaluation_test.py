"""An exported checkpoint is measured as the run that it was made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from absl.testing import flagsaver

from armt_jax import ConfigError
from armt_jax.config import BabilongExperiment
from armt_jax.evaluation.language_modelling_results import read_rows
from armt_jax.reading import checkpoint_experiment, load_reading_model, save_checkpoint
from armt_jax.training.workdir import read_config
from experiments import babilong_gates, babilong_retention, evaluate
from tests.reading.cases import make_run
from tests.reading.language_model_test import make_run as make_language_model

pytestmark = pytest.mark.usefixtures("without_data")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of random parameters, and what is exported of it."""
    parent = tmp_path_factory.mktemp("runs")
    run, exported = parent / "qa1", parent / "exported"
    make_run(run)
    save_checkpoint(exported, run)
    return run, exported


def call(main: Any, *arguments: str) -> None:
    with flagsaver.flagsaver():
        main(["command", *arguments])


@pytest.mark.parametrize(
    ("main", "arguments", "file"),
    [
        (evaluate.main, ("--lengths=1k,2k", "--samples=3"), "babilong.json"),
        (babilong_gates.main, ("--length=1k", "--samples=2"), "gates.json"),
    ],
)
def test_what_is_measured_is_that_of_the_run(
    folders: tuple[Path, Path], tmp_path: Path, main: Any, arguments: tuple[str, ...], file: str
) -> None:
    run, exported = folders
    call(main, f"--workdir={run}", *arguments)
    call(main, f"--checkpoint={exported}", f"--out={tmp_path}", *arguments)
    digest = load_reading_model(exported).parameters_digest
    mine = tmp_path / f"babilong_qa1_{digest[:8]}"
    expected = json.loads((run / "evaluation" / file).read_text())
    assert json.loads((mine / "evaluation" / file).read_text()) == expected
    rows = expected.get("cells", expected.get("rows"))
    assert len(rows) >= 2
    answers = Path("evaluation", "babilong_answers.jsonl")
    if main is evaluate.main:
        assert expected["cells"][0]["step"] == 7
        said = [json.loads(line)["output"] for line in (mine / answers).read_text().splitlines()]
        assert len(said) == 6
        assert (mine / answers).read_text() == (run / answers).read_text()


def test_the_losses_of_a_language_model_are_those_of_its_run(tmp_path: Path) -> None:
    make_language_model(tmp_path / "text", dataset="built_in")
    exported = tmp_path / "exported"
    digest = save_checkpoint(exported, tmp_path / "text").parameters_digest
    call(evaluate.main, f"--workdir={tmp_path / 'text'}", "--samples=12")
    call(evaluate.main, f"--checkpoint={exported}", f"--out={tmp_path}", "--samples=12")
    mine = tmp_path / f"wikitext_{digest[:8]}"
    expected = read_rows(tmp_path / "text" / "evaluation" / "language_modelling.json")
    assert read_rows(mine / "evaluation" / "language_modelling.json") == expected
    assert [(row.step, row.dataset, row.memory) for row in expected] == [
        (5, "built_in", "kept"),
        (5, "built_in", "reset"),
    ]
    unused = tmp_path / "unused"  # a wrong flag leaves no folder
    with pytest.raises(ConfigError, match="--pairs = 3: is no setting of language modelling"):
        call(evaluate.main, f"--checkpoint={exported}", f"--out={unused}", "--pairs=3")
    with pytest.raises(ConfigError, match="must be of a run of BABILong, not wikitext"):
        call(babilong_gates.main, f"--checkpoint={exported}", f"--out={unused}")
    assert not unused.exists()


def test_retention_reads_a_checkpoint_too(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Of random parameters, which know no fact: it is told after the stories have been asked."""
    arguments = ("--noise_after=1", "--stories=2", f"--out={tmp_path / 'out'}")
    with pytest.raises(ConfigError, match="known = 0: no fact was answered rightly"):
        call(babilong_retention.main, f"--checkpoint={folders[1]}", *arguments)


def test_the_experiment_is_the_runs_without_its_folders(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run, exported = folders
    found, trained = checkpoint_experiment(exported, tmp_path), read_config(run)
    assert isinstance(trained, BabilongExperiment)
    assert isinstance(found, BabilongExperiment)
    assert found.workdir == str(tmp_path)
    assert found.task == trained.task
    assert (found.model, found.seed, found.name) == (trained.model, trained.seed, trained.name)
    assert found.trained_tokens == trained.trained_tokens
    assert str(run.parent) not in (exported / "config.json").read_text()


def test_the_machine_stays_out_of_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_run(run)
    values = json.loads((run / "config.json").read_text())
    values["task"]["data_dir"] = values["tuning"]["start"] = str(tmp_path / "secret")
    (run / "config.json").write_text(json.dumps(values))
    save_checkpoint(tmp_path / "out", run)
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()


def test_an_earlier_checkpoint_and_wrong_flags_are_refused(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run, exported = folders
    earlier = tmp_path / "earlier"
    shutil.copytree(exported, earlier)
    about = json.loads((earlier / "config.json").read_text())
    del about["experiment"]
    (earlier / "config.json").write_text(json.dumps(about))
    for arguments, message in (
        ((f"--checkpoint={earlier}",), "has no experiment; must be written by experiments.export"),
        ((f"--checkpoint={tmp_path / 'none'}",), "there is no such folder"),
        ((f"--checkpoint={exported}", f"--workdir={run}"), "--checkpoint|--workdir"),
        ((f"--checkpoint={exported}", "--step=3"), "--step = '3': is for a run"),
        ((f"--workdir={run}", f"--out={tmp_path}"), "--out = .* goes with --checkpoint"),
    ):
        for main in (evaluate.main, babilong_gates.main, babilong_retention.main):
            with pytest.raises(ConfigError, match=message):
                call(main, *arguments)
    out = f"--out={tmp_path / 'out'}"
    with pytest.raises(ConfigError, match="--pairs = 3: is no setting of BABILong"):
        call(evaluate.main, f"--checkpoint={exported}", out, "--pairs=3")
    with pytest.raises(ConfigError, match="--samples = 0: must be at least 1"):
        call(evaluate.main, f"--checkpoint={exported}", out, "--samples=0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier"]
