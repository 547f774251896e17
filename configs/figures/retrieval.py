"""What the figures of associative retrieval have in common; not an experiment of its own.

Figures of one task share a pool of runs: ARMT's of Figure 2b are those of Figure 4a. The learning
rate of each model is the best of ``models.RATES`` by a short training on another seed, asked beyond
what it was trained on, for updates as far as the figure goes: at ten times the trained length four
rates were level, and the best of them had 0.32 at forty times where another had 0.81. All results
of that grid are kept and reported. Curricula are those of ``configs/ar_remember.py`` and
``configs/ar_rewrite.py``, with half as many steps for a model that does not find out how to look up
(ARMT needs 100 to 250 of them).
"""

from typing import Any

from armt_jax.config import ConfigError
from configs.figures.models import PAPER_RATE, RATES, chosen

VARIANTS = ("default", "all", "paper", "tiny")
TUNING_SEED = 1000

REMEMBER: dict[str, Any] = {
    "task": "ar_remember",
    "lengths": (10, 20, 30, 40, 50, 100, 200),
    "paper_lengths": (1, 2, 3, 5, 10, 20, 40, 50, 100, 200, 500),
    "tiny_lengths": (1, 2),
    "common": {"curriculum": {"max_steps": (1500, 1000, 500, 500, 600)}},
    "tuning_lengths": (4, 8, 12, 16),
    "tuning": {
        "variant": ("remember",) * 3,
        "num_pairs": (4, 4, 8),
        "key_size": (1, 2, 2),
        "key_symbols": (16, 4, 4),
        "random_symbols": (False,) * 3,
        "max_steps": (600, 300, 100),
        "target": (0.98, 0.98, 1.1),
    },
}
REWRITE: dict[str, Any] = {
    "task": "ar_rewrite",
    "lengths": (25, 50, 100, 200, 300, 400, 500),
    "paper_lengths": (10, 20, 50, 100, 200, 300, 400, 500, 1000, 5000),
    "tiny_lengths": (1, 3),
    "common": {"curriculum": {"max_steps": (1500, 300, 300, 500)}},
    "tuning_lengths": (12, 60, 250, 500),
    "tuning": {
        "variant": ("remember", "remember", "rewrite"),
        "num_pairs": (4, 12, 12),
        "key_size": (1,) * 3,
        "key_symbols": (16,) * 3,
        "random_symbols": (False, False, True),
        "max_steps": (600, 200, 200),
        "target": (0.98, 0.99, 1.1),
    },
}


def sweep(
    figure: str,
    variant: str,
    kind: dict[str, Any],
    models: tuple[str, ...],
    more: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A figure's sweep, as ``experiments.sweep`` takes it once it is a ``ConfigDict``.

    Args:
      figure: its name.
      variant: ``default``; ``all``: with ``more`` models; ``paper``; ``tiny``.
      kind: ``REMEMBER`` or ``REWRITE``.
      models, more: names in ``models.MODELS``.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"--config variant = {variant!r}: must be one of {', '.join(VARIANTS)}")
    tiny, paper = variant == "tiny", variant == "paper"
    task = kind["task"]
    named = models if variant in ("default", "tiny") else (*models, *more)
    if paper:  # whose texts are longer than what full attention is to hold
        named = tuple(name for name in named if name != "transformer")
    values: dict[str, Any] = {
        "figure": figure,
        "pool": task,
        "base": f"configs/{task}.py",
        "results": "results",
        "runs": "runs/figures",
        "lengths": kind["lengths"],
        "seeds": (0, 1, 2),
        "common": kind["common"],
        "models": chosen(named, tiny=tiny),
        "rates": RATES,
        "tuning": {
            "seed": TUNING_SEED,
            "lengths": kind["tuning_lengths"],
            "settings": {
                "curriculum": kind["tuning"],
                "task": {"num_pairs": kind["tuning_lengths"][-1]},
            },
        },
    }
    if paper:
        values |= {"base": f"configs/{task}.py:paper", "lengths": kind["paper_lengths"]}
        values |= {"rates": PAPER_RATE, "tuning": None, "common": {}}
        values |= {"results": "results/paper", "runs": "runs/figures_paper"}
    if tiny:
        values |= {"base": f"configs/{task}.py:tiny", "lengths": kind["tiny_lengths"]}
        values |= {"seeds": (0,), "common": {}, "results": "runs/figures_tiny/results"}
        values |= {"runs": "runs/figures_tiny"}
        values["rates"] = {name: RATES[name] for name in ("muon_5e-3", "adamw_3e-3")}
        short = {"curriculum": {"max_steps": (8, 8)}}
        values["tuning"] = {"seed": TUNING_SEED, "lengths": (1,), "settings": short}
    # The longest length is always evaluated; it must be one of the figure's.
    values["common"] = {**values["common"], "task": {"num_pairs": values["lengths"][-1]}}
    return values
