"""Checkpoints come back whole, or are reported and passed over; never changed, never cast."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from armt_jax.training.checkpoints import BEST, CheckpointError, Checkpoints, Restored


def make_state(step: int) -> dict[str, Any]:
    return {
        "params": {"w": jnp.arange(512.0) + step, "b": jnp.full((3,), step, jnp.bfloat16)},
        "moments": (jnp.ones((4, 4)) * step, jnp.int32(step)),
    }


def save(folder: Path, steps: dict[int, float | None]) -> None:
    store = Checkpoints(folder)
    for step, score in steps.items():
        store.save(step, make_state(step), {"position": step}, score)


def restore(folder: Path, *args: Any, template: Any = None) -> tuple[Restored | None, list[str]]:
    warnings: list[str] = []
    store = Checkpoints(folder, read_only=True)
    template = make_state(0) if template is None else template
    found = store.restore(template, *args, warn=warnings.append)
    return found, warnings


def assert_is_step(found: Restored | None, step: int) -> None:
    assert found is not None
    assert (found.step, found.meta) == (step, {"position": step})
    jax.tree.map(np.testing.assert_array_equal, found.state, make_state(step))
    assert found.state["params"]["b"].dtype == jnp.bfloat16


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path / "checkpoints")
    assert store.steps() == []
    assert store.restore(make_state(0), warn=pytest.fail) is None


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    save(tmp_path, {1: 0.1, 2: 0.9, 3: None, 4: 0.2, 5: 0.3, 6: None})
    assert Checkpoints(tmp_path, read_only=True).steps() == [2, 5, 6]
    assert_is_step(restore(tmp_path)[0], 6)
    assert_is_step(restore(tmp_path, BEST)[0], 2)
    assert_is_step(restore(tmp_path, 5)[0], 5)


def test_a_step_saved_again_stays_as_it_was(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.save(1, make_state(1), {"position": 1}, None)
    store.save(1, make_state(9), {"position": 9}, None)
    assert_is_step(store.restore(make_state(0), warn=pytest.fail), 1)


def test_a_step_that_is_not_there_is_named_beside_those_that_are(tmp_path: Path) -> None:
    save(tmp_path, {3: None, 4: None})
    with pytest.raises(CheckpointError, match="step = 7: must be latest, best or one of 3, 4"):
        restore(tmp_path, 7)


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


@pytest.mark.parametrize(
    ("name", "leaf", "said"),
    [
        ("w", jnp.zeros(8), r"params\.w is float32\[512\] there, must be float32\[8\]"),
        ("b", jnp.zeros(3), r"params\.b is bfloat16\[3\] there, must be float32\[3\]"),
        ("extra", jnp.zeros(2), r"params\.extra is missing there, must be float32\[2\]"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(
    tmp_path: Path, name: str, leaf: jax.Array, said: str
) -> None:
    save(tmp_path, {1: None})
    template = make_state(0)
    template["params"][name] = leaf
    with pytest.raises(CheckpointError, match=said):
        restore(tmp_path, template=template)


def test_a_save_that_was_killed_leaves_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, {1: None, 2: None})
    (tmp_path / "2").rename(tmp_path / "2.saving")
    (tmp_path / "2.saving" / "description.json").unlink()
    assert_is_step(restore(tmp_path)[0], 1)
    store = Checkpoints(tmp_path)
    store.save(2, make_state(2), {"position": 2}, None)
    assert_is_step(store.restore(make_state(0), warn=pytest.fail), 2)


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
