"""Language modelling: loss per segment position, with its control, as JSON, table and figure."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from armt_jax.config import LanguageModellingExperiment
from armt_jax.evaluation.language_modelling_results import SegmentLossRow, write_rows
from armt_jax.evaluation.memory_writes import memory_writes
from armt_jax.evaluation.results import git_commit
from armt_jax.evaluation.segment_loss_figure import segment_loss_figure
from armt_jax.evaluation.segment_losses import (
    LossReader,
    SegmentSums,
    bits_per_byte,
    document_interval,
    gain,
    loss_per_token,
    per_position,
)
from armt_jax.models import ARMT, create_model
from armt_jax.models.protocol import Params, SegmentModel
from armt_jax.models.state_size import state_size
from armt_jax.processes import is_main, process_count
from armt_jax.tasks.language_modelling import setup
from armt_jax.tasks.language_modelling.contexts import Contexts
from armt_jax.training.loop import TrainResult
from armt_jax.training.state import count_parameters
from benchmarks.flops import flops_per_token
from experiments.retrieval_report import model_name

FOLDER = "evaluation"
FILE_NAME = "language_modelling.json"
SPLIT = "test"
_WRITES_OF = 32  # contexts whose writes are looked at


def after_training(config: LanguageModellingExperiment, folder: Path, result: TrainResult) -> None:
    """Evaluate on the test split, and end with one line.

    Of several processes each has but a part of the parameters: these are evaluated afterwards.
    """
    if process_count() > 1:
        if is_main():
            print(
                f"{config.name}: trained; one process evaluates it: python -m experiments.evaluate "
                f"--workdir={folder}",
                flush=True,
            )
        return
    rows = evaluate(config, result.state.params, result.position.step, folder)
    row = rows[-1] if config.task.memory == "reset" else rows[0]
    saved = "" if row.gain is None else f" gain={row.gain:.4f}"
    print(
        f"{config.name}: loss={row.mean_loss:.4f} bits_per_byte={row.mean_bits_per_byte:.4f}"
        f"{saved} segments={row.first_segment}-{len(row.losses)} "
        f"train_seconds={result.seconds:.0f}",
        flush=True,
    )


def evaluate(
    config: LanguageModellingExperiment, params: Params, step: int, folder: Path
) -> list[SegmentLossRow]:
    """A row with the memory kept, and one with it reset in front of every segment.

    Prints a table, and writes JSON and a figure into the ``evaluation`` folder of ``folder``.
    """
    task, evaluation = config.task, config.evaluation
    tokenizer = setup.tokenizer(task, config.model.vocab_size, folder)
    documents = setup.token_documents(task, SPLIT, tokenizer)
    contexts = Contexts(documents, evaluation.num_segments, task.segment_size)
    model = create_model(config.model)
    reader = LossReader(
        model, params, contexts, tokenizer.token_bytes(), evaluation.batch_size, evaluation.samples
    )
    kept, reset = reader.kept(), reader.reset()
    first, last = evaluation.first_segment, evaluation.num_segments
    horizons = {
        str(count): loss_per_token(reader.horizon(count, first)) for count in evaluation.horizons
    }
    about = {
        "dataset": task.dataset,
        "split": SPLIT,
        "model": model_name(config),
        "rule": config.model.memory_rule,
        "family": config.model.family,
        "num_params": count_parameters(params),
        "state_size": state_size(model),
        "vocab_size": config.model.vocab_size,
        "segment_size": task.segment_size,
        "trained_segments": config.trained_segments,
        "trained_memory": task.memory,
        "first_segment": first,
        "seed": config.seed,
        "step": step,
        "commit": git_commit(),
        "flops_per_token": flops_per_token(
            config.model,
            config.trained_segments,
            task.segment_size,
            predicted=True,
        ),
    }
    saved = gain(kept.part(first, last), reset.part(first, last))
    band = document_interval(gain, kept.part(first, last), reset.part(first, last))
    gains = {"gain": saved, "gain_low": band.low, "gain_high": band.high}
    none = dict.fromkeys(gains)
    writes = _writes(model, params, contexts)
    rows = [
        _row(kept, memory="kept", horizons=horizons, writes=writes, **gains, **about),
        _row(reset, memory="reset", horizons={}, writes=None, **none, **about),
    ]
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    write_rows(folder / FOLDER / FILE_NAME, rows)
    segment_loss_figure(folder / FOLDER / "segment_losses.png", rows)
    _print(rows, f"{config.name}, step {step:,}")
    return rows


def _writes(
    model: SegmentModel, params: Params, contexts: Contexts
) -> dict[str, list[float]] | None:
    """``memory_writes`` of contexts all over the split, where the model has such."""
    if not isinstance(model, ARMT):
        return None
    places = np.linspace(0, len(contexts) - 1, min(_WRITES_OF, len(contexts))).round().astype(int)
    batch = contexts.batch([int(place) for place in places])
    found = jax.jit(memory_writes, static_argnums=0)(
        model, params, batch.context, batch.context_mask
    )
    return {name: np.asarray(leaf).tolist() for name, leaf in found._asdict().items()}


def _row(sums: SegmentSums, first_segment: int, **about: object) -> SegmentLossRow:
    part = sums.part(first_segment, sums.nats.shape[1])
    loss, bits = (document_interval(value, part) for value in (loss_per_token, bits_per_byte))
    return SegmentLossRow(
        losses=per_position(loss_per_token, sums),
        bits_per_byte=per_position(bits_per_byte, sums),
        tokens=[int(count) for count in sums.tokens.sum(0)],
        first_segment=first_segment,
        mean_loss=loss_per_token(part),
        mean_loss_low=loss.low,
        mean_loss_high=loss.high,
        mean_bits_per_byte=bits_per_byte(part),
        mean_bits_per_byte_low=bits.low,
        mean_bits_per_byte_high=bits.high,
        documents=len(set(sums.document.tolist())),
        contexts=sums.document.size,
        **about,  # pyright: ignore[reportArgumentType]
    )


def _print(rows: list[SegmentLossRow], title: str) -> None:
    kept, reset = rows
    table = Table(title=title)
    for header in ("segment", "nats/token", "memory reset", "bits/byte", "memory reset"):
        table.add_column(header, justify="right")
    columns = zip(kept.losses, reset.losses, kept.bits_per_byte, reset.bits_per_byte, strict=True)
    for number, values in enumerate(columns, start=1):
        table.add_row(str(number), *(f"{value:.4f}" for value in values))
    means = (kept.mean_loss, reset.mean_loss, kept.mean_bits_per_byte, reset.mean_bits_per_byte)
    span = f"{kept.first_segment} to {len(kept.losses)}"
    table.add_row(span, *(f"{value:.4f}" for value in means))
    console = Console()
    console.print(table)
    for count, loss in kept.horizons.items():
        console.print(f"memory of the last {count} segments only: {loss:.4f}", highlight=False)
    for name, values in (kept.writes or {}).items():
        layers = ", ".join(f"{value:.3f}" for value in values)
        console.print(f"writes, {name}, by layer: {layers}", highlight=False)
    console.print(
        f"the memory saves {100 * (kept.gain or 0):.2f} % "
        f"[{100 * (kept.gain_low or 0):.2f}, {100 * (kept.gain_high or 0):.2f}]",
        highlight=False,
        markup=False,
    )
