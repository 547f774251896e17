"""How far the write gates of a BABILong checkpoint are from mistakes, and a better border.

    python -m experiments.calibrate_gates --checkpoint=checkpoints/babilong_qa1
    python -m experiments.calibrate_gates --checkpoint=FOLDER --raise_by=4 --save=NEW_FOLDER

Reads stories with their noise, and then noise alone, all of the data that the model was trained on.
For borders of several heights it prints how many facts would be written and how many segments of
noise, and writes ``gate_margins.json`` into the ``evaluation`` folder of the run. With
``--raise_by`` it writes the checkpoint with that border into a new folder, of which
``experiments.evaluate`` and ``babilong_retention`` say what came of it in unseen books.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from armt_jax.config import BabilongExperiment, ConfigError
from armt_jax.evaluation.gate_margins import (
    GateMargins,
    MarginRow,
    check_hard,
    fact_logits,
    raise_border,
)
from armt_jax.interop.weights import read_json
from armt_jax.models import ARMT, create_model
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.reading import load_reading_model, save_changed_checkpoint
from armt_jax.reading.checkpoint_folder import CONFIG
from armt_jax.tasks.babilong.mining import read_noise
from armt_jax.tasks.babilong.sample import build_sample, sample_rng, tokens_of_length
from armt_jax.tasks.babilong.stage_data import babilong_data
from experiments import errors
from experiments.command_line import parse_flags
from experiments.measurements import print_table, write_measurement
from experiments.reading_bar import ReadingBar
from experiments.restoring import babilong_model
from experiments.shared_flags import CHECKPOINT

SCHEMA = ("armt_jax.gate_margins", 1)
FILE_NAME = "gate_margins.json"
RAISED = "gates_raised_by"
# Of no other samples: the facts', and that with one more the noise's.
_STREAM = 2**63 + 29
_HEIGHTS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0)
_LISTED = 100

for _name in ("workdir", "step", "checkpoint", "out"):  # named by --help
    flags.declare_key_flag(_name)

_RAISE = flags.DEFINE_float("raise_by", None, "Write --save, with gates that open so much later.")
_SAVE = flags.DEFINE_string("save", None, "New folder for the checkpoint with other gates.")
_NOISE = flags.DEFINE_integer(
    "searched_segments", 100_000, "Segments of noise, rounded up to a multiple of 1,024.", 1
)
_STORIES = flags.DEFINE_integer("fact_contexts", 200, "Contexts with facts to read.", 1)
_LENGTH = flags.DEFINE_string("context_length", "1k", "Tokens of such a context.")


def main(argv: list[str]) -> None:
    """Parse the flags; measure, or write."""
    parse_flags(argv)
    if (_RAISE.value is None) != (_SAVE.value is None):
        raise ConfigError("--raise_by and --save: go together, how much and the folder to write")
    if _RAISE.value is not None:
        _write(_RAISE.value, _SAVE.value or "")
        return
    config, params, step = babilong_model()
    model = _with_hard_gates(create_model(config.model))
    margins = _measure(config, model, params)
    rows = [margins.row(model, height) for height in _HEIGHTS]
    facts, noise = np.sort(margins.facts), -np.sort(-margins.noise)[:_LISTED]
    content = {
        "rows": [row._asdict() for row in rows],
        "facts": facts.tolist(),
        "noise": noise.tolist(),
    }
    write_measurement(config, step, SCHEMA, FILE_NAME, content)
    _print(rows, f"{config.name}, step {step:,}: gates that open later")
    lowest, highest = (", ".join(f"{one:.1f}" for one in some[:5]) for some in (facts, noise))
    print(f"lowest logits of {facts.size:,} facts: {lowest}; highest of noise: {highest}")


def _with_hard_gates(model: SegmentModel) -> ARMT:
    if not isinstance(model, ARMT):
        raise ConfigError(
            f"model.family = {model.config.family!r}: must be 'armt', which has gates"
        )
    check_hard(model)
    return model


def _write(by: float, folder: str) -> None:
    """The checkpoint with another border; several changes add up."""
    checkpoint = CHECKPOINT.value
    if checkpoint is None:
        raise ConfigError("--checkpoint: must name a folder that experiments.export wrote")
    reading = load_reading_model(checkpoint)
    raised = raise_border(_with_hard_gates(reading.model), reading.params, by)
    about = Path(checkpoint) / CONFIG
    total = by + (read_json(about).get(RAISED, 0.0) if about.is_file() else 0.0)
    written = save_changed_checkpoint(folder, checkpoint, raised, {RAISED: total})
    print(f"{folder}: {written.describe()}, gates open {total:g} later than trained")


def _measure(config: BabilongExperiment, model: ARMT, params: Params) -> GateMargins:
    """Of the last stage's data: stories and books of the training."""
    size, tokens = config.task.segment_size, tokens_of_length(_LENGTH.value)
    if tokens < size:
        raise ConfigError(
            f"--context_length = {_LENGTH.value!r}: must be a segment of {size} or more"
        )
    (data,) = babilong_data(config, [config.curriculum.num_stages - 1])
    maker = data.maker
    samples = []
    for index in range(_STORIES.value):
        rng = sample_rng(_STREAM, index)
        question = maker.questions.question(int(rng.integers(maker.questions.num_questions)))
        samples.append(build_sample(maker.books, question, tokens, rng))
    facts = fact_logits(model, params, samples, size, config.task.segment_overlap)
    noise, found = [], 0
    with ReadingBar("segments") as bar:
        bar.update("noise", 0, _NOISE.value)
        for read in read_noise(model, params, maker, _NOISE.value, _STREAM + 1):
            noise.append(read.logits)
            found += read.logits.size
            bar.update("noise", min(found, _NOISE.value), _NOISE.value)
    return GateMargins(facts, np.concatenate(noise))


def _print(rows: Sequence[MarginRow], title: str) -> None:
    headers = ("later by", "facts written, %", "wholly, %", "noise written", "a segment")
    lines = (
        (
            f"{row.raised:g}",
            f"{100 * row.written:.1f}",
            f"{100 * row.whole:.1f}",
            f"{row.opened:,} of {row.searched:,}",
            f"{row.opened / row.searched:.1e}",
        )
        for row in rows
    )
    print_table(title, headers, lines)


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
