"""A training that mines noise: what is found is trained on, and an interruption changes nothing."""

from __future__ import annotations

import dataclasses
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from armt_jax.config import BabilongExperiment
from armt_jax.tasks.babilong.mining import MinedNoise
from armt_jax.training.interruption import Interrupted
from tests.babilong_experiment_test import tiny
from tests.resume_test import stop, train

pytestmark = pytest.mark.usefixtures("compile_once", "without_data")


def mining(folder: Path) -> BabilongExperiment:
    """Two stages of one shape, 2 and 3 steps; the second trains on what its model finds."""
    config = tiny(folder)
    both: dict[str, Any] = {
        field.name: (getattr(config.curriculum, field.name)[1],) * 2
        for field in dataclasses.fields(config.curriculum)
        if field.type.startswith("tuple")
    }
    both |= {"noise_mined": (0, 512), "max_steps": (2, 3), "target": (1.1, 1.1)}
    return dataclasses.replace(
        config,
        curriculum=dataclasses.replace(config.curriculum, **both),
        train=dataclasses.replace(config.train, batch_size=8, eval_every=100, eval_samples=4),
    )


def test_interrupted_in_the_stage_it_ends_as_if_it_had_not_been(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(mining(tmp_path / "whole"))
    assert "reading 512 segments of noise" in capsys.readouterr().err
    cut = mining(tmp_path / "cut")
    for step in (1, 3):  # at the end of the first stage, and within the second
        with pytest.raises(Interrupted):
            train(cut, stop(signal.SIGTERM, at=step))
        copy = tmp_path / f"copy_{step}"
        shutil.copytree(tmp_path / "cut", copy)
    capsys.readouterr()
    again = train(cut)
    assert "reading" not in capsys.readouterr().err, "it mined a second time"
    jax.tree.map(np.testing.assert_array_equal, whole.state, again.state)
    path = tmp_path / "copy_3" / "chosen" / "stage_2.npz"
    found = MinedNoise.load(path)
    dataclasses.replace(found, windows=np.zeros_like(found.windows)).save(path)
    other = train(mining(tmp_path / "copy_3"))
    same = [
        np.array_equal(left, right)
        for left, right in zip(
            jax.tree.leaves(whole.state.params), jax.tree.leaves(other.state.params), strict=True
        )
    ]
    assert not any(same[:3]), "what is in the file was not trained on"
