"""Evaluate a checkpoint of a run: at any number of pairs, any number of tokens, or on its text.

    python -m experiments.evaluate --workdir=runs/ar_remember --pairs=10,50,100 [--step=best]
    python -m experiments.evaluate --config=configs/babilong.py:qa1 --lengths=4k,64k,1M,50M
    python -m experiments.evaluate --config=configs/wikitext.py
    python -m experiments.evaluate --checkpoint=checkpoints/babilong_qa1 --lengths=4k,64k,1M

The run is named by its folder, or by its configuration; ``--checkpoint`` is what
``experiments.export`` made of a run of BABILong or of language modelling (whose text is looked for
by its name in ``ARMT_DATA_DIR``). Prints a table, and writes JSON and figures into the
``evaluation`` folder of the run, for a checkpoint into a folder below ``--out`` (``runs``), which
has its name and the digest of its parameters. A BABILong evaluation that was stopped goes on where
it was with the same command.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from armt_jax.config import (
    AnyExperiment,
    BabilongExperiment,
    ConfigError,
    ExperimentConfig,
    LanguageModellingExperiment,
    RecallExperiment,
    TaskConfig,
    from_config_dict,
)
from armt_jax.evaluation.results import write_results
from armt_jax.evaluation.tables import print_table
from armt_jax.processes import is_main, process_count, together
from armt_jax.training.workdir import read_config
from experiments import (
    babilong_report,
    errors,
    language_modelling_report,
    launch_flags,
    recall_report,
    retrieval_report,
)
from experiments.command_line import numbers, parse_flags
from experiments.restoring import (
    BabilongModel,
    LanguageModel,
    exported_model,
    restore,
    which_checkpoint,
)
from experiments.shared_flags import CHECKPOINT, LENGTHS, OUT, SAMPLES, STEP, WORKDIR

for _name in ("workdir", "step", "checkpoint", "out", "lengths", "samples"):  # named by --help
    flags.declare_key_flag(_name)

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration of the run, whose workdir is looked into.", lock_config=True
)
_PAIRS = flags.DEFINE_string("pairs", None, "Numbers of pairs, such as 10,50,100.")
_VARIANT = flags.DEFINE_string("variant", None, "remember or rewrite, instead of the run's task.")
_KEY_SIZE = flags.DEFINE_integer("key_size", None, "Digits of a key, instead of the run's task.")


def main(argv: list[str]) -> None:
    """Parse the flags, evaluate and report."""
    parse_flags(argv)
    if CHECKPOINT.value is None:
        _evaluate_run(_folder())
    else:
        _evaluate_checkpoint(CHECKPOINT.value)


def _evaluate_checkpoint(checkpoint: str) -> None:
    if WORKDIR.value is not None or _CONFIG.value is not None:
        raise ConfigError(f"--checkpoint = {checkpoint!r}: goes without --workdir and --config")
    launch_flags.join()
    trained = exported_model(checkpoint, OUT.value, _check_text_flags)
    if isinstance(trained, LanguageModel):
        _evaluate_language_modelling(trained)
    else:
        _evaluate_babilong(trained)


def _evaluate_run(folder: Path) -> None:
    launch_flags.join()
    with together():
        config = read_config(folder)
    if isinstance(config, ExperimentConfig):
        _evaluate_retrieval(config, folder)
    elif isinstance(config, LanguageModellingExperiment):
        _check_language_modelling_flags()
        config = dataclasses.replace(config, workdir=str(folder))
        found = restore(config, folder, which_checkpoint(folder, STEP.value))
        _evaluate_language_modelling(LanguageModel(config, found.state.params, found.step))
    elif isinstance(config, BabilongExperiment):
        _check_babilong_flags()
        # With the workdir of this command: a run may have been moved.
        config = dataclasses.replace(config, workdir=str(folder))
        found = restore(config, folder, which_checkpoint(folder, STEP.value))
        _evaluate_babilong(BabilongModel(config, found.state.params, found.step))
    else:
        _evaluate_recall(config, folder)


def _folder() -> Path:
    if OUT.value is not None:
        raise ConfigError(f"--out = {OUT.value!r}: goes with --checkpoint; a run has its folder")
    if WORKDIR.value:
        return Path(WORKDIR.value)
    if _CONFIG.value is None:
        raise ConfigError("--workdir is missing: must name the folder of a run (or --config a run)")
    return Path(from_config_dict(_CONFIG.value).workdir)


def _check_text_flags(config: AnyExperiment) -> None:
    if isinstance(config, LanguageModellingExperiment):
        _check_language_modelling_flags()
    else:
        _check_babilong_flags()


def _check_babilong_flags() -> None:
    _refuse_flags("BABILong", pairs=_PAIRS.value, variant=_VARIANT.value, key_size=_KEY_SIZE.value)
    if process_count() > 1:
        raise ConfigError("BABILong: is evaluated by one process, with all of its devices")
    if SAMPLES.value is not None and SAMPLES.value < 1:
        raise ConfigError(f"--samples = {SAMPLES.value}: must be at least 1")


def _evaluate_babilong(trained: BabilongModel) -> None:
    config, params, step = trained
    lengths = config.evaluation.lengths
    if LENGTHS.value is not None:
        lengths = tuple(part.strip() for part in LENGTHS.value.split(","))
    config = dataclasses.replace(
        config, evaluation=dataclasses.replace(config.evaluation, lengths=lengths)
    )
    samples = config.evaluation.samples if SAMPLES.value is None else SAMPLES.value
    babilong_report.evaluate_lengths(config, params, step, Path(config.workdir), lengths, samples)


def _evaluate_recall(config: RecallExperiment, folder: Path) -> None:
    """At the lengths of the run's configuration."""
    what = config.task.name
    given = {"pairs": _PAIRS.value, "lengths": LENGTHS.value, "samples": SAMPLES.value}
    _refuse_flags(what, **given, variant=_VARIANT.value, key_size=_KEY_SIZE.value)
    if process_count() > 1:
        raise ConfigError(f"{what}: is evaluated by one process, with all of its devices")
    found = restore(config, folder, which_checkpoint(folder, STEP.value))
    rows = recall_report.evaluate_lengths(config, found.state.params, found.step)
    write_results(folder / "evaluation" / "results.json", rows)
    print_table(rows, title=f"{config.name}, step {found.step:,}")


