"""One case of ``benchmarks.against_torch``: compared, then timed in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from armt_jax.config import ConfigError
from benchmarks import flops, machine
from benchmarks.side_by_side import TOLERANCE, take_turns
from benchmarks.sizes import READERS, reader_config
from benchmarks.train_sizes import TrainSize, gpt2_small_size, retrieval_size

SEGMENT = 512
TRAIN: dict[str, Callable[[], TrainSize]] = {
    "train_armt": lambda: retrieval_size(50, 32, backbone="gpt_neox"),
    "train_rmt": lambda: retrieval_size(50, 32, family="rmt", backbone="gpt_neox"),
    "train_prmt": lambda: retrieval_size(50, 32, family="prmt", backbone="gpt_neox"),
    "train_gpt2_small": lambda: gpt2_small_size(2, 1, length=SEGMENT),
}
CASES = (*(f"read_{name}" for name in READERS), *TRAIN)


def measure(name: str, block: int, rounds: int) -> dict[str, Any]:
    """Compare one case, then time it.

    Raises:
      ConfigError: there is no such case, or torch or transformers is not installed.
    """
    if name not in CASES:
        raise ConfigError(f"case = {name!r}: must be one of {', '.join(CASES)}")
    try:
        from benchmarks import torch_programs
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed: pip install torch transformers"
        ) from None
    if name in TRAIN:
        size = TRAIN[name]()
        contestants = torch_programs.training(size)
        work = size.flops
    else:
        config = reader_config(name.removeprefix("read_"), SEGMENT)
        contestants = torch_programs.reading(config, SEGMENT, block)
        work = block * flops.context_flops(config, SEGMENT)
    if not contestants.difference <= TOLERANCE:
        raise ConfigError(
            f"the two differ by {contestants.difference:.1e}, more than {TOLERANCE:.0e}: what they "
            "cost cannot be compared"
        )
    # Two that do not count in every turn: a program that takes back from the system the memory that
    # the other one has freed needs up to twice its time (a step of RMT: 2.2 s, then 0.9).
    times = take_turns(list(contestants.programs.values()), rounds, warm=2)
    peak = machine.sgemm_flops_per_second()
    return {
        "benchmark": "against_torch",
        "case": name,
        "rounds": rounds,
        **machine.description(),
        "torch": torch_programs.VERSIONS,
        # Of all programs together.
        "peak_memory_bytes": machine.peak_memory_bytes(),
        "sgemm_flops_per_second": peak,
        "rows": _rows(contestants, times, work, peak),
    }


def _rows(contestants: Any, times: list[list[float]], work: float, peak: float) -> list[dict]:
    rows = []
    for program, seconds in zip(contestants.programs, times, strict=True):
        ratios = [own / first for own, first in zip(seconds, times[0], strict=True)]
        middle = statistics.median(seconds)
        row = {
            "program": program,
            "seconds": middle,
            "seconds_all": seconds,
            "against_first": statistics.median(ratios),
            "times_as_fast": 1 / statistics.median(ratios),
            "sgemm_share": work / middle / peak,
        }
        if contestants.tokens:
            row["tokens_per_second"] = contestants.tokens / middle
        rows.append(row)
    rows[-1]["difference"] = contestants.difference
    return rows
