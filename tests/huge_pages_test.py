"""A training starts itself anew with huge pages: once, and only where it changes anything."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from experiments import huge_pages
from experiments.huge_pages import VARIABLE, environment

TUNABLE = "glibc.malloc.hugetlb"


@pytest.fixture
def kernel(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A system that can have them."""
    path = tmp_path / "enabled"
    path.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "_KERNEL", path)
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    return path


@pytest.mark.usefixtures("kernel")
def test_the_tunable_is_added_unless_somebody_has_set_it() -> None:
    assert environment({"A": "b"}) == {"A": "b", VARIABLE: f"{TUNABLE}=1"}
    other = {VARIABLE: "glibc.malloc.arena_max=2"}
    assert environment(other)[VARIABLE] == f"glibc.malloc.arena_max=2:{TUNABLE}=1"
    for value in (0, 1, 2):
        chosen = {VARIABLE: f"{TUNABLE}={value}"}
        assert environment(chosen) == chosen


@pytest.mark.parametrize("text", ["[always] madvise never", "always madvise [never]", None])
def test_other_kernels_are_left_alone(kernel: pathlib.Path, text: str | None) -> None:
    kernel.unlink()
    if text is not None:
        kernel.write_text(text)
    assert environment({}) == {}


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("library", [("glibc", "2.34"), ("", ""), ("musl", "1.2"), ("glibc", "x")])
def test_other_libraries_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, library: tuple[str, str]
) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: library)
    assert environment({}) == {}


@pytest.mark.usefixtures("kernel")
def test_the_command_is_started_anew_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "experiments.main", "--config=x y.py"])
    monkeypatch.delenv(VARIABLE, raising=False)
    huge_pages.restart_with_them()
    ((program, arguments, found),) = started
    assert program == sys.executable
    assert arguments == [sys.executable, "-m", "experiments.main", "--config=x y.py"]
    monkeypatch.setenv(VARIABLE, found[VARIABLE])
    huge_pages.restart_with_them()
    assert len(started) == 1


def test_a_training_is_the_same_process_with_the_same_arguments(tmp_path: pathlib.Path) -> None:
    """A real one: what it prints, its exit code and its process number, through the restart."""
    script = tmp_path / "command.py"
    script.write_text(
        "import os, sys\n"
        "from experiments import huge_pages\n"
        "print(os.getpid(), flush=True)\n"
        "huge_pages.restart_with_them()\n"
        "print(os.environ.get('GLIBC_TUNABLES'), sys.argv[1:], flush=True)\n"
        "sys.exit(3)\n"
    )
    clean = {name: value for name, value in os.environ.items() if name != VARIABLE}
    clean["PYTHONPATH"] = str(pathlib.Path(__file__).parents[1])
    command = [sys.executable, str(script), "a b", "--c=[1]"]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3, done.stderr
    *numbers, last = done.stdout.splitlines()
    assert len(numbers) == (2 if environment(clean) != clean else 1)
    assert len(set(numbers)) == 1
    assert last == f"{environment(clean).get(VARIABLE)} ['a b', '--c=[1]']"


@pytest.mark.parametrize(
    "module", ["experiments.main", "benchmarks.train_step", "benchmarks.against_torch"]
)
def test_trainings_start_anew_before_anything_large(tmp_path: pathlib.Path, module: str) -> None:
    """The commands themselves, on a system that can: stopped where they would start anew."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "from experiments import huge_pages\n"
        "def execve(program, arguments, found):\n"
        "    print(arguments[1:], found['GLIBC_TUNABLES'], 'jax' in sys.modules, flush=True)\n"
        "    os._exit(3)\n"
        "os.execve, huge_pages._can = execve, lambda: True\n"
    )
    found = {name: value for name, value in os.environ.items() if name != VARIABLE}
    found["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(pathlib.Path(__file__).parents[1])])
    command = [sys.executable, "-m", module, "--nothing"]
    done = subprocess.run(command, env=found, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr
    assert done.stdout == f"{command[1:]} {TUNABLE}=1 False\n"
