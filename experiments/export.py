"""Write a run's parameters, settings and tokenizer into a folder without Orbax and moments.

    python -m experiments.export --workdir=runs/babilong_qa1 --step=best --out=babilong_qa1

The run is one of BABILong or of language modelling. ``experiments.ask --checkpoint=babilong_qa1``,
``generate``, ``inspect`` and ``evaluate`` read what is written, and trainings start from it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from armt_jax.config import ConfigError
from armt_jax.reading import save_checkpoint
from armt_jax.training.state import count_parameters
from experiments import errors
from experiments.command_line import parse_flags
from experiments.reading_flags import checkpoint_step
from experiments.shared_flags import OUT, WORKDIR


def main(argv: list[str]) -> None:
    """Parse the flags and write."""
    parse_flags(argv)
    if not WORKDIR.value or not OUT.value:
        raise ConfigError("--workdir and --out: must name the folder of a run and a new one")
    written = save_checkpoint(OUT.value, WORKDIR.value, step=checkpoint_step())
    size = sum(file.stat().st_size for file in Path(OUT.value).iterdir())
    print(
        f"{OUT.value}: {written.describe()}, {count_parameters(written.params):,} parameters, "
        f"{size:,} bytes"
    )


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
