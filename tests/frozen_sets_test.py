"""Frozen sets: paper's sizes, the same for everybody, built whole or not at all."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.tasks import frozen_sets
from armt_jax.tasks.associative_retrieval import AssociativeRetrieval, stream_key
from armt_jax.tasks.frozen_sets import frozen_config, frozen_size, load_frozen
from armt_jax.tasks.tfds_sets import default_data_dir

# As in training: the sets ask one query per context and have no random lengths all the same.
TASK = AssociativeRetrieval(
    "rewrite", num_pairs=6, key_size=1, value_size=1, num_queries=0, random_num_pairs=True
)
FROZEN = AssociativeRetrieval(
    "rewrite", num_pairs=6, key_size=1, value_size=1, num_queries=1, random_num_pairs=False
)


@pytest.fixture
def small_sets(monkeypatch):
    """Sets of 30 contexts, for tests of the folder and not of the contents."""
    for split in ("validation", "test"):
        monkeypatch.setitem(frozen_sets._SIZES, split, 30)


def files(folder: Path, pattern: str = "*") -> list[Path]:
    return [path for path in sorted(folder.rglob(pattern)) if path.is_file()]


def assert_equal(left, right) -> None:
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_sets_have_the_papers_sizes_and_are_the_streams_samples(tmp_path, capfd, caplog):
    validation = load_frozen(TASK, "validation", tmp_path)
    test = load_frozen(TASK, "test", tmp_path)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert validation.context.shape == (1_000, 6, 4)
    assert test.context.shape == (10_000, 6, 4)
    assert test.queries.shape == (10_000, 1, 4)
    assert test.context.dtype == test.queries.dtype == np.int32
    for split, loaded in (("validation", validation), ("test", test)):
        key = stream_key(FROZEN, split, seed=0)
        for index in (0, 1, 517, 999):
            row = jax.tree.map(lambda array, i=index: array[i], loaded)
            assert_equal(row, FROZEN.sample_at(key, index))
    part = load_frozen(TASK, "test", tmp_path, num_samples=7)
    assert_equal(part, jax.tree.map(lambda array: array[:7], test))


def test_every_context_is_complete_and_asked_once(tmp_path, small_sets):
    loaded = load_frozen(TASK, "test", tmp_path)
    assert loaded.context_mask.all()
    assert loaded.query_mask.shape == (30, 1)
    assert loaded.query_mask.all()


def test_sets_are_built_once_and_each_task_has_its_own(tmp_path, small_sets, monkeypatch):
    first = load_frozen(TASK, "test", tmp_path)
    monkeypatch.setattr(AssociativeRetrieval, "sample_at", None)
    assert_equal(load_frozen(FROZEN, "test", tmp_path), first)
    tasks = [
        AssociativeRetrieval(variant, pairs, key_size, value_size, 0, False, symbols)
        for variant in ("remember", "rewrite")
        for pairs in (5, 6)
        for key_size in (1, 2)
        for value_size in (1, 2)
        for symbols in (8, 16)
    ]
    assert len({frozen_config(task).name for task in tasks}) == len(tasks)


def test_elsewhere_the_set_is_the_same(tmp_path, small_sets):
    here, there = (load_frozen(TASK, "test", tmp_path / name) for name in ("a", "b"))
    assert_equal(here, there)


def test_long_sets_are_short_and_quickly_built(tmp_path, monkeypatch):
    task = AssociativeRetrieval("rewrite", 5_000, 2, 1, 1, False)
    assert frozen_size(task, "test") == frozen_size(task, "validation") == 1_000
    assert frozen_size(TASK, "test") == 10_000
    monkeypatch.setattr(frozen_sets, "_LONG_SIZE", 50)
    loaded = load_frozen(task, "test", tmp_path, num_samples=20)
    assert loaded.context.shape == (20, 5_000, 5)


def test_a_killed_build_leaves_nothing_that_is_read(tmp_path, small_sets):
    """SIGKILL in the middle of a split: no warning, no clean-up."""
    program = f"""
import os, signal
from armt_jax.tasks import frozen_sets
from armt_jax.tasks.associative_retrieval import AssociativeRetrieval
sample_at = AssociativeRetrieval.sample_at
def dying(task, stream, index):
    if index == 500:
        os.kill(os.getpid(), signal.SIGKILL)
    return sample_at(task, stream, index)
