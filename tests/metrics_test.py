"""Metrics go on where a checkpoint was, are JSON whatever their value, and never block a run."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from tensorboardX import SummaryWriter
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from armt_jax.evaluation.training_log import read_training_log
from armt_jax.training.metrics import FILE_NAME, MetricsWriter


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / FILE_NAME).read_text().splitlines()]


def records(path: Path) -> Iterator[Any]:
    """Events of a file, by the format's definition; every checksum is compared."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        data = content[12 : 12 + length]
        sums = struct.unpack("<I", content[8:12]), struct.unpack("<I", content[12 + length :][:4])
        assert sums == ((masked_crc32c(content[:8]),), (masked_crc32c(data),))
        yield cast(Any, event_pb2).Event.FromString(data)
        content = content[16 + length :]


def scalars(folder: Path) -> list[tuple[int, str, float]]:
    """What TensorBoard shows: the files by name, each start hiding what came from its step on."""
    shown: list[tuple[int, str, float]] = []
    for path in sorted((folder / "tensorboard").iterdir()):
        for event in records(path):
            if event.HasField("session_log"):
                shown = [entry for entry in shown if entry[0] < event.step]
            shown += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    return shown


def test_lines_after_the_checkpoint_are_dropped_and_come_again(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, 0) as writer:
        for step in range(1, 6):
            writer.write(step, {"loss": 1.0 / step})
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"step": 6, "lo')
    with MetricsWriter(tmp_path, 3) as writer:
        writer.write(4, {"loss": 0.5, "stage": 1})
    expected = [{"step": step, "loss": 1.0 / step} for step in (1, 2, 3)]
    assert lines(tmp_path) == [*expected, {"step": 4, "loss": 0.5, "stage": 1}]
    third = pytest.approx(1 / 3)
    rest = [(4, "loss", 0.5), (4, "stage", 1.0)]
    assert scalars(tmp_path) == [(1, "loss", 1.0), (2, "loss", 0.5), (3, "loss", third), *rest]


@pytest.mark.parametrize("ending", [b"", b"\n", b'\n{"step": 3, "l', b"\n\0\0\0", b"\n\xff\xfe"])
def test_what_a_kill_left_at_the_end_is_repaired(tmp_path: Path, ending: bytes) -> None:
    whole = b'{"step": 1, "loss": 0.1}\n{"step": 2, "loss": 0.30000000000000004}'
    (tmp_path / FILE_NAME).write_bytes(whole + ending)
    with MetricsWriter(tmp_path, 2) as writer:
        writer.write(3, {"loss": 1.0})
    assert (tmp_path / FILE_NAME).read_bytes() == whole + b'\n{"step": 3, "loss": 1.0}\n'


def test_one_bad_line_costs_no_other_line(tmp_path: Path) -> None:
    content = '{"step": 1, "loss": 1.0}\n{"ste#": 2}\n{"step"\n[]\n{"step": 4, "loss": 4.0}\n'
    (tmp_path / FILE_NAME).write_text(content)
    with MetricsWriter(tmp_path, 4):
        pass
    assert [line["step"] for line in lines(tmp_path)] == [1, 4]


def test_numbers_that_are_not_finite_stay_json(tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(1, {"loss": float("nan"), "grad_norm": float("inf"), "exact_match": 0.5})
        writer.write(2, {"loss": float("-inf")})
    first, second = (tmp_path / FILE_NAME).read_text().splitlines()
    found = json.loads(first, parse_constant=refuse)
    assert found == {"step": 1, "loss": None, "grad_norm": None, "exact_match": 0.5}
    assert json.loads(second, parse_constant=refuse) == {"step": 2, "loss": None}
    assert scalars(tmp_path) == [(1, "exact_match", 0.5)]
    log = read_training_log(tmp_path / FILE_NAME)
    assert (log.loss, log.exact_match) == ([], [(1, 0.5)])


def test_events_are_those_of_the_reference_writer(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    with MetricsWriter(tmp_path / "ours", 2) as writer:
        writer.write(3, {"loss": 0.1, "stage": 2})
    with SummaryWriter(str(tmp_path / "theirs"), purge_step=3) as reference:
        reference.add_scalar("loss", 0.1, 3)
        reference.add_scalar("stage", 2, 3)

    def described(folder: Path) -> list[Any]:
        (path,) = folder.iterdir()
        events = list(records(path))
        headers = {event.file_version for event in events[:1]}
        starts = [(e.step, e.session_log.status) for e in events if e.HasField("session_log")]
        values = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
        return [headers, starts, values]

    assert described(tmp_path / "ours" / "tensorboard") == described(tmp_path / "theirs")


def test_a_full_disk_is_an_error_that_names_the_file_and_blocks_nothing(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))  # no file may be longer
    try:
        for step in range(1, 1000):
            writer.write(step, {"loss": 1.0, "exact_match": 0.5})
    except OSError as error:
        caught = error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writer.close()
    assert re.fullmatch(r"\[Errno 27\] File too large: '.*(metrics|events).*'", str(caught))
    (path,) = (tmp_path / "tensorboard").iterdir()
    whole: list[int] = []
    with pytest.raises(struct.error):  # the last one is cut short
        whole.extend(event.step for event in records(path))
    assert whole[2:] == list(range(1, step))  # said at once, not later
    with MetricsWriter(tmp_path, step) as again:  # the line that was cut short is repaired
        again.write(step + 1, {"loss": 1.0})
    assert lines(tmp_path)[-1] == {"step": step + 1, "loss": 1.0}


def test_everything_written_before_a_kill_is_there(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "from armt_jax.training.metrics import MetricsWriter\n"
        "writer = MetricsWriter(pathlib.Path(sys.argv[1]), 0)\n"
        "for step in range(1, 31): writer.write(step, {'loss': 1.0})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    steps = list(range(1, 31))
    assert [line["step"] for line in lines(tmp_path)] == steps
    assert [step for step, _, _ in scalars(tmp_path)] == steps


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        MetricsWriter(tmp_path / "missing", 0)
