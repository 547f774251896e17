"""What this machine can do, measured beside every benchmark: sgemm peak, peak memory.

python -m benchmarks.machine --json
"""

from __future__ import annotations

import json
import platform
import resource
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from armt_jax.sharding import available_cores, batched, data_mesh


def sgemm_flops_per_second(size: int = 2048, repeats: int = 5) -> float:
    """Best rate of float32 matrix products of ``size``, one on every device at once, in FLOP/s."""
    count = jax.device_count()
    everywhere = batched(data_mesh(jax.device_count()))
    a = jax.random.normal(jax.random.key(0), (count, size, size), jnp.float32)
    a = jax.device_put(a, everywhere)
    product = jax.jit(lambda a: a @ a, out_shardings=everywhere)
    product(a).block_until_ready()
    best = min(_seconds(lambda: product(a).block_until_ready()) for _ in range(repeats))
    return 2.0 * size**3 * count / best


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_memory_bytes() -> int:
    """The accelerator's peak where it keeps one, else the largest resident size of this process."""
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS.
    return peak if platform.system() == "Darwin" else peak * 1024


def description() -> dict[str, Any]:
    """The device and versions a figure belongs to."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cores": available_cores(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def show_cpu_devices(count: int) -> None:
    """Let JAX see a CPU as ``count`` devices; call it before anything asks for devices.

    They share one pool of threads (unlike ``use_cpu_cores``), so that a program on one of them has
    all cores, as it has without the others. An accelerator is left as it is.
    """
    jax.config.update("jax_num_cpu_devices", count)


def print_result(result: dict[str, Any], rate: str, json_only: bool) -> None:
    """The JSON line that ends a benchmark; before it one for people, from ``rate`` on."""
    if not json_only:
        print(
            f"{rate}, {result['peak_memory_bytes'] / 2**30:.2f} GiB peak, "
            f"{100 * result['sgemm_share']:.0f} % of the machine's sgemm"
        )
    print(json.dumps(result))


def main(argv: list[str]) -> None:
    """Print the machine and its matrix rate; JSON, with or without ``--json``."""
    del argv
    rate = sgemm_flops_per_second()
    result = {"benchmark": "machine", **description(), "sgemm_flops_per_second": rate}
    print(json.dumps({**result, "peak_memory_bytes": peak_memory_bytes()}))


if __name__ == "__main__":
    # Here and not above: other benchmarks, which import this, define it too.
    flags.DEFINE_bool("json", False, "print only the JSON line")
    app.run(main)
