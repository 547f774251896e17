"""Starting several real processes for a test, and ending them whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Seconds; a test itself is ended after 300 (``pytest --timeout``). A busy machine needs more.
LIMIT = int(os.environ.get("ARMT_TEST_LIMIT", "280"))
# A process that hangs in a sum never returns to Python: this thread of C ends it even so, and even
# where the test that started it was killed.
_LIMITED = f"import faulthandler; faulthandler.dump_traceback_later({LIMIT}, exit=True)\n"
_MODULE = "import runpy; runpy.run_module({!r}, run_name='__main__', alter_sys=True)"


class Process:
    """A started process whose output goes to files."""

    def __init__(self, program: str, arguments: Sequence[str], folder: Path, **env: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / "out", folder / "err"
        path = os.pathsep.join([str(ROOT), *sys.path])
        with self._out.open("w") as out, self._err.open("w") as err:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", _LIMITED + program, *arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path, **env},
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        """What it printed, without what the library for sums over CPUs prints."""
        lines = self._out.read_text().splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("[Gloo]"))

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def said(self) -> str:
        return f"exit code {self.popen.poll()}\n{self.out}\n{self.err}"

    def wait(self, seconds: float = LIMIT) -> int:
        return self.popen.wait(seconds)

    def kill(self) -> None:
        """``kill -9``, its children included."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


@contextlib.contextmanager
def started(
    program: str, arguments: Sequence[Sequence[str]], folder: Path, **env: str
) -> Iterator[list[Process]]:
    """A process of ``program`` for each list of arguments; all are gone afterwards."""
    processes: list[Process] = []
    try:
        for index, own in enumerate(arguments):
            processes.append(Process(program, own, folder / str(index), **env))
        yield processes
    finally:
        for process in processes:
            process.kill()


def module(name: str) -> str:
    """The program of ``python -m name``."""
    return _MODULE.format(name)


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def launch_flags(count: int, address: str | None = None) -> list[list[str]]:
    """The flags of each of ``count`` processes started by hand."""
    address = address or free_address()
    common = [f"--coordinator={address}", f"--num_processes={count}"]
    return [[*common, f"--process_id={index}"] for index in range(count)]


def wait_until(condition: Callable[[], bool], processes: Sequence[Process]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        for process in processes:
            assert process.popen.poll() is None, process.said
        assert time.monotonic() < end, [process.said for process in processes]
        time.sleep(0.01)