def _check_language_modelling_flags() -> None:
    given = {"pairs": _PAIRS, "variant": _VARIANT, "key_size": _KEY_SIZE, "lengths": LENGTHS}
    _refuse_flags("language modelling", **{name: flag.value for name, flag in given.items()})
    if process_count() > 1:
        raise ConfigError("language modelling: is evaluated by one process")


def _evaluate_language_modelling(trained: LanguageModel) -> None:
    config, params, step = trained
    if SAMPLES.value is not None:
        evaluation = dataclasses.replace(config.evaluation, samples=SAMPLES.value)
        config = dataclasses.replace(config, evaluation=evaluation)
    language_modelling_report.evaluate(config, params, step, Path(config.workdir))


def _refuse_flags(what: str, **values: object) -> None:
    for name, value in values.items():
        if value is not None:
            raise ConfigError(f"--{name} = {value}: is no setting of {what}")


def _evaluate_retrieval(config: ExperimentConfig, folder: Path) -> None:
    _refuse_flags("associative retrieval", lengths=LENGTHS.value)
    with together():
        task = _task(config)
        lengths = (
            config.evaluation.num_pairs if _PAIRS.value is None else numbers("pairs", _PAIRS.value)
        )
        samples = config.evaluation.samples if SAMPLES.value is None else SAMPLES.value
        if samples < 1:
            raise ConfigError(f"--samples = {samples}: must be at least 1")
        for num_pairs in lengths:
            dataclasses.replace(task, num_pairs=num_pairs)
            config.model.check_text((num_pairs + 1) * _segment_length(task))
        which = which_checkpoint(folder, STEP.value)
    found = restore(config, folder, which)
    rows = retrieval_report.evaluate_lengths(
        config, found.state.params, found.step, task, lengths, samples
    )
    trained_pairs = max(config.curriculum.num_pairs)
    with together():
        if is_main():
            retrieval_report.write_report(folder / "evaluation", rows, task.variant, trained_pairs)
            print_table(rows, title=f"{config.name}, step {found.step:,}")


def _task(config: ExperimentConfig) -> TaskConfig:
    changes: dict[str, Any] = {"num_pairs": 1}
    if _VARIANT.value is not None:
        changes["variant"] = _VARIANT.value
    if _KEY_SIZE.value is not None:
        changes["key_size"] = _KEY_SIZE.value
    task = dataclasses.replace(config.task, **changes)
    config.model.check_segment(_segment_length(task))
    return task


def _segment_length(task: TaskConfig) -> int:
    return task.key_size + task.value_size + 2


if __name__ == "__main__":
    sys.exit(errors.run(lambda: main(sys.argv)))
