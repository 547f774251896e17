r"""What a BABILong run's memory writes: gates on segments with facts, and on those without.

    python -m experiments.babilong_gates --workdir=runs/babilong_qa1 --length=64k --samples=20

Contexts of official test questions in unseen books. Prints, for every layer, how many segments of
either kind open a write gate, and the texts without a fact that opened one; writes ``gates.json``
into the ``evaluation`` folder of the run.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from rich.console import Console

from armt_jax.config import BabilongExperiment, ConfigError
from armt_jax.evaluation.gate_statistics import GateRow, gate_statistics
from armt_jax.models import ARMT, create_model
from armt_jax.recurrence.segmenting import count_overlapping
from armt_jax.tasks.babilong import setup
from armt_jax.tasks.babilong.questions import evaluation_questions
from armt_jax.tasks.babilong.sample import build_sample, sample_rng, tokens_of_length
from experiments import errors
from experiments.command_line import parse_flags
from experiments.measurements import print_table, write_measurement
from experiments.reading_bar import ReadingBar
from experiments.restoring import babilong_model
from experiments.shared_flags import SAMPLES

SCHEMA = ("armt_jax.gates", 1)
FILE_NAME = "gates.json"
# Of no other samples.
_STREAM = 2**63 + 13
_SAMPLES = 20

for _name in ("workdir", "step", "checkpoint", "out", "samples"):  # named by --help
    flags.declare_key_flag(_name)

_LENGTH = flags.DEFINE_string("length", "64k", "Tokens of a context: 4k, 64k, 1M or a number.")
_TEXTS = flags.DEFINE_integer("texts", 10, "Texts that opened a gate, shown.", lower_bound=0)


def main(argv: list[str]) -> None:
    """Parse the flags, read and report."""
    parse_flags(argv)
    config, params, step = babilong_model()
    model = create_model(config.model)
    if not isinstance(model, ARMT):
        raise ConfigError(
            f"model.family = {config.model.family!r}: must be 'armt', whose gates can be looked at"
        )
    contexts = _SAMPLES if SAMPLES.value is None else SAMPLES.value
    if contexts < 1:
        raise ConfigError(f"--samples = {contexts}: must be at least 1")
    rows, texts = _look(config, model, params, contexts)
    content = {
        "length": _LENGTH.value,
        "contexts": contexts,
        "rows": [dataclasses.asdict(row) for row in rows],
        "texts": texts,
    }
    write_measurement(config, step, SCHEMA, FILE_NAME, content)
    _print(rows, f"{config.name}, step {step:,}: what opens the write gates")
    for text in texts:
        line = f"gate {text['gate']:.2f}, layer {text['layer']}: {text['text']!r}"
        Console().print(line, highlight=False, markup=False, soft_wrap=True)


def _look(
    config: BabilongExperiment, model: ARMT, params: object, contexts: int
) -> tuple[list[GateRow], list[dict[str, object]]]:
    task, size = config.task, config.task.segment_size
    tokenizer = setup.tokenizer(task, config.model.vocab_size, Path(config.workdir))
    books = setup.tokenised_books(task, "test", tokenizer)
    questions = evaluation_questions(task.task, setup.data_folder(task))
    tokens = tokens_of_length(_LENGTH.value)
    if tokens < size:
        raise ConfigError(f"--length = {_LENGTH.value!r}: must be a segment of {size} or more")
    samples = [
        build_sample(books, question, tokens, sample_rng(_STREAM, index))
        for index, question in zip(range(contexts), questions, strict=False)
    ]
    with ReadingBar("segments") as bar:
        overlap = task.segment_overlap
        total = count_overlapping(tokens, size, overlap)
        rows, opened = gate_statistics(
            model, params, samples, size, _TEXTS.value,
            lambda done: bar.update(f"{contexts} contexts", done, total), overlap,
        )  # fmt: skip
    texts: list[dict[str, object]] = [
        {"gate": one.gate, "layer": one.layer, "text": tokenizer.decode(one.tokens)}
        for one in opened
    ]
    return rows, texts


def _print(rows: Sequence[GateRow], title: str) -> None:
    headers = ("layer", "segments", "number", "a gate open, %", "mean gate", "gamma", "|A|")
    lines = (
        (
            str(row.layer),
            row.kind,
            f"{row.segments:,}",
            f"{100 * row.opened / row.segments if row.segments else 0.0:.4g}",
            f"{row.gate:.2e}",
            "-" if row.gamma is None else f"{row.gamma:.2e}",
            f"{row.size:.3g}",
        )
        for row in rows
    )
    print_table(title, headers, lines)


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
