"""Speed of the block kernels beside ggml's reference: ``python benchmarks/quantize.py [TYPE ...]``.

One thread, CPU time, the fastest of several rounds; the reference and every instruction set take turns inside
one run, on the same data, into arrays that exist already. "copy" is NumPy copying as many float32 weights.
Decoding makes 1 MB, which stays in a core's cache: beyond that, everything waits for memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import ggml
from terazi import _native
from terazi.dtypes import TYPES, DType, dtype

COLUMNS = 4096
WEIGHTS = 1 << 21  # a quarter of it for the slow types
CACHED = 1 << 18  # weights to decode
ENCODED = [kind.name for kind in TYPES.values() if kind.importance != "none" and kind.name != "F32"]
ROUNDS = 5
TURN_SECONDS = 0.05  # what one timed turn should at least take


def best_speeds(jobs: dict[str, Callable[[], object]], weights: int) -> dict[str, float]:
    """Million weights per CPU second of each job, the fastest of `ROUNDS` turns."""
    best = dict.fromkeys(jobs, float("inf"))
    repeats = {}
    for name, job in jobs.items():  # also warms caches and tables up
        start = time.thread_time()
        job()
        repeats[name] = max(1, round(TURN_SECONDS / max(time.thread_time() - start, 1e-6)))
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            start = time.thread_time()
            for _ in range(repeats[name]):
                job()
            best[name] = min(best[name], (time.thread_time() - start) / repeats[name])
    return {name: weights / seconds / 1e6 for name, seconds in best.items()}


def aligned_floats(rows: int) -> np.ndarray:
    """float32[rows, COLUMNS] from the start of a cache line, so that luck does not decide."""
    spare = np.empty(rows * COLUMNS + 16, np.float32)
    start = -spare.ctypes.data % 64 // 4
    return spare[start : start + rows * COLUMNS].reshape(rows, COLUMNS)


def with_set(name: str, call: Callable[[], object]) -> Callable[[], object]:
    def job() -> None:
        _native.use_instruction_set(name)
        call()

    return job


def measure(kind: DType, sets: list[str], weighted: bool) -> dict[str, dict[str, float]]:
    """Speeds of encoding and decoding one type, by who does it."""
    rng = np.random.default_rng(7)
    rows = max(16, WEIGHTS // COLUMNS // (4 if kind.block_size == 256 else 1))
    x = (rng.standard_normal((rows, COLUMNS)) * 0.02).astype(np.float32)
    importance = (rng.standard_normal(COLUMNS) ** 2).astype(np.float32) if weighted else None
    q = np.empty((rows, kind.row_bytes(COLUMNS)), np.uint8)
    back = aligned_floats(rows)
    ggml.prepare(kind.id)
    encode = {"copy": lambda: np.copyto(back, x), "ggml": lambda: ggml.quantize(kind.id, x, importance, q)}
    for name in sets:
        encode[name] = with_set(name, lambda: _native.quantize(kind.id, x, importance, 1, q))
    speeds = {"quantize": best_speeds(encode, x.size)}
    few = CACHED // COLUMNS
    x, q, back = x[:few], q[:few], back[:few]
    decode = {"copy": lambda: np.copyto(back, x), "ggml": lambda: ggml.dequantize(kind.id, q, COLUMNS, back)}
    for name in sets:
        decode[name] = with_set(name, lambda: _native.dequantize(kind.id, q, COLUMNS, 1, back))
    speeds["dequantize"] = best_speeds(decode, x.size)
    return speeds


def row(name: str, speeds: dict[str, float], sets: list[str]) -> str:
    cells = [f"{speeds['copy']:.0f}", f"{speeds['ggml']:.1f}"]
    cells += [f"{speeds[s]:.1f} ({speeds[s] / speeds['ggml']:.1f}x)" for s in sets]
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("types", nargs="*", help="only these types")
    parser.add_argument("--sets", nargs="*", default=_native.instruction_sets(), help="instruction sets")
    parser.add_argument("--without-importance", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    chosen = [dtype(name) for name in options.types or ENCODED]
    results = {kind.name: measure(kind, options.sets, not options.without_importance) for kind in chosen}
    print(f"{cpu()}, one thread, million weights per second (times ggml), rows of {COLUMNS}")
    print("importance: " + ("no" if options.without_importance else "given"))
    for direction in ("quantize", "dequantize"):
        print(f"\n| {direction} | copy | ggml | " + " | ".join(options.sets) + " |")
        print("|---" * (3 + len(options.sets)) + "|")
        for name, speeds in results.items():
            print(row(name, speeds[direction], options.sets))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def cpu() -> str:
    """What the operating system calls this CPU."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
