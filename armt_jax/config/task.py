"""What is asked, and the stages of learning it."""

from __future__ import annotations

import dataclasses

from armt_jax.config.checks import one_of, positive, require

VARIANTS = ("remember", "rewrite")


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Associative retrieval: what evaluation asks (training takes its sizes from the curriculum).

    ``variant`` is ``remember`` (unique keys) or ``rewrite`` (keys repeat, the latest value
    counts). A key has ``key_size`` digits of 0..15, a value ``value_size``.
    """

    variant: str
    num_pairs: int
    key_size: int
    value_size: int

    def __post_init__(self) -> None:
        one_of("task.variant", self.variant, VARIANTS)
        positive(self, "task", "num_pairs", "key_size", "value_size")
        check_pairs("task.num_pairs", self.variant, self.num_pairs, self.key_size)


def check_pairs(
    field: str, variant: str, num_pairs: int, key_size: int, key_symbols: int = 16
) -> None:
    """Raise ``ConfigError`` where ``remember`` is asked for more pairs than there are keys."""
    if variant == "remember":
        symbols = "" if key_symbols == 16 else f" of {key_symbols} symbols"
        require(
            num_pairs <= key_symbols**key_size,
            field,
            num_pairs,
            f"must be at most {key_symbols**key_size}, the number of keys of {key_size} "
            f"digits{symbols}",
        )


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
    """Stages of training, one entry of each tuple a stage (paper, Appendices C and E).

    A stage ends when exact match on its validation set reaches ``target`` (with one query per
    context, so that it means what evaluation means) or after its ``max_steps``; a stage that
    runs out of steps below its target is reported. ``num_queries`` is the number of keys asked
    per context, 0 for all of them. With ``random_num_pairs`` every context has 1 to
    ``num_pairs`` pairs, uniformly. The keys of one context use ``key_symbols`` of the 16 symbols
    (others in every context): with few, a model cannot get far by looking at one digit. With
    ``random_symbols`` a context of the stage has 2, 4, 8, ... or ``key_symbols`` of them in its
    keys, and 2, 4, 8 or 16 in its values.
    """

    variant: tuple[str, ...]
    num_pairs: tuple[int, ...]
    key_size: tuple[int, ...]
    key_symbols: tuple[int, ...]
    random_symbols: tuple[bool, ...]
    max_steps: tuple[int, ...]
    target: tuple[float, ...]
    num_queries: int
    random_num_pairs: bool

    def __post_init__(self) -> None:
        stages = len(self.num_pairs)
        require(stages >= 1, "curriculum.num_pairs", self.num_pairs, "needs at least one stage")
        for field in dataclasses.fields(self):
            name, values = field.name, getattr(self, field.name)
            if not isinstance(values, tuple):
                continue
            require(
                len(values) == stages,
                f"curriculum.{name}",
                values,
                f"needs {stages} entries, one for each of curriculum.num_pairs",
            )
        for index in range(stages):
            one_of(f"curriculum.variant[{index}]", self.variant[index], VARIANTS)
            for name in ("num_pairs", "key_size", "max_steps"):
                value = getattr(self, name)[index]
                require(value >= 1, f"curriculum.{name}[{index}]", value, "must be at least 1")
            symbols = self.key_symbols[index]
            require(
                2 <= symbols <= 16, f"curriculum.key_symbols[{index}]", symbols, "must be 2 to 16"
            )
            check_pairs(
                f"curriculum.num_pairs[{index}]",
                self.variant[index],
                self.num_pairs[index],
                self.key_size[index],
                2 if self.random_symbols[index] else symbols,
            )
            # A target above 1 is never reached: the stage uses all its steps.
            require(
                self.target[index] > 0.0,
                f"curriculum.target[{index}]",
                self.target[index],
                "must be positive (above 1: the stage always uses its max_steps)",
            )
        require(
            self.num_queries >= 0,
            "curriculum.num_queries",
            self.num_queries,
            "must be 0 (every key) or more",
        )

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return len(self.num_pairs)
