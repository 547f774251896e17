r"""How many stored facts a run's memory loses while it reads noise.

    python -m experiments.babilong_retention --workdir=runs/babilong_qa1 \
        --noise_after=100,1000,10000,100000 --stories=30

Stories of the official test questions, told in the first segments; then noise of unseen books and
nothing else. After each number of noise segments everything that the stories answer is asked again.
Prints a table of facts known and kept, with the loss per segment, and writes ``retention.json``
into the ``evaluation`` folder of the run. A measurement that was stopped goes on with the same
command.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from armt_jax.config import BabilongExperiment
from armt_jax.evaluation.retention import Retained, make_stories, measure_retention
from armt_jax.models import create_model
from armt_jax.streaming import fast_reader
from armt_jax.tasks.babilong import setup
from armt_jax.tasks.babilong.questions import evaluation_questions
from experiments import errors
from experiments.babilong_report import FOLDER
from experiments.command_line import numbers, parse_flags
from experiments.measurements import print_table, write_measurement
from experiments.reading_bar import ReadingBar
from experiments.restoring import babilong_model

SCHEMA = ("armt_jax.retention", 2)
FILE_NAME = "retention.json"
# Wrong answers that are printed; the file has all of them.
_LISTED = 10

for _name in ("workdir", "step", "checkpoint", "out"):  # named by --help
    flags.declare_key_flag(_name)

_SEGMENTS = flags.DEFINE_string("noise_after", "100,1000,10000", "Noise segments, ascending.")
_CONTEXTS = flags.DEFINE_integer("stories", 30, "Stories, read side by side.", lower_bound=1)
_STORY = flags.DEFINE_integer("story_segments", 16, "Segments of a story.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Parse the flags, measure and report."""
    parse_flags(argv)
    segments = numbers("noise_after", _SEGMENTS.value)
    config, params, step = babilong_model()
    rows = _measure(config, params, step, segments)
    content = {
        "segment_size": config.task.segment_size,
        "segment_overlap": config.task.segment_overlap,
        "contexts": _CONTEXTS.value,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    write_measurement(config, step, SCHEMA, FILE_NAME, content)
    _print(rows, f"{config.name}, step {step:,}: facts kept through noise")
    for one in rows[-1].lost[:_LISTED]:
        times = "once" if len(one.contexts) == 1 else f"{len(one.contexts)} times"
        print(f"lost: {one.question} {times} {one.answer!r}")


def _measure(
    config: BabilongExperiment, params: object, step: int, segments: Sequence[int]
) -> list[Retained]:
    task, folder = config.task, Path(config.workdir) / FOLDER
    tokenizer = setup.tokenizer(task, config.model.vocab_size, Path(config.workdir))
    books = setup.tokenised_books(task, "test", tokenizer)
    questions = evaluation_questions(task.task, setup.data_folder(task))
    overlap = task.segment_overlap
    size = task.segment_size - overlap
    contexts, asked = make_stories(
        books,
        questions,
        contexts=_CONTEXTS.value,
        story_tokens=_STORY.value * size + overlap,
        noise_tokens=max(segments) * size,
    )
    folder.mkdir(parents=True, exist_ok=True)
    name = f"retention_{step}_{_CONTEXTS.value}x{_STORY.value}_{max(segments)}"
    total, rows = contexts[0].num_tokens, []
    with ReadingBar() as bar:
        for row in measure_retention(
            fast_reader(
                create_model(config.model), params, task.segment_size, segment_overlap=overlap
            ),
            tokenizer,
            contexts,
            asked,
            segments,
            folder / name,
            lambda done: bar.update(f"each of {len(contexts)} contexts", done, total),
        ):
            rows.append(row)
            bar.message(f"{row.segments:,} segments: {row.kept} of {row.known} facts kept")
    return rows


def _print(rows: Sequence[Retained], title: str) -> None:
    headers = ("noise segments", "kept", "share, % [95 % CI]", "loss per segment", "at most")
    lines = []
    for row in rows:
        share = f"{100 * row.kept / row.known:.1f}"
        rates = (row.loss_per_segment, row.loss_per_segment_high)
        lines.append(
            (
                f"{row.segments:,}",
                f"{row.kept} of {row.known}",
                f"{share} [{100 * row.kept_low:.1f}, {100 * row.kept_high:.1f}]",
                *("-" if rate is None else f"{rate:.1e}" for rate in rates),
            )
        )
    print_table(title, headers, lines)


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