AssociativeRetrieval.sample_at = dying
frozen_sets.load_frozen({TASK!r}, "test", {str(tmp_path)!r})
"""
    killed = subprocess.run([sys.executable, "-c", program], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = {path.name for path in tmp_path.rglob("*") if path.is_dir()}
    assert any(name.startswith("incomplete") for name in left)
    assert "1.0.0" not in left
    assert_equal(load_frozen(TASK, "test", tmp_path), load_frozen(TASK, "test", tmp_path / "fresh"))


def test_two_builders_at_once(tmp_path, small_sets, monkeypatch):
    """Another process finishes the same set while this one is building it."""
    sample_at = AssociativeRetrieval.sample_at
    calls = []

    def interleaved(task, stream, index):
        calls.append(index)
        if len(calls) == 40:
            load_frozen(TASK, "test", tmp_path)
        return sample_at(task, stream, index)

    monkeypatch.setattr(AssociativeRetrieval, "sample_at", interleaved)
    loaded = load_frozen(TASK, "test", tmp_path)
    assert len(calls) == 2 * 60
    monkeypatch.undo()
    key = stream_key(FROZEN, "test", seed=0)
    assert_equal(jax.tree.map(lambda array: array[3], loaded), FROZEN.sample_at(key, 3))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "removed", "info", "empty_folder"])
def test_a_damaged_set_is_one_clear_line_and_is_left_alone(tmp_path, small_sets, damage):
    load_frozen(TASK, "test", tmp_path)
    data = files(tmp_path, "*-test.array_record*")[0]
    info = data.parent / "dataset_info.json"
    if damage == "truncated":
        data.write_bytes(data.read_bytes()[:-1000])
    elif damage == "flipped":
        content = bytearray(data.read_bytes())
        content[200] ^= 1
        data.write_bytes(bytes(content))
    elif damage == "removed":
        data.unlink()
    elif damage == "info":
        info.write_bytes(info.read_bytes()[:40])
    else:
        for path in files(data.parent):
            path.unlink()
    before = {path: path.read_bytes() for path in files(tmp_path)}
    with pytest.raises(ConfigError) as error:
        load_frozen(TASK, "test", tmp_path)
    line = str(error.value)
    assert line.startswith(f"data_dir = {str(tmp_path)!r}: the set in {data.parent} is damaged (")
    assert line.endswith("delete that folder and it is built anew")
    assert "\n" not in line
    assert {path: path.read_bytes() for path in files(tmp_path)} == before


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path, small_sets):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError) as error:
        load_frozen(TASK, "test", tmp_path / "file")
    assert "data_dir = " in str(error.value)
    assert "must be a folder that can be written" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_set_of_another_size_is_refused(tmp_path, small_sets, monkeypatch):
    load_frozen(TASK, "test", tmp_path)
    monkeypatch.setitem(frozen_sets._SIZES, "test", 20)
    with pytest.raises(ConfigError, match=r"is damaged \(30 records in test\)"):
        load_frozen(TASK, "test", tmp_path)


@pytest.fixture
def no_room():
    """Files end at 100 kB, as on a full disk: array_record's first block is 64 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path, small_sets, no_room):
    with pytest.raises(ConfigError) as error:
        load_frozen(TASK, "test", tmp_path)
    assert "must be a folder that can be written, with room for the set" in str(error.value)
    assert "File too large" in str(error.value)
    assert "\n" not in str(error.value)
    assert files(tmp_path) == []


def test_the_cache_variable_names_the_folder(tmp_path, small_sets, monkeypatch):
    monkeypatch.setenv("ARMT_CACHE_DIR", str(tmp_path / "cache"))
    load_frozen(TASK, "test", num_samples=2)
    assert files(tmp_path / "cache", "*-test.array_record*")
    monkeypatch.delenv("ARMT_CACHE_DIR")
    assert default_data_dir() == Path.home() / ".cache" / "armt_jax"


@pytest.mark.parametrize(
    ("task", "split", "num_samples", "line"),
    [
        (TASK, "train", None, "split = 'train': must be one of validation, test"),
        (TASK, "test", 10_001, "num_samples = 10001: must be in [1, 10000], the size of split"),
        (TASK, "validation", 0, "num_samples = 0: must be in [1, 1000]"),
        (
            AssociativeRetrieval("rewrite", 10**6, 2, 1, 1, False),
            "test",
            None,
            "task.num_pairs = 1000000: must be at most 188743 in a frozen set",
        ),
    ],
)
def test_impossible_requests_are_refused_before_building(tmp_path, task, split, num_samples, line):
    with pytest.raises(ConfigError) as error:
        load_frozen(task, split, tmp_path, num_samples)
    assert str(error.value).startswith(line)
    assert files(tmp_path) == []
