"""A benchmark in a process of its own: how it ends, and that nothing of it is left."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from benchmarks import process
from benchmarks.process import Job, outcome, run_job

ROOT = pathlib.Path(__file__).parents[1]


def fake_python(folder: pathlib.Path, script: str) -> str:
    """An interpreter that does ``script`` whatever module it is given."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "status", "error"),
    [
        ("echo words; echo '{\"seconds\": 1}'", "ok", None),
        (
            "echo '{\"seconds\": 1}'; echo 'error: no memory' >&2; exit 3",
            "failed",
            "error: no memory",
        ),
        ("exit 3", "failed", "exit code 3"),
        ("echo words", "failed", "its last line is not JSON"),
        ("echo 3", "failed", "its last line is not a JSON object"),
        ("kill -9 $$", "failed", "killed by the system (out of memory?)"),
        ("kill -6 $$", "failed", "ended by SIGABRT"),
    ],
)
def test_how_a_process_ends(tmp_path: pathlib.Path, script: str, status: str, error: str | None):
    job = Job("stream", "reading", ("benchmarks.stream", "--json"), 60.0)
    found = run_job(job, fake_python(tmp_path, script))
    assert (found["status"], found["error"]) == (status, error)
    assert found["result"] == ({"seconds": 1} if status == "ok" else None)
    assert found["command"] == "python -m benchmarks.stream --json"


def test_a_timeout_ends_all_that_was_started(tmp_path: pathlib.Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {pid_file}; wait"
    job = Job("stream", "reading", ("benchmarks.stream",), 1.0)
    found = run_job(job, fake_python(tmp_path, script))
    assert (found["status"], found["error"]) == ("timeout", "ended after 1 s")
    assert found["wall_seconds"] < 60
    _assert_ends(int(pid_file.read_text()))


def test_a_terminated_run_ends_its_benchmark(tmp_path: pathlib.Path) -> None:
    pid_file = tmp_path / "pid"
    python = fake_python(
        tmp_path, f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 300"
    )
    lines = [
        "from benchmarks.process import Job, end_jobs_when_terminated, run_job",
        "end_jobs_when_terminated()",
        f"run_job(Job('stream', 'reading', (), 300.0), {python!r})",
    ]
    with subprocess.Popen([sys.executable, "-c", "\n".join(lines)], cwd=ROOT) as command:
        deadline = time.monotonic() + 100
        while not pid_file.exists():
            assert time.monotonic() < deadline, "the benchmark has not started"
            time.sleep(0.02)
        command.terminate()
        assert command.wait(100) == 128 + 15
    _assert_ends(int(pid_file.read_text()))


def test_a_signal_while_a_process_starts_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what has just been started would go on by itself."""
    ended = []
    started = subprocess.Popen(["sleep", "300"], start_new_session=True)

    def start(*_: Any) -> Any:
        process._SIGNALS.handle(signal.SIGTERM, None)
        return started

    monkeypatch.setattr(process, "_start", start)
    monkeypatch.setattr(process, "_end", lambda one: ended.append(one))
    try:
        with pytest.raises(SystemExit) as stop:
            run_job(Job("stream", "reading", (), 60.0))
        assert (stop.value.code, ended) == (128 + 15, [started])
    finally:
        started.kill()
        started.wait()
    with pytest.raises(KeyboardInterrupt):
        process._SIGNALS.handle(signal.SIGINT, None)


def _assert_ends(pid: int) -> None:
    deadline = time.monotonic() + 20
    while _runs(pid):
        assert time.monotonic() < deadline, "what the benchmark started is still running"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return not state.stdout.strip().startswith("Z")


def test_a_long_error_is_one_short_line() -> None:
    assert outcome(1, "", f"Traceback\n{'x' * 1000}\n\n", 1.0) == (None, "x" * 200)
