"""Train and evaluate one experiment.

    python -m experiments.main --config=configs/NAME.py[:VARIANT] [--workdir=FOLDER]

Every field of the configuration can be replaced: ``--config.train.batch_size=32``.
The same command again goes on where the last one stopped. On a cluster, or with --coordinator,
--num_processes and --process_id, several processes train together (README.md, "Many hosts").
"""

from __future__ import annotations

from experiments import huge_pages

if __name__ == "__main__":
    huge_pages.restart_with_them()  # before anything large is imported, which would be in vain

import dataclasses
import sys

from absl import flags
from ml_collections import config_flags

from armt_jax.config import ConfigError, from_config_dict
from experiments import errors, launch_flags
from experiments.command_line import parse_flags
from experiments.shared_flags import WORKDIR
from experiments.train import train_and_evaluate

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Experiment: a file of configs/, with :VARIANT after it if wanted.",
    lock_config=True,
)
flags.declare_key_flag("workdir")  # named by --help


def main(argv: list[str]) -> None:
    """Parse the flags and run the experiment."""
    parse_flags(argv)
    if _CONFIG.value is None:
        raise ConfigError("--config is missing: must name a file such as configs/ar_remember.py")
    config = from_config_dict(_CONFIG.value)
    if WORKDIR.value is not None:
        config = dataclasses.replace(config, workdir=WORKDIR.value)
    launch_flags.join(config.mesh)
    train_and_evaluate(config)


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
