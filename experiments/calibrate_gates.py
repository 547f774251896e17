"""How far the write gates of a BABILong checkpoint are from mistakes, and a better border.

    python -m experiments.calibrate_gates --checkpoint=checkpoints/babilong_qa1
    python -m experiments.calibrate_gates --checkpoint=checkpoints/babilong_qa1 --raise_by=8 --out=X

Reads stories with their noise, and then noise alone, all of the data that the model was trained on.
For borders of several heights it prints how many facts would be written and how many segments of
noise. With ``--raise_by`` it writes the checkpoint with that border into a new folder, where
``experiments.evaluate`` and ``babilong_retention`` say what came of it in unseen books.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from armt_jax.config import BabilongExperiment, ConfigError
from armt_jax.evaluation.gate_margins import (
    GateMargins,
    MarginRow,
    check_hard,
    fact_logits,
    raise_border,
)
from armt_jax.interop.weights import read_json
from armt_jax.models import ARMT
from armt_jax.models.protocol import Params
from armt_jax.reading import checkpoint_experiment, load_reading_model, save_changed_checkpoint
from armt_jax.reading.checkpoint_folder import CONFIG
from armt_jax.tasks.babilong.mining import mine
from armt_jax.tasks.babilong.sample import build_sample, sample_rng, tokens_of_length
from armt_jax.tasks.babilong.setup import TOKENIZER_FILE
from armt_jax.tasks.babilong.stage_data import babilong_data
from experiments import errors
from experiments.command_line import parse_flags
from experiments.shared_flags import CHECKPOINT, OUT

RAISED = "gates_raised_by"
# Of no other samples.
_STREAM = 2**63 + 29
_HEIGHTS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0)

for _name in ("checkpoint", "out"):  # named by --help
    flags.declare_key_flag(_name)

_RAISE = flags.DEFINE_float("raise_by", None, "Write --out, with gates that open so much later.")
_NOISE = flags.DEFINE_integer("noise_segments", 100_000, "Segments of noise to read.", 1)
_STORIES = flags.DEFINE_integer("fact_contexts", 200, "Contexts with facts to read.", 1)
_LENGTH = flags.DEFINE_string("length", "1k", "Tokens of such a context.")


def main(argv: list[str]) -> None:
    """Parse the flags; measure, or write."""
    parse_flags(argv)
    checkpoint = CHECKPOINT.value
    if checkpoint is None:
        raise ConfigError("--checkpoint: must name a folder that experiments.export wrote")
    if (_RAISE.value is None) != (OUT.value is None):
        raise ConfigError("--raise_by and --out: go together, how much and the folder to write")
    reading = load_reading_model(checkpoint)
    model = reading.model
    if not isinstance(model, ARMT):
        raise ConfigError(
            f"model.family = {model.config.family!r}: must be 'armt', which has gates"
        )
    check_hard(model)
    if _RAISE.value is not None:
        _write(checkpoint, model, reading.params, _RAISE.value)
        return
    margins = _measure(checkpoint, model, reading.params)
    _print([margins.row(model, height) for height in _HEIGHTS], reading.describe())
    lowest = ", ".join(f"{value:.1f}" for value in np.sort(margins.facts)[:5])
    highest = ", ".join(f"{value:.1f}" for value in margins.noise[:5])
    print(f"lowest logits of {margins.facts.size:,} facts: {lowest}; highest of noise: {highest}")


def _write(checkpoint: str, model: ARMT, params: Params, by: float) -> None:
    """The checkpoint with another border; several changes add up."""
    total = read_json(Path(checkpoint) / CONFIG).get(RAISED, 0.0) + by
    raised = raise_border(model, params, by)
    written = save_changed_checkpoint(OUT.value or "", checkpoint, raised, {RAISED: total})
    print(f"{OUT.value}: {written.describe()}, gates open {total:g} later than trained")


def _measure(checkpoint: str, model: ARMT, params: Params) -> GateMargins:
    """Of the last stage's data: stories and books of the training."""
    with tempfile.TemporaryDirectory() as folder:
        config = checkpoint_experiment(checkpoint, folder)
        if not isinstance(config, BabilongExperiment):
            raise ConfigError(
                f"--checkpoint = {checkpoint!r}: must be of a run of BABILong, not {config.name}"
            )
        tokenizer = (Path(checkpoint) / TOKENIZER_FILE).read_bytes()
        (Path(folder) / TOKENIZER_FILE).write_bytes(tokenizer)
        maker = babilong_data(config)[-1].maker
    tokens = tokens_of_length(_LENGTH.value)
    if tokens < config.task.segment_size:
        least = config.task.segment_size
        raise ConfigError(f"--length = {_LENGTH.value!r}: must be a segment of {least} or more")
    samples = []
    for index in range(_STORIES.value):
        rng = sample_rng(_STREAM, index)
        question = maker.questions.question(int(rng.integers(maker.questions.num_questions)))
        samples.append(build_sample(maker.books, question, tokens, rng))
    facts = fact_logits(
        model, params, samples, config.task.segment_size, config.task.segment_overlap
    )
    mined = mine(model, params, maker, _NOISE.value, _STREAM)
    return GateMargins(facts, mined.logits, _NOISE.value)


def _print(rows: Sequence[MarginRow], title: str) -> None:
    table = Table(title=f"{title}: gates that open later")
    for header in ("later by", "facts written, %", "wholly, %", "noise written", "a segment"):
        table.add_column(header, justify="right")
    for row in rows:
        table.add_row(
            f"{row.raised:g}",
            f"{100 * row.written:.1f}",
            f"{100 * row.whole:.1f}",
            f"{row.opened:,} of {row.searched:,}",
            f"{row.opened / row.searched:.1e}",
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
