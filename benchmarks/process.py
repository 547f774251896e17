"""One benchmark in a process of its own: with a timeout, and without taking others down with it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

OK, FAILED, TIMEOUT = "ok", "failed", "timeout"
_ROOT = Path(__file__).resolve().parents[1]
_LONGEST_ERROR = 200


@dataclasses.dataclass(frozen=True)
class Job:
    """A benchmark to run.

    Attributes:
      group: what ``--only`` names.
      label: what is measured, for people.
      command: arguments after ``python -m``; the last line it prints must be a JSON object.
      timeout: seconds after which it is ended.
    """

    group: str
    label: str
    command: Sequence[str]
    timeout: float


class _Signals:
    """Signals that end us, held back while a process is started.

    One that came between its start and the ``try`` that ends it would leave it running.
    """

    def __init__(self) -> None:
        self._held, self._came = False, None

    def handle(self, number: int, _: Any) -> None:
        if self._held:
            self._came = number
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            sys.exit(128 + number)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        self._held = True
        try:
            yield
        finally:
            self._held = False
            if self._came is not None:
                number, self._came = self._came, None
                self.handle(number, None)


_SIGNALS = _Signals()


def end_jobs_when_terminated() -> None:
    """On SIGTERM and SIGINT leave as on an error, so that ``run_job`` ends what it has started."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _SIGNALS.handle)


def run_job(job: Job, python: str = sys.executable) -> dict[str, Any]:
    """Run ``job`` and say how it went.

    Returns:
      A row: ``group``, ``label``, ``command``, ``status`` (``ok``, ``failed``, ``timeout``),
      ``wall_seconds``, ``result`` (what it printed; None unless ``ok``) and ``error`` (one line;
      None if ``ok``).
    """
    started = time.perf_counter()
    # Files and not pipes: what a killed job has started might hold a pipe open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = code = None
        try:
            with _SIGNALS.hold():
                process = _start([python, "-m", *job.command], out, err)
            code = process.wait(job.timeout)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process is not None:
                _end(process)
        stdout, stderr = _text(out), _text(err)
    result, error = outcome(code, stdout, stderr, job.timeout)
    status = OK if error is None else TIMEOUT if code is None else FAILED
    return {
        "group": job.group,
        "label": job.label,
        "command": " ".join(["python", "-m", *job.command]),
        "status": status,
        "wall_seconds": time.perf_counter() - started,
        "result": result,
        "error": error,
    }


def outcome(
    code: int | None, stdout: str, stderr: str, timeout: float
) -> tuple[dict[str, Any] | None, str | None]:
    """The result of a finished process, or why there is none.

    Args:
      code: its exit code, None where it was ended after ``timeout`` seconds.
      stdout, stderr: what it printed.
      timeout: in seconds.

    Returns:
      The JSON object of its last line and None; or None and one line for people.
    """
    if code is None:
        return None, f"ended after {timeout:.0f} s"
    if code == -signal.SIGKILL:
        return None, "killed by the system (out of memory?)"
    if code < 0:
        return None, f"ended by {signal.Signals(-code).name}"
    if code:
        return None, _last_line(stderr) or f"exit code {code}"
    try:
        result = json.loads(_last_line(stdout, None))
    except ValueError:
        return None, "its last line is not JSON"
    if not isinstance(result, dict):
        return None, "its last line is not a JSON object"
    return result, None


def _last_line(text: str, longest: int | None = _LONGEST_ERROR) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:longest] if lines else ""


def _text(file: Any) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _environment() -> dict[str, str]:
    """Ours, but nothing compiled earlier is taken from a cache: its time would be lost."""
    return {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}


def _start(command: list[str], out: IO[bytes], err: IO[bytes]) -> subprocess.Popen:
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=True,  # so that all of it can be ended
    )
    _offer_to_the_kernel(process.pid)
    return process


def _offer_to_the_kernel(pid: int) -> None:
    """Where memory runs out, Linux ends the benchmark first and not something beside it."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")


def _end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
