"""Flags that several commands on BABILong have; a process can define each but once."""

from __future__ import annotations

from absl import flags

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
LENGTHS = flags.DEFINE_string("lengths", None, "Tokens of a context, as 4k,64k,1M.")
SAMPLES = flags.DEFINE_integer("samples", None, "Contexts of each task and length.")
OUT = flags.DEFINE_string("out", None, "Where to write to, instead of the command's own place.")
