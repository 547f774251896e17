"""This library beside the same model in PyTorch, in one process and in turns.

    pip install torch transformers
    python -m benchmarks.against_torch                         # every case, one after another
    python -m benchmarks.against_torch --case=read_gpt2_small --json

The reference (``benchmarks.torch_model``) is what one would run without this library: Hugging
Face's model called once a segment with its blocks wrapped, logits of every token computed and kept.
``PyTorch, last logits only`` is the same with one position's logits a segment. Both sides have the
same parameters and texts, and before anything is timed they are compared: the memory after the
text, or the loss and every gradient. ``read`` feeds a text in blocks of ``--block`` segments, each
going on from the memory of the one before; ``train`` is a step with AdamW.

The last line is one JSON object with a row for each program: ``seconds`` (median of the rounds),
``against_first`` (median over rounds of the ratio to PyTorch in the same round), ``difference``.
"""

from __future__ import annotations

from experiments import huge_pages

if __name__ == "__main__":
    huge_pages.restart_with_them()  # as a training does, before anything large is imported

import json
import sys

from absl import app, flags

from armt_jax.config import ConfigError
from armt_jax.sharding import use_cpu_cores
from benchmarks.report import tables
from benchmarks.torch_comparison import CASES, measure

_CASE = flags.DEFINE_string("case", "", f"one of {', '.join(CASES)}; empty: all")
_BLOCK = flags.DEFINE_integer("block", 8, "segments that a turn of reading reads", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "how often all take their turn", lower_bound=1)
_JSON = flags.DEFINE_bool("json", False, "print only the JSON line")


def main(argv: list[str]) -> None:
    """Measure one case, or all of them in this process."""
    del argv
    use_cpu_cores()
    names = [_CASE.value] if _CASE.value else list(CASES)
    results = []
    for name in names:
        try:
            results.append(measure(name, _BLOCK.value, _ROUNDS.value))
        except ConfigError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            sys.exit(2)
        if not _JSON.value:
            row = {"label": name, "status": "ok", "error": None, "result": results[-1]}
            print(tables([row]), flush=True)
    print(
        json.dumps(results[0] if _CASE.value else {"benchmark": "against_torch", "cases": results})
    )


if __name__ == "__main__":
    app.run(main)
