"""Quantize a whole model file: Terazi and llama.cpp's own quantize, one after the other, on all cores.

    python benchmarks/quantize_file.py --library /path/to/libllama.so

Makes a random-weight Llama of 1.1 billion parameters (F16, 2.2 GB) in the temporary directory, quantizes
it to Q4_K_M with importance with both, checks that the files are equal, prints seconds and peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "golden"))

WIDTH, FEED_FORWARD, LAYERS, VOCABULARY = 2048, 5632, 22, 32000
HEADS, HEADS_KV = 32, 4
SHAPES = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (WIDTH * HEADS_KV // HEADS, WIDTH),
    "attn_v": (WIDTH * HEADS_KV // HEADS, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (FEED_FORWARD, WIDTH),
    "ffn_up": (FEED_FORWARD, WIDTH),
    "ffn_down": (WIDTH, FEED_FORWARD),
}


def write_model(path: Path) -> int:
    """Write the model; returns how many parameters it has."""
    from terazi.formats import gguf
    from terazi.model import Tensor

    pool = np.random.default_rng(1).normal(0, 0.02, 1 << 24).astype(np.float16)

    def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
        shift = sum(name.encode()) * 4099 % 65536

        def read(start: int, stop: int) -> np.ndarray:
            first = shift + start * shape[-1]
            count = (stop - start) * shape[-1]
            index = first % (len(pool) // 2)
            values = np.resize(pool[index:], count) if count > len(pool) - index else pool[index:][:count]
            return values.reshape(stop - start, -1).view(np.uint8)

        return Tensor(name=name, shape=shape, type="F16", read=read)

    tensors = [tensor("token_embd.weight", (VOCABULARY, WIDTH)), tensor("output.weight", (VOCABULARY, WIDTH))]
    for layer in range(LAYERS):
        tensors += [tensor(f"blk.{layer}.{name}.weight", shape) for name, shape in SHAPES.items()]
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": 2048,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS_KV,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }
    gguf.write(path, metadata, tensors, force=True)
    return sum(entry.size for entry in tensors)


def importance():
    from parity_models import calibration_of

    generator = np.random.default_rng(2)
    return calibration_of(
        {
            f"blk.{layer}.{name}.weight": generator.exponential(1, shape[-1]).astype(np.float32)
            for layer in range(LAYERS)
            for name, shape in SHAPES.items()
        }
    )


def run_terazi(source: Path, output: Path, preset: str, threads: int) -> None:
    from terazi.api import quantize

    quantize(source, preset, output=output, calibration=importance(), threads=threads, force=True)


def run_llama_cpp(source: Path, output: Path, preset: str, threads: int, library: str) -> None:
    from libllama import LibLlama

    from terazi.quantize import PRESETS

    values = importance()
    info = {"quantize.imatrix.file": values.path.name, "quantize.imatrix.entries_count": len(values)}
    file_type = PRESETS[preset].file_type
    LibLlama(library).quantize(source, output, file_type, importance=values, info=info, threads=threads)


def measured(who: str, arguments: argparse.Namespace, source: Path, output: Path) -> dict[str, float]:
    """Run one side in a process of its own; returns seconds, processor seconds and peak bytes."""
    command = [sys.executable, __file__, "--child", who, "--source", source, "--output", output]
    command += ["--type", arguments.type, "--threads", str(arguments.threads), "--library", arguments.library]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def child(arguments: argparse.Namespace) -> None:
    import resource

    import terazi.quantize  # noqa: F401  (what is timed is the work, not the imports)

    start = time.perf_counter()
    common = arguments.source, arguments.output, arguments.type, arguments.threads
    if arguments.child == "terazi":
        run_terazi(*common)
    else:
        run_llama_cpp(*common, arguments.library)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    report = {"wall": seconds, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss << 10}
    print(json.dumps(report))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--library", default=os.environ.get("TERAZI_LIBLLAMA"), help="a build of libllama")
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeat", type=int, default=3, help="runs of Terazi; the fastest counts")
    for name in ("child", "source", "output"):
        parser.add_argument(f"--{name}", type=Path if name != "child" else str, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments)
    if not arguments.library:
        parser.error("name a build of libllama with --library or TERAZI_LIBLLAMA")
    with tempfile.TemporaryDirectory(prefix="terazi-benchmark-") as name:
        directory = Path(name)
        source = directory / "source.gguf"
        weights = write_model(source)
        size = source.stat().st_size
        print(
            f"{weights / 1e9:.2f} B weights, F16 ({size / 1e9:.2f} GB) -> {arguments.type} with importance,"
        )
        print(f"{arguments.threads} threads, load average before {os.getloadavg()[0]:.1f}\n")
        ours = min(
            (measured("terazi", arguments, source, directory / "ours.gguf") for _ in range(arguments.repeat)),
            key=lambda run: run["wall"],
        )
        theirs = measured("llama.cpp", arguments, source, directory / "theirs.gguf")
        same = (directory / "ours.gguf").read_bytes() == (directory / "theirs.gguf").read_bytes()
    print("|           | seconds | processor seconds | million weights/s | peak MiB |")
    print("|-----------|--------:|------------------:|------------------:|---------:|")
    for who, run in (("Terazi", ours), ("llama.cpp", theirs)):
        cells = f"{run['wall']:7.1f} | {run['cpu']:17.1f} | {weights / run['wall'] / 1e6:17.1f}"
        print(f"| {who:9} | {cells} | {run['peak'] / 2**20:8.0f} |")
    print(
        f"\nratio {theirs['wall'] / ours['wall']:.1f}x by the clock, {theirs['cpu'] / ours['cpu']:.1f}x in",
        end="",
    )
    print(f" processor time; the files are {'equal' if same else 'DIFFERENT'}")
    return None


if __name__ == "__main__":
    main()
