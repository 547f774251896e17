"""Flags that several commands have; a process can define each but once."""

from __future__ import annotations

from absl import flags

from armt_jax.training.checkpoints import LATEST

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Folder of experiments.export, or of a Hugging Face model."
)
STEP = flags.DEFINE_string("step", LATEST, "Checkpoint of a run: latest, best, or a step.")
LENGTHS = flags.DEFINE_string("lengths", None, "BABILong: tokens of a context, as 4k,64k,1M.")
SAMPLES = flags.DEFINE_integer("samples", None, "Contexts of each task and length.")
OUT = flags.DEFINE_string("out", None, "Where to write to, instead of the command's own place.")
