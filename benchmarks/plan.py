"""Which benchmarks there are, as commands: a quick list and a full one."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence

from armt_jax.config import ConfigError
from benchmarks import torch_comparison
from benchmarks.process import Job

TORCH = "torch"
GROUPS = ("machine", "train", "stream", "memory", "schedules", "pipeline", "compile", TORCH)
# Case, mode, rounds and devices of a CPU (2: the pipeline too); one process each.
COMPARED = (
    ("4x128_b32_t5", "train", 5, 1),
    ("4x128_b1_t5", "read", 5, 1),
    ("4x128_b1_t512", "read", 5, 2),
    ("12x768_b1_t512", "read", 3, 2),
    ("4x128_b32_t5", "read", 5, 1),
    ("12x128_b1_t32", "read", 5, 1),
    ("4x128_b1_t512", "train", 5, 1),
    ("4x128_b1_t5", "train", 5, 1),
    ("12x768_b1_t512", "train", 3, 1),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a person chooses.

    Attributes:
      quick: small sizes only, under three minutes on 2 cores.
      train_segments: segments of GPT-2 small's training steps.
      memory_segments: lengths of texts read to see whether memory grows, 2 or more.
      memory_gib: no schedule is run whose program needs more temporary memory.
      timeout: of each benchmark, in seconds.
    """

    quick: bool
    train_segments: tuple[int, ...] = (2, 8, 32)
    memory_segments: tuple[int, ...] = (2, 4, 16, 64, 256)
    memory_gib: float = 8.0
    timeout: float = 1800.0

    def __post_init__(self) -> None:
        for name, least in (("train_segments", 1), ("memory_segments", 2)):
            values = getattr(self, name)
            if any(value < least for value in values):
                raise ConfigError(f"{name} = {values}: must be numbers from {least} on")
        for name in ("memory_gib", "timeout"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be positive")


def parse_groups(only: Sequence[str]) -> list[str]:
    """Names of groups in the order they are run in; all for none.

    Raises:
      ConfigError: a name that is no group.
    """
    for name in only:
        if name not in GROUPS:
            raise ConfigError(f"only = {name!r}: must be of {', '.join(GROUPS)}")
    return [name for name in GROUPS if name in only or not only]


def jobs(settings: Settings, groups: Sequence[str]) -> list[Job]:
    """The benchmarks of ``groups``.

    Those beside PyTorch are among them where it is installed, and where nothing else is asked for:
    then they say what is missing.
    """
    if not has_torch() and list(groups) != [TORCH]:
        groups = [group for group in groups if group != TORCH]
    listed = _quick() if settings.quick else _full(settings)
    return [
        Job(group, label, (*command, "--json"), settings.timeout)
        for group, label, command in listed
        if group in groups
    ]


def has_torch() -> bool:
    """Whether the reference in PyTorch can be run here."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def left_out(settings: Settings, groups: Sequence[str]) -> list[str]:
    """What the settings leave out of what the full list can measure, for people."""
    words = []
    if TORCH in groups and not has_torch():
        words.append("the same models in PyTorch: pip install torch transformers")
    if settings.quick:
        quick = "--quick: GPT-2 small's training, long texts, and all cases of schedules but two"
        return [quick, *words]
    if "train" in groups and max(settings.train_segments, default=0) < 32:
        words.append("training GPT-2 small on more segments: --train_segments=2,8,32")
    if "schedules" in groups:
        words.append(f"schedules that need more than --memory_gib={settings.memory_gib:g}")
    return words


_Line = tuple[str, str, tuple[str, ...]]


def _quick() -> list[_Line]:
    stream = ("benchmarks.stream", "--block=2", "--blocks=3")
    return [
        ("machine", "the machine", ("benchmarks.machine",)),
        (
            "train",
            "training step, 4 x 128, 10 pairs, batch 8",
            ("benchmarks.train_step", "--pairs=10", "--batch=8", "--steps=3"),
        ),
        ("stream", "reading, GPT-2 small", (*stream, "--model=gpt2_small")),
        ("stream", "reading, 4 x 128, vocabulary 256", (*stream, "--model=small_bytes")),
        *_memory("small_bytes", (2, 8)),
        _schedules("tiny", "read", "--cpu_devices=2"),
        _schedules("tiny", "train", "--cpu_devices=1"),
        _pipeline("tiny", 2, "4,16"),
        _compile("tiny", "read"),
        _beside_torch("read_small_bytes", "--block=2", "--rounds=2"),
    ]


def _full(settings: Settings) -> list[_Line]:
    train = ("benchmarks.train_step",)
    gpt2 = (*train, "--model=gpt2_small", "--batch=1", "--steps=1")
    return [
        ("machine", "the machine", ("benchmarks.machine",)),
        (
            "train",
            "training step, 4 x 128, 50 pairs, batch 32",
            (*train, "--pairs=50", "--batch=32"),
        ),
        *(
            (
                "train",
                f"training step, GPT-2 small, {count} segments of 512, batch 1",
                (*gpt2, f"--pairs={count}"),
            )
            for count in settings.train_segments
        ),
        ("stream", "reading, GPT-2 small", ("benchmarks.stream", "--model=gpt2_small")),
        (
            "stream",
            "reading, 4 x 128, vocabulary 50,257",
            ("benchmarks.stream", "--model=small"),
        ),
        (
            "stream",
            "reading, 4 x 128, vocabulary 256",
            ("benchmarks.stream", "--model=small_bytes"),
        ),
        *_memory("small", settings.memory_segments),
        *_memory("gpt2_small", tuple(n for n in settings.memory_segments if n <= 16)),
        *(
            _schedules(
                case,
                mode,
                f"--rounds={rounds}",
                f"--cpu_devices={devices}",
                f"--memory_gib={settings.memory_gib:g}",
            )
            for case, mode, rounds, devices in COMPARED
        ),
        _pipeline("4x128_b1_t512", 2, "4,16,64"),
        _pipeline("4x128_b1_t512", 4, "4,16,64"),
        _compile("4x128_b32_t5", "train"),
        _compile("12x768_b1_t512", "read"),
        *(_beside_torch(case, *_turns(case)) for case in torch_comparison.CASES),
    ]


def _memory(model: str, lengths: Sequence[int]) -> list[_Line]:
    """Reading ``n`` segments: a first block, which compiles, and ``n - 1`` blocks, of one each."""
    command = ("benchmarks.stream", f"--model={model}", "--block=1")
    return [
        ("memory", f"memory, {model}, {n} segments of 512", (*command, f"--blocks={n - 1}"))
        for n in lengths
    ]


def _schedules(case: str, mode: str, *options: str) -> _Line:
    command = ("benchmarks.schedules", f"--case={case}", f"--mode={mode}", *options)
    return "schedules", f"schedules, {case}, {mode}", command


def _pipeline(case: str, stages: int, lengths: str) -> _Line:
    command = ("benchmarks.pipeline", f"--case={case}", f"--stages={stages}")
    return "pipeline", f"pipeline, {case}, {stages} stages", (*command, f"--segments={lengths}")


def _compile(case: str, mode: str) -> _Line:
    command = ("benchmarks.compile_time", f"--case={case}", f"--mode={mode}")
    return "compile", f"compiling, {case}, {mode}", command


def _beside_torch(case: str, *options: str) -> _Line:
    command = ("benchmarks.against_torch", f"--case={case}", *options)
    return TORCH, f"beside PyTorch, {case}", command


def _turns(case: str) -> tuple[str, ...]:
    """GPT-2 small's turns are long; a small model's block must be, for two devices to get going."""
    return ("--rounds=3",) if "gpt2_small" in case else ("--block=32",)
