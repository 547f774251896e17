"""Tokens per second of reading a long text into the memory, and the memory it takes.

    python -m benchmarks.stream --model=gpt2_small --json
    python -m benchmarks.stream --model=small --tokens=50000000 --json

The last line is JSON: ``tokens_per_second`` (median of the timed blocks), ``peak_memory_bytes`` (of
the process, or of the accelerator), ``sgemm_share`` (of the machine's own float32 matrix rate,
measured in the same run, by the products that reading must do: no logits, causal attention, only
the memory tokens after the last layer's attention). By default the tokens of a small model's
segment are shared out over two devices (``--devices``), a CPU's cores, where there are two; GPT-2
small's products fill both cores by themselves. With ``--tokens`` the blocks are drawn as they are
read, and the peak after the first million tokens is given beside the last
(``peak_memory_bytes_at_1m``).
"""

from __future__ import annotations

import statistics
import time

import jax
import numpy as np
from absl import app, flags

from armt_jax.config import ModelConfig
from armt_jax.models import create_model
from armt_jax.sharding import context_mesh, use_cpu_cores
from armt_jax.streaming import StreamReader
from benchmarks import flops, machine
from benchmarks.sizes import READ_BEST, READERS, reader_config

_MODEL = flags.DEFINE_enum("model", "gpt2_small", list(READERS), "gpt2_small, small: 4 x 128")
_SEGMENT = flags.DEFINE_integer("segment", 512, "tokens of a segment", lower_bound=1)
_BLOCK = flags.DEFINE_integer(
    "block", None, "segments of a timed block (default: the model's)", lower_bound=1
)
_BLOCKS = flags.DEFINE_integer("blocks", 8, "timed blocks", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 1, "texts read at once", lower_bound=1)
_DEVICES = flags.DEFINE_integer(
    "devices", None, "that share a segment (default: the model's)", lower_bound=1
)
_TOKENS = flags.DEFINE_integer("tokens", 0, "length of the text, instead of --blocks")
_JSON = flags.DEFINE_bool("json", False, "print only the JSON line")


def measure(
    config: ModelConfig, segment: int, block: int, blocks: int, batch: int, devices: int
) -> dict[str, float]:
    """Rates of ``blocks`` blocks of ``block`` segments each, after one that compiles."""
    model = create_model(config)
    params = jax.jit(model.init)(jax.random.key(0))  # one program: 100 MB less than many small
    mesh = context_mesh(devices) if devices > 1 else None
    reader = StreamReader(model, params, segment_size=segment, block_segments=block, mesh=mesh)
    del params  # the reader keeps its own, with the layers apart
    rng = np.random.default_rng(0)

    def draw() -> np.ndarray:
        return rng.integers(0, config.vocab_size, (batch, block * segment))

    started = time.perf_counter()
    state = reader.feed(reader.start(batch), draw())
    state.ticket.block_until_ready()
    first = time.perf_counter() - started
    times, early_peak = [], None
    for _ in range(blocks):
        text = draw()
        started = time.perf_counter()
        state = reader.feed(state, text)
        jax.block_until_ready(state.memory)
        times.append(time.perf_counter() - started)
        if early_peak is None and state.tokens_read >= 1_000_000:
            early_peak = machine.peak_memory_bytes()
    peak_memory = machine.peak_memory_bytes()
    if not np.isfinite(np.asarray(jax.tree.leaves(state.memory)[0])).all():
        raise ValueError("the memory is not finite: this measured nothing")
    tokens, seconds = batch * block * segment, statistics.median(times)
    work = flops.context_flops(config, segment) / segment
    peak = machine.sgemm_flops_per_second()
    early = {} if early_peak is None else {"peak_memory_bytes_at_1m": early_peak}
    return {
        "tokens_per_second": tokens / seconds,
        "tokens_per_second_best": tokens / min(times),
        "tokens_per_second_worst": tokens / max(times),
        "first_block_seconds": first,
        "tokens_read": state.tokens_read,
        "reading_seconds": sum(times),
        "peak_memory_bytes": peak_memory,
        **early,
        "flops_per_token": work,
        "sgemm_flops_per_second": peak,
        "sgemm_share": work * tokens / seconds / peak,
    }


def main(argv: list[str]) -> None:
    """Measure one model and print it."""
    del argv
    use_cpu_cores()
    segments, devices = READ_BEST[_MODEL.value]
    segments = _BLOCK.value or segments
    devices = min(_DEVICES.value or devices, jax.device_count())
    config = reader_config(_MODEL.value, _SEGMENT.value)
    block = _BATCH.value * segments * _SEGMENT.value
    blocks = _BLOCKS.value if _TOKENS.value == 0 else max(1, -(-_TOKENS.value // block) - 1)
    sizes = (_SEGMENT.value, segments, blocks, _BATCH.value, devices)
    result = measure(config, *sizes)
    result = {
        "benchmark": "stream",
        "model": _MODEL.value,
        "segment": _SEGMENT.value,
        "batch": _BATCH.value,
        "context_devices": devices,
        **machine.description(),
        **result,
    }
    rate = f"{result['tokens_per_second']:,.0f} tokens/s"
    machine.print_result(result, rate, _JSON.value)


if __name__ == "__main__":
    app.run(main)
