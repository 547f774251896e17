"""What damage, kills and full disks do to checkpoints: it is said, and the one before is used."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest

from armt_jax.training.checkpoints import CheckpointError, Checkpoints
from tests.saved_states import assert_is_step, bits, make_state, restore, run, save


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_no_damage_to_any_file_is_ever_restored(tmp_path: Path, harm: str) -> None:
    save(tmp_path, {1: 0.2, 2: 0.1})
    passed_over = 0
    for path in sorted(file for file in (tmp_path / "2").rglob("*") if file.is_file()):
        content = path.read_bytes()
        if not content:
            continue
        if harm == "flip":
            middle = len(content) // 2
            changed = bytes([content[middle] ^ 0x10])
            path.write_bytes(content[:middle] + changed + content[middle + 1 :])
        elif harm == "truncate":
            path.write_bytes(content[: len(content) // 2])
        else:
            path.unlink()
        found, warnings = restore(tmp_path)
        passed_over += 1
        assert len(warnings) == 1
        assert f"{tmp_path / '2'}: the checkpoint is damaged" in warnings[0]
        assert path.name in warnings[0]
        assert_is_step(found, 1)
        path.write_bytes(content)
    assert passed_over > 2
    assert_is_step(restore(tmp_path)[0], 2)


def damage(folder: Path) -> None:
    """Change the largest file of a checkpoint: its arrays."""
    path = max(
        (file for file in folder.rglob("*") if file.is_file()), key=lambda f: f.stat().st_size
    )
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_only_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    save(tmp_path, {1: None, 2: None})
    for step in (1, 2):
        damage(tmp_path / str(step))
    with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
        restore(tmp_path)
    with pytest.raises(CheckpointError, match="the checkpoint is damaged"):
        restore(tmp_path, 2)


def test_the_place_of_a_damaged_checkpoint_can_be_used_again(tmp_path: Path) -> None:
    save(tmp_path, {1: None, 2: None})
    damage(tmp_path / "2")
    store = Checkpoints(tmp_path)
    found = store.restore(make_state(0), warn=lambda text: None)
    assert found is not None
    store.discard_after(found.step)
    assert store.steps() == [1]
    store.save(2, make_state(2), {"position": 2}, None)
    assert_is_step(store.restore(make_state(0), warn=pytest.fail), 2)


def test_a_file_that_cannot_be_read_is_damage_and_one_that_may_not_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, {1: None, 2: None})
    read = Path.read_bytes
    number = errno.EIO

    def broken(path: Path) -> bytes:
        if tmp_path / "2" in path.parents and path.name == bad:
            raise OSError(number, os.strerror(number), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", broken)
    for bad in ("description.json", "_METADATA"):
        found, warnings = restore(tmp_path)
        assert_is_step(found, 1)
        assert f"{bad} cannot be read: Input/output error" in warnings[0]
    number = errno.EACCES
    with pytest.raises(PermissionError, match="_METADATA"):
        restore(tmp_path)


def test_a_description_damaged_within_a_letter_is_passed_over(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    for step in (1, 2):
        store.save(step, make_state(step), {"position": step, "note": "\U0001f600"}, None)
    path = tmp_path / "2" / "description.json"
    damaged = path.read_bytes().replace(rb"\\ud83d", rb"X\ud83d", 1)  # half of a pair
    path.write_bytes(damaged)
    found, warnings = restore(tmp_path)
    assert found is not None
    assert found.step == 1
    assert "description.json cannot be read" in warnings[0]


def test_a_save_that_was_killed_leaves_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, {1: None, 2: None})
    (tmp_path / "2").rename(tmp_path / "2.saving")
    (tmp_path / "2.saving" / "description.json").unlink()
    assert_is_step(restore(tmp_path)[0], 1)
    store = Checkpoints(tmp_path)
    store.save(2, make_state(2), {"position": 2}, None)
    assert_is_step(store.restore(make_state(0), warn=pytest.fail), 2)


@pytest.mark.parametrize("finished", [False, True])
def test_a_replacement_that_was_killed_leaves_one_of_the_two(
    tmp_path: Path, finished: bool
) -> None:
    save(tmp_path, {1: None, 2: None})
    shutil.copytree(tmp_path / "2", tmp_path / "2.replaced")
    if not finished:
        shutil.rmtree(tmp_path / "2")
        (tmp_path / "2.saving").mkdir()
    store = Checkpoints(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["1", "2"]
    assert_is_step(store.restore(make_state(0), warn=pytest.fail), 2)


def test_a_removal_that_was_killed_is_finished_at_the_next_start(tmp_path: Path) -> None:
    save(tmp_path, {1: None, 2: None})
    (tmp_path / "1").rename(tmp_path / "1.removed")
    assert Checkpoints(tmp_path).steps() == [2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["2"]


SAVING = """
import pathlib, sys
from armt_jax.training.checkpoints import Checkpoints
from tests.saved_states import make_state
store = Checkpoints(pathlib.Path(sys.argv[1]))
found = store.restore(make_state(0), warn=lambda text: sys.exit(text))
step = 0 if found is None else found.step
print(step, flush=True)
while True:
    step += 1
    store.save(step, make_state(step), {"position": step}, step % 5 / 5)
    print(step, flush=True)
