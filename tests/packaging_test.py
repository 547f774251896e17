"""The repository itself: what it imports, what it installs, and what must not stand in it."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("armt_jax", "experiments", "configs", "benchmarks")
PYTHONS = ("3.11", "3.12", "3.13")


def sources(*folders: str) -> list[pathlib.Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported_modules(path: pathlib.Path) -> set[str]:
    """Top-level names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@functools.cache
def installed_modules() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def requirements(name: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-r ")]


def locked(python: str) -> dict[str, Version]:
    """Versions that the lock gives a Linux machine with that Python, by canonical name."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    versions = {}
    for requirement in requirements("requirements-lock.txt"):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (pin,) = requirement.specifier
            assert pin.operator == "==", f"{requirement} is not exact"
            versions[canonicalize_name(requirement.name)] = Version(pin.version)
    return versions


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_import_is_a_requirement(path: pathlib.Path):
    files = ["requirements.txt"]
    # The reference in PyTorch is imported where somebody asks for it, and not installed here.
    reference = path.parent.name == "benchmarks" and path.name.startswith("torch_")
    files += ["requirements-torch.txt"] if reference else []
    listed = {canonicalize_name(r.name) for file in files for r in requirements(file)}
    distributions = installed_modules()
    foreign = imported_modules(path) - set(PACKAGES) - set(sys.stdlib_module_names)
    for module in sorted(foreign):
        names = distributions.get(module, [module] if reference else [])
        candidates = {canonicalize_name(name) for name in names}
        assert candidates & listed, f"{module} is imported but not in {' or '.join(files)}"


def test_flax_is_imported_by_the_models_only():
    users = {p.relative_to(ROOT) for p in sources(*PACKAGES) if "flax" in imported_modules(p)}
    assert users, "the check looks at nothing"
    outside = {p for p in users if p.parts[:2] != ("armt_jax", "models")}
    assert not outside


def test_test_tools_are_imported_by_tests_only():
    tools = {"chex", "pytest", "tests"}
    users = {str(p.relative_to(ROOT)) for p in sources(*PACKAGES) if tools & imported_modules(p)}
    assert not users


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("ranges", ["requirements.txt", "requirements-dev.txt"])
def test_lock_satisfies_the_ranges(python: str, ranges: str):
    versions = locked(python)
    for requirement in requirements(ranges):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in the lock"
        assert requirement.specifier.contains(version), f"{requirement}, but the lock has {version}"


@pytest.mark.parametrize("extra", ["requirements-cuda.txt", "requirements-tpu.txt"])
def test_accelerator_extras_ask_for_the_jax_of_the_lock(extra: str):
    (requirement,) = requirements(extra)
    (runtime,) = (r for r in requirements("requirements.txt") if r.name == "jax")
    assert requirement.specifier == runtime.specifier


def test_lock_names_no_place():
    text = (ROOT / "requirements-lock.txt").read_text()
    assert "make lock" in text.splitlines()[1]
    for word in ("://", "--index-url", "--find-links", " @ "):
        assert word not in text


def test_pythons_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    minors = [f"3.{minor}" for minor in range(8, 20)]
    supported = SpecifierSet(project["requires-python"])
    assert tuple(v for v in minors if supported.contains(f"{v}.0")) == PYTHONS
    workflow = (ROOT / ".github/workflows/test.yml").read_text()
    matrix = re.search(r"^ +python: \[(.*)\]$", workflow, re.MULTILINE)
    assert matrix is not None
    assert tuple(re.findall(r"[\d.]+", matrix[1])) == PYTHONS


@pytest.mark.parametrize(
    ("version", "accepted"), [("3.10", False), ("3.12", True), ("3.14", False)]
)
def test_make_refuses_another_python(tmp_path: pathlib.Path, version: str, accepted: bool):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {version}\n")
    python.chmod(0o755)
    command = ["make", "-C", str(ROOT), "check-python", f"PYTHON={python}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode == 0) is accepted
    if not accepted:
        assert f"is Python {version}; armt_jax needs 3.11, 3.12 or 3.13" in result.stderr


def tracked_text_files() -> list[tuple[str, str]]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    files = []
    for name in filter(None, listed.stdout.split("\0")):
        try:
            files.append((name, (ROOT / name).read_text(encoding="utf-8")))
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue  # binary, or removed from the work tree
    return files


def test_no_tracked_file_names_a_place_on_one_machine():
    homes = "home|root|Users|work|workspace|mnt"
    place = re.compile(rf"(?<![\w.$)}}\]~/-])/(?:{homes})/[\w.]")
    files = tracked_text_files()
    found = [
        f"{name}: {line.strip()[:80]}"
        for name, text in files
        for line in text.splitlines()
        if place.search(line)
    ]
    assert not found


def test_slow_cases_are_tests_that_there_are() -> None:
    for line in (ROOT / "tests" / "slow_cases.txt").read_text().splitlines():
        file, _, case = line.partition("::")
        assert f"def {case.partition('[')[0]}(" in (ROOT / file).read_text(), line
