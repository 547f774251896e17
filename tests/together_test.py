"""Two real processes with two devices each decide, share, save and end together."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from armt_jax.processes import share_of
from armt_jax.sharding import batched, data_mesh, replicated
from tests import together_program
from tests.several_processes import Process, free_address, module, started


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Process], list[Any]]:
    folder = tmp_path_factory.mktemp("together")
    address = free_address()
    arguments = [[address, str(index), str(folder)] for index in range(2)]
    environment = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    program = module("tests.together_program")
    with started(program, arguments, folder / "output", **environment) as processes:
        processes[1].wait()
        assert (folder / "1.json").exists(), processes[1].said
        processes[0].wait()
        (folder / "ended").write_text(str(time.time()))
    said = [json.loads((folder / f"{index}.json").read_text()) for index in range(2)]
    return folder, processes, said


def test_what_one_process_says_all_know(finished: tuple[Path, list[Process], list[Any]]) -> None:
    said = finished[2]
    assert [part["count"] for part in said] == [[2, 0, True], [2, 1, False]]
    assert [part["broadcast"] for part in said] == [{"text": "é", "list": [1, None]}] * 2
    assert [part["votes"] for part in said] == [[None, 15, None]] * 2


def test_a_failure_of_one_is_one_of_all_and_said_once(
    finished: tuple[Path, list[Process], list[Any]],
) -> None:
    line = "ConfigError: field = 1: must be 2"
    assert [part["failures"] for part in finished[2]] == [
        ["ElsewhereError: process 1 failed", line],
        [line, "ElsewhereError: every process failed alike"],
    ]


def test_halves_of_a_batch_are_the_batch(finished: tuple[Path, list[Process], list[Any]]) -> None:
    for index, part in enumerate(finished[2]):
        arrays = part["arrays"]
        assert arrays.pop("share") == [index, 2]
        assert arrays == {
            "rows": 4,
            "same": [True] * 4,
            "devices": [2, 4],
            "processes": [0, 1],
            "carried": list(range(6)),
            "joined": list(range(8)),
        }


def test_evaluation_is_that_of_one_process(
    finished: tuple[Path, list[Process], list[Any]],
) -> None:
    correct, total = together_program.evaluate()
    assert [part["evaluation"] for part in finished[2]] == [[correct, total]] * 2
    assert 0 < correct < total


def test_all_save_and_restore_and_pass_over_the_same_checkpoint(
    finished: tuple[Path, list[Process], list[Any]],
) -> None:
    folder, _, said = finished

    def held(step: int, index: int) -> list[Any]:
        rows = np.arange(16).reshape(4, 4)[2 * index : 2 * index + 2] + step
        key = np.asarray(jax.random.key_data(jax.random.key(step))).tolist()
        return [step, {"position": step}, rows.tolist(), [step] * 3, key]

    for index, part in enumerate(said):
        saving = part["saving"]
        assert saving["entries"] == ["1", "2"]
        assert saving["restored"] == held(2, index)
        assert saving["after damage"] == held(1, index)
        assert saving["again"] == held(3, index)
    assert len(said[0]["saving"]["warnings"]) == 1
    assert "the checkpoint is damaged" in said[0]["saving"]["warnings"][0]
    assert said[1]["saving"]["warnings"] == []
    full = said[0]["saving"]["full"]
    assert full.startswith("CheckpointError: ")
    assert "(No space left on device); those before it are untouched" in full
    assert said[1]["saving"]["full"] == "ElsewhereError: process 0 failed"
    others = [part["saving"]["other model"] for part in said]
    assert others[0].startswith("CheckpointError: ")
    assert "the checkpoint is of another model: rng is " in others[0]
    assert others[1] == "ElsewhereError: process 0 failed"
    assert sorted(x.name for x in (folder / "checkpoints").iterdir()) == ["1", "3"]


def test_who_waits_for_a_killed_process_ends_with_a_line(
    finished: tuple[Path, list[Process], list[Any]],
) -> None:
    folder, processes, _ = finished
    assert processes[1].wait() == -9
    assert processes[0].wait() == 1, processes[0].said
    line = "error: process 1 ended before the run did; process 0 stops; start all of them again"
    assert line in processes[0].err
    killed, ended = (float((folder / name).read_text()) for name in ("killed", "ended"))
    assert ended - killed < 50  # JAX's own heartbeat takes 60


def test_the_share_of_a_process_follows_its_devices() -> None:
    assert share_of(batched(data_mesh(4)), 8) == (0, 1)
    assert share_of(replicated(data_mesh(4)), 8) == (0, 1)


class OtherProcess:
    """A sharding whose devices here hold some rows of a batch."""

    def __init__(self, *rows: slice) -> None:
        self.rows = rows

    def addressable_devices_indices_map(self, shape: tuple[int]) -> dict[int, tuple[slice]]:
        return {device: (rows,) for device, rows in enumerate(self.rows)}


@pytest.mark.parametrize(
    ("rows", "share"),
    [
        ((slice(4, 6), slice(6, 8)), (1, 2)),
        ((slice(6, 8), slice(4, 6)), (1, 2)),  # in whatever order
        ((slice(4, 6), slice(4, 6)), (2, 4)),  # two devices with the same rows
        ((slice(None), slice(None)), (0, 1)),
    ],
)
def test_shares_of_devices(rows: tuple[slice, ...], share: tuple[int, int]) -> None:
    assert share_of(OtherProcess(*rows), 8) == share  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("rows", [(slice(0, 2), slice(4, 6)), (slice(1, 5),), (slice(0, 3),)])
def test_rows_that_are_no_equal_part_are_refused(rows: tuple[slice, ...]) -> None:
    with pytest.raises(ValueError, match=r"of 8: must be one of equal parts"):
        share_of(OtherProcess(*rows), 8)  # pyright: ignore[reportArgumentType]
