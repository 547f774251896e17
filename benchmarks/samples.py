"""Tokens of BABILong samples made in a second, beside what a model reads.

    python -m benchmarks.samples --json
    python -m benchmarks.samples --lengths=4k,1M,50M --data_dir=data   # real books and questions

Without ``--data_dir`` (or ``ARMT_DATA_DIR``) contexts are of simulated stories among the noise that
is built in. For every length ``tokens_per_second`` is the median over samples of making one and
reading it in blocks of 65,536; ``first_tokens_per_second`` is that of the very first one, whose
book nobody has tokenised. ``training_tokens_per_second`` is that of batches of 16 segments of 64
with all their questions, later than the first ones. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from absl import app, flags

from armt_jax.config import BabilongConfig
from armt_jax.evaluation.babilong import evaluation_set
from armt_jax.tasks.babilong import setup
from armt_jax.tasks.babilong.babi import DATA_VARIABLE
from armt_jax.tasks.babilong.examples import ExampleMaker
from armt_jax.tasks.babilong.noise import TokenisedBooks
from armt_jax.tasks.babilong.questions import training_questions
from armt_jax.tasks.babilong.training_stream import babilong_stream
from armt_jax.tasks.tfds_sets import CACHE_VARIABLE
from benchmarks import machine

_LENGTHS = flags.DEFINE_list("lengths", ["4k", "64k", "1M", "10M"], "tokens of a context")
_SAMPLES = flags.DEFINE_integer("samples", 5, "contexts of each length", lower_bound=2)
_VOCABULARY = flags.DEFINE_integer("vocab_size", 1024, "of the small tokenizer", lower_bound=300)
_DATA = flags.DEFINE_string("data_dir", None, "folder of bAbI and books")
_JSON = flags.DEFINE_bool("json", False, "print only the JSON line")


def _context_rates(task: BabilongConfig, books: TokenisedBooks, length: str) -> list[float]:
    samples = evaluation_set(task, books, length, _SAMPLES.value)
    rates = []
    for index in range(len(samples)):
        started = time.perf_counter()
        sample = samples[index]
        tokens = sum(block.size for block in sample.blocks())
        rates.append(tokens / (time.perf_counter() - started))
    return rates


def _training_rate(task: BabilongConfig, books: TokenisedBooks, batches: int = 100) -> float:
    maker = ExampleMaker(
        questions=training_questions(task.task, 0),
        books=books,
        max_segments=16,
        segment_size=task.segment_size,
        num_queries=8,
        query_size=task.segment_size,
        random_segments=False,
    )
    stream = babilong_stream(maker, 0, 32)
    try:
        for _ in range(batches):
            next(stream)
        started = time.perf_counter()
        tokens = sum(next(stream).context.size for _ in range(batches))
        return tokens / (time.perf_counter() - started)
    finally:
        stream.close()


def main(argv: list[str]) -> None:
    """Measure every length and print it."""
    del argv
    real = _DATA.value or os.environ.get(DATA_VARIABLE)
    task = BabilongConfig(
        name="babilong",
        task="qa1",
        data_dir=real,
        facts="simulator",
        noise="books" if real else "built_in",
        tokenizer="small",
        segment_size=64,
    )
    tokenizer = setup.tokenizer(task, _VOCABULARY.value)
    # A cache of its own: the first reading is one of books that nobody has tokenised.
    with tempfile.TemporaryDirectory() as cache:
        os.environ[CACHE_VARIABLE] = str(Path(cache))
        cold = setup.tokenised_books(task, "test", tokenizer)
        first = _context_rates(task, cold, _LENGTHS.value[0])[0]
        rows = [
            {
                "length": length,
                "tokens_per_second": statistics.median(_context_rates(task, cold, length)),
            }
            for length in _LENGTHS.value
        ]
        rate = _training_rate(task, setup.tokenised_books(task, "train", tokenizer))
    result = {
        "benchmark": "samples",
        **machine.description(),
        "noise": task.noise,
        "samples": _SAMPLES.value,
        "rows": rows,
        "first_tokens_per_second": first,
        "training_tokens_per_second": rate,
        "peak_memory_bytes": machine.peak_memory_bytes(),
    }
    if not _JSON.value:
        for row in rows:
            print(f"{row['length']}: {row['tokens_per_second']:,.0f} tokens/s")
        print(f"the first context, tokenising a book: {first:,.0f} tokens/s")
        print(f"training batches: {rate:,.0f} tokens/s")
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
