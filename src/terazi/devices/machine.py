"""This machine, by looking: processor, cores and memory it may use, memory bandwidth, GPUs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from terazi.devices.device import Accelerator, Architecture, Cpu, Device, Memory

__all__ = ["THIS_MACHINE", "available_cores", "measured_bandwidth", "memory_limit", "this_machine"]

THIS_MACHINE = "this-machine"

# What quantized kernels look for, in the words of /proc/cpuinfo (x86: flags, ARM: Features).
_INSTRUCTION_SETS = (
    "sse4_2",
    "avx",
    "f16c",
    "avx2",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "sve",
    "sve2",
    "bf16",
)
_ARCHITECTURES: dict[str, Architecture] = {
    "amd64": "x86_64",
    "x86_64": "x86_64",
    "arm64": "aarch64",
    "aarch64": "aarch64",
    "armv7l": "armv7l",
}
_MAKERS = {"0x1002": "AMD", "0x10de": "NVIDIA", "0x8086": "Intel"}  # PCI vendor ids
_RESERVE = 0.15  # of the memory, left to the system and other programs
_PROBE_BYTES = 1 << 28
_PROBE_ROUNDS = 4


@cache
def this_machine() -> Device:
    """Detect this machine. Takes about a third of a second, once per process, to measure the bandwidth."""
    total = memory_limit()
    cores = available_cores()
    architecture = _ARCHITECTURES.get(platform.machine().lower(), "unknown")
    apple = sys.platform == "darwin" and architecture == "aarch64"
    return Device(
        name=THIS_MACHINE,
        title=f"this machine ({_cpu_name()}, {cores} {'core' if cores == 1 else 'cores'})",
        description="Detected. Bandwidth is measured by reading memory with every core.",
        memory=Memory(
            total=total,
            usable=int(total * (1 - _RESERVE)),
            bandwidth=measured_bandwidth(),
            source="measured on this machine",
        ),
        cpu=Cpu(
            name=_cpu_name(),
            cores=cores,
            architecture=architecture,
            instruction_sets=_instruction_sets(),
        ),
        accelerators=_gpus(apple=apple),
        runtimes=("mlx", "llama.cpp", "onnxruntime") if apple else ("llama.cpp", "onnxruntime"),
        formats=("mlx", "gguf", "onnx") if apple else ("gguf", "onnx"),
        detected=True,
    )


def available_cores() -> int:
    """Cores this process may use: its affinity, cut by a control group's quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[1]):
        affinity = min(affinity, max(1, int(quota[0]) // int(quota[1])))
    return affinity


def memory_limit() -> int:
    """Bytes of memory this process may use: the machine's, cut by a control group's limit."""
    total = _physical_memory()
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(path)
        if text.isdigit():
            total = min(total, int(text))
    return total


@cache
def measured_bandwidth() -> int:
    """Bytes per second that all cores together read from memory; the best of a few rounds.

    A machine whose last-level cache holds the probe (a quarter of a gigabyte) shows the cache's rate.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    size = max(1 << 22, min(_PROBE_BYTES, memory_limit() // 16))
    cores = available_cores()
    parts = np.array_split(np.ones(size // 8, dtype=np.int64), cores)
    fastest = float("inf")
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(_PROBE_ROUNDS):
            start = time.perf_counter()
            list(pool.map(np.bitwise_or.reduce, parts))
            fastest = min(fastest, time.perf_counter() - start)
    return int(size / fastest)


def _physical_memory() -> int:
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return _windows_memory()


def _windows_memory() -> int:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            ("total", ctypes.c_uint64),
            ("rest", ctypes.c_uint64 * 6),
        )

    status = Status(length=ctypes.sizeof(Status))
    getattr(ctypes, "windll").kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # noqa: B009
    return int(status.total)


def _cpu_name() -> str:
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Model"} and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _instruction_sets() -> tuple[str, ...]:
    if sys.platform == "darwin":
        return ("asimd", "asimdhp", "asimddp") if platform.machine() == "arm64" else ()
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            present = set(value.split())
            return tuple(name for name in _INSTRUCTION_SETS if name in present)
    return ()


def _gpus(*, apple: bool) -> tuple[Accelerator, ...]:
    """GPUs that answer: NVIDIA's by its own tool, Apple's by the chip, others by their device files."""
    if apple:
        return (Accelerator(name="Apple GPU (Metal)", kind="gpu", runtimes=("mlx", "llama.cpp")),)
    found = []
    query = _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
    for line in query.splitlines():
        name, _, mebibytes = line.rpartition(",")
        if name and mebibytes.strip().isdigit() and int(mebibytes):
            found.append(
                Accelerator(
                    name=name.strip(),
                    kind="gpu",
                    runtimes=("llama.cpp", "onnxruntime"),
                    memory=int(mebibytes) << 20,
                )
            )
    if not found:
        nodes = sorted(Path("/dev/dri").glob("renderD*")) if Path("/dev/dri").is_dir() else []
        found = [_kernel_gpu(node) for node in nodes]
    return tuple(found)


def _kernel_gpu(node: Path) -> Accelerator:
    """A GPU that the kernel knows: its maker, and its own memory where the driver tells (AMD's does)."""
    about = f"/sys/class/drm/{node.name}/device"
    maker = _MAKERS.get(_read(f"{about}/vendor"), "")
    memory = _read(f"{about}/mem_info_vram_total")
    return Accelerator(
        name=f"{maker} GPU at {node}".lstrip(),
        kind="gpu",
        runtimes=("llama.cpp",),
        memory=int(memory) if memory.isdigit() and int(memory) else None,
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _output(*command: str) -> str:
    """What a program prints; empty when it is missing, fails or does not answer within five seconds."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
