"""A folder belongs to one experiment and one process."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

import pytest

from armt_jax.config import AnyExperiment, ConfigError, ExperimentConfig, from_config_dict
from armt_jax.training import workdir
from armt_jax.training.workdir import Workdir, read_config
from configs import ar_remember, babilong
from tests.config_values import retrieval


def make_config(folder: Path, **changes: object) -> ExperimentConfig:
    config = retrieval(ar_remember.get_config("tiny").to_dict())
    return dataclasses.replace(config, workdir=str(folder), **changes)


def enter(config: AnyExperiment) -> None:
    with Workdir(config):
        pass


def test_a_folder_is_made_and_knows_its_experiment(tmp_path: Path) -> None:
    config = make_config(tmp_path / "new" / "run")
    enter(config)
    enter(config)
    assert read_config(tmp_path / "new" / "run") == config


def test_another_experiment_is_refused_and_nothing_is_overwritten(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    enter(config)
    with pytest.raises(ConfigError, match=r"another experiment: seed = 0 there, 1 here"):
        enter(dataclasses.replace(config, seed=1))
    bigger = dataclasses.replace(config, model=dataclasses.replace(config.model, d_ff=128))
    with pytest.raises(ConfigError, match=r"model\.d_ff = 64 there, 128 here"):
        enter(bigger)
    assert read_config(tmp_path) == config
    with pytest.raises(ConfigError) as caught:
        enter(dataclasses.replace(bigger, seed=1))
    assert str(caught.value) == (
        f"workdir = {str(tmp_path)!r}: holds another experiment: model.d_ff = 64 there, 128 here; "
        "seed = 0 there, 1 here; must be the same, or choose another --workdir"
    )


def test_a_run_of_a_version_with_fewer_settings_of_models_goes_on(tmp_path: Path) -> None:
    """What its ``config.json`` does not know has the default, and nothing but that."""
    config = make_config(tmp_path)
    enter(config)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    del values["model"]["attention_window"]
    path.write_text(json.dumps(values))
    enter(config)
    other = dataclasses.replace(config.model, attention_window=8)
    with pytest.raises(ConfigError, match=r"model\.attention_window = 0 there, 8 here"):
        enter(dataclasses.replace(config, model=other))


def test_a_babilong_run_of_a_version_with_fewer_settings_of_stages_goes_on(tmp_path: Path) -> None:
    plain: dict[str, Any] = babilong.get_config("qa1,tiny").to_dict()
    plain["workdir"] = str(tmp_path / "as_it_is")
    enter(from_config_dict(plain))
    assert read_config(tmp_path / "as_it_is") == from_config_dict(plain)
    plain["workdir"] = str(tmp_path / "run")
    later = {"drift_weight": 0.0, "noise_choices": 1, "noise_planted": 0.0, "gate_weight": 0.0}
    later |= {"noise_mined": 0, "difficulty": 1, "learning_rate_factor": 1.0}
    plain["curriculum"] |= {name: (value, value) for name, value in later.items()}
    plain["task"]["segment_overlap"] = 0
    config = from_config_dict(plain)
    enter(config)
    path = tmp_path / "run" / "config.json"
    values = json.loads(path.read_text())
    for name in later:
        del values["curriculum"][name]
    values["curriculum"]["random_num_segments"] = True  # once for all stages
    del values["task"]["segment_overlap"]
    path.write_text(json.dumps(values))
    assert read_config(tmp_path / "run") == config
    enter(config)
    path.write_text(json.dumps(values))
    plain["curriculum"]["noise_choices"] = (1, 4)
    with pytest.raises(ConfigError, match=r"noise_choices = \[1, 1\] there, \[1, 4\] here"):
        enter(from_config_dict(plain))
    del values["curriculum"]["noise_behind"]
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="noise_behind"):
        read_config(tmp_path / "run")


def test_of_many_differences_the_first_are_named(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    enter(config)
    other = retrieval(ar_remember.get_config("paper").to_dict())
    with pytest.raises(ConfigError, match=r"; and \d+ more; must be the same") as caught:
        enter(dataclasses.replace(other, workdir=str(tmp_path)))
    assert str(caught.value).count(" there, ") == 6
    assert read_config(tmp_path) == config


def test_settings_that_change_no_training_may_change(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    enter(config)
    changed = dataclasses.replace(
        config,
        evaluation=dataclasses.replace(config.evaluation, samples=7),
        train=dataclasses.replace(config.train, data_workers=2, log_every=1),
        mesh=dataclasses.replace(config.mesh, fsdp=2),
    )
    enter(changed)
    assert read_config(tmp_path) == changed


def test_foreign_files_a_file_and_a_second_process_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"must be empty or a run's"):
        enter(make_config(tmp_path))
    with pytest.raises(ConfigError, match="is a file; must be a folder"):
        enter(make_config(tmp_path / "notes.txt"))
    config = make_config(tmp_path / "run")
    with Workdir(config), pytest.raises(ConfigError, match="another process is training there"):
        enter(config)
    enter(config)


@pytest.mark.parametrize("content", ["{", "[]", '{"name": 3}'])
def test_a_config_that_cannot_be_read_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json|name"):
        read_config(tmp_path)
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        read_config(tmp_path / "nothing")


def test_a_start_that_was_killed_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.json.4242.tmp").write_text('{"na')
    config = make_config(tmp_path)
    enter(config)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "config.json"]
    assert read_config(tmp_path) == config


def test_a_start_that_failed_does_not_keep_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    config = make_config(tmp_path)
    held = Workdir(config)
    with monkeypatch.context() as patch:
        patch.setattr(workdir, "atomic_write", full)
        with pytest.raises(OSError, match=r"No space left on device: .*config\.json"):
            held.__enter__()
    assert not (tmp_path / "config.json").exists()
    enter(config)


def test_the_folder_is_checked_again_once_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path)
    flock = workdir.fcntl.flock

    def late(file: TextIO, how: int) -> None:
        """Another process comes, and is gone, after the first check and before the lock."""
        monkeypatch.undo()
        enter(dataclasses.replace(config, seed=1))
        flock(file, how)

    monkeypatch.setattr(workdir.fcntl, "flock", late)
    with pytest.raises(ConfigError, match="seed = 1 there, 0 here"):
        enter(config)
    assert read_config(tmp_path).seed == 1


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    program = (
        "import dataclasses, sys, time\n"
        "from armt_jax.config import from_config_dict\n"
        "from armt_jax.training.workdir import Workdir\n"
        "from configs import ar_remember\n"
        "config = from_config_dict(ar_remember.get_config('tiny').to_dict())\n"
        "with Workdir(dataclasses.replace(config, workdir=sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match="another process is training there"):
            enter(config)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    enter(config)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory: .*file/run"):
        enter(make_config(tmp_path / "file" / "run"))
