"""Settings and fixtures of every test."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Iterator

# Figures are drawn without a screen; matplotlib reads this at its first import.
os.environ["MPLBACKEND"] = "Agg"

# Programs are compiled as fast as may be, here and in the processes that tests start: without most
# optimisations, and on CPU with XLA's older emitters, which halves the time. make test-all compiles
# them as users do.
if os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1":
    flag = "--xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"

import jax
import pytest
from absl import flags

# Simulated devices, for the tests of meshes; all others use the first.
jax.config.update("jax_num_cpu_devices", 8)

# A silent broadcast [b, d] + [d, b] of equal sizes is a wrong number, not an error.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Grain's workers read absl flags, which a program that absl starts has parsed by then.
if not flags.FLAGS.is_parsed():
    flags.FLAGS(["pytest"])

DATA_SETS = (
    "bAbI tasks v1.2 as babi/en-10k, Gutenberg or PG-19 books as books/train and books/test, "
    "WikiText-2 as wikitext-2, GPT-2's vocab.json and merges.txt as gpt2-bpe"
)


# Single cases of many: which of them is long is seen when all are timed, not where they are made.
SLOW_CASES = frozenset((pathlib.Path(__file__).parent / "slow_cases.txt").read_text().split())


@pytest.hookimpl(tryfirst=True)  # before -m looks at marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases of ``slow_cases.txt`` as slow."""
    for item in items:
        if item.nodeid in SLOW_CASES:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs() -> Iterator[None]:
    """A worker that keeps the programs of all files grows to gigabytes, and XLA crashes in it."""
    yield
    jax.clear_caches()


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """No folder of data, and nothing kept from earlier runs: what is built in is used."""
    monkeypatch.delenv("ARMT_DATA_DIR", raising=False)
    monkeypatch.setenv("ARMT_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """The folder of real data that ``ARMT_DATA_DIR`` names; the test skips where there is none."""
    name = os.environ.get("ARMT_DATA_DIR")
    if not name:
        pytest.skip(f"ARMT_DATA_DIR is not set; it names a folder with {DATA_SETS}")
    folder = pathlib.Path(name)
    if not folder.is_dir():
        pytest.fail(f"ARMT_DATA_DIR = {name!r} is not a folder; it should hold {DATA_SETS}")
    return folder


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 for one test: ``jax.enable_x64`` restores float32 when the test ends."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def compile_once() -> Iterator[None]:
    """Trainers of one file that have the same sizes share a compilation."""
    from armt_jax.evaluation.evaluate import Evaluator
    from armt_jax.training import loop, programs

    patch = pytest.MonkeyPatch()
    patch.setattr(loop, "tuned_model", functools.cache(loop.tuned_model))
    patch.setattr(loop, "tuned_optimizer", functools.cache(loop.tuned_optimizer))
    patch.setattr(programs, "jit_train_step", functools.cache(programs.jit_train_step))
    patch.setattr(programs, "Evaluator", functools.cache(Evaluator))
    yield
    patch.undo()