"""


def test_killed_while_saving_again_and_again(tmp_path: Path) -> None:
    """Two runs side by side, killed twice each during a save that is nearly always under way."""
    before = [0, 0]
    for moment in (0.05, 0.37):
        runs = [run(SAVING, str(tmp_path / str(index))) for index in range(2)]
        for index, process in enumerate(runs):
            try:
                assert process.stdout is not None
                first = process.stdout.readline()
                assert int(first or -1) >= before[index], process.communicate()[1]
                process.stdout.readline()
                time.sleep(moment)
            finally:
                process.kill()
            rest = process.stdout.read().split()  # through the buffer that the lines came from
            process.communicate()
            said = int(rest[-1]) if rest else int(first) + 1
            found, warnings = restore(tmp_path / str(index))
            assert found is not None
            assert found.step in (said, said + 1)
            assert warnings == []
            assert_is_step(found, found.step)
            before[index] = found.step
    for index in range(2):
        store = Checkpoints(tmp_path / str(index))
        entries = sorted(entry.name for entry in (tmp_path / str(index)).iterdir())
        assert entries == sorted(str(step) for step in store.steps())


@pytest.mark.parametrize("fails", ["check", "write"])
def test_a_full_disk_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    save(tmp_path, {1: None})

    def full(*args: Any, **kwargs: Any) -> None:
        del args, kwargs
        raise OSError(errno.ENOSPC, "No space left on device")

    if fails == "check":
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    else:
        monkeypatch.setattr(ocp.StandardCheckpointer, "save", full)
    with pytest.raises(
        CheckpointError, match=r"2: .* cannot be written \(No space left on device\)"
    ):
        Checkpoints(tmp_path).save(2, make_state(2), {"position": 2}, None)
    assert_is_step(restore(tmp_path)[0], 1)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_write_that_fails_half_way_is_one_clear_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    store = Checkpoints(tmp_path)
    state = {"w": np.random.default_rng(0).standard_normal(100_000)}
    store.save(1, state, {}, None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # no file may be longer
    try:
        store.save(2, state, {}, None)
    except CheckpointError as error:
        caught = error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught) == (
        f"{tmp_path / '2'}: the checkpoint cannot be written (File too large); "
        "those before it are untouched"
    )
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    store.save(2, state, {}, None)
    found = store.restore(state, warn=pytest.fail)
    assert found is not None
    assert (found.step, bits(found.state)) == (2, bits(state))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory: .*file/checkpoints"):
        Checkpoints(tmp_path / "file" / "checkpoints")
