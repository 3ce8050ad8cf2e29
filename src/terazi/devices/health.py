"""What this machine has for running and making models, what is missing, and how to get it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from terazi.devices.machine import this_machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from terazi.devices.device import ComputeDevice

__all__ = ["Check", "checks"]

_LOW_DISK = 5 * 10**9
# Package -> what it is for, the extra that installs it.
_OPTIONAL = {
    "onnxruntime": ("run and measure ONNX models", "onnx"),
    "onnxruntime-genai": ("language models as ONNX", "genai"),
    "mlx": ("run MLX models", "mlx"),
    "torch": ("export from PyTorch", "hf"),
    "transformers": ("read Hugging Face models for export", "hf"),
    "opentelemetry-sdk": ("traces of what is served", "otel"),
}
# Maker of a GPU -> the builds of xllamacpp for it: https://github.com/xorbitsai/xllamacpp#installation. The
# one on PyPI uses processors, and Apple's GPUs by Metal.
_BUILDS = {"NVIDIA": "cu128", "AMD": "rocm-6.4.1", "Intel": "vulkan"}
_INDEX = "https://xorbitsai.github.io/xllamacpp/whl/"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. ``missing`` is optional and absent, ``problem`` is needed and broken."""

    name: str
    state: Literal["ok", "missing", "problem"]
    found: str
    fix: str = ""


def checks(compute: Sequence[ComputeDevice] | None) -> list[Check]:
    """Look at everything; takes about a second.

    ``compute`` is what llama.cpp says it computes on (`terazi.runtime.llamacpp.devices`), None when it could
    not be asked.
    """
    return [_kernels(), _llama_cpp(), *_optional(), *_machine(), *_gpus(compute), _store()]


def _kernels() -> Check:
    try:
        from terazi import _native
    except ImportError as error:
        return Check("kernels", "problem", str(error), "make build, or pip install --force-reinstall terazi")
    return Check("kernels", "ok", f"compiled; uses {', '.join(_native.instruction_sets())}")


def _llama_cpp() -> Check:
    """The pinned engine: another version is a problem, because structures are read by their layout."""
    pinned = _pinned()
    wanted = pinned.partition("==")[2].split(";")[0].strip()
    found = _version("xllamacpp")
    if found is None or find_spec("xllamacpp") is None:
        return Check("llama.cpp", "problem", "not installed", f"pip install {pinned}")
    if wanted and found.partition("+")[0] != wanted:
        return Check("llama.cpp", "problem", f"xllamacpp {found}, made for {wanted}", f"pip install {pinned}")
    return Check("llama.cpp", "ok", f"xllamacpp {found}")


def _pinned() -> str:
    return next((need for need in requires("terazi") or [] if need.startswith("xllamacpp")), "xllamacpp")


def _optional() -> Iterator[Check]:
    for package, (purpose, extra) in _OPTIONAL.items():
        found = _version(package)
        if found is None:
            yield Check(package, "missing", f"optional: {purpose}", f"pip install 'terazi[{extra}]'")
        else:
            yield Check(package, "ok", f"{found}: {purpose}")


def _machine() -> Iterator[Check]:
    machine = this_machine()
    sets = ", ".join(machine.cpu.instruction_sets) or "unknown instruction sets"
    yield Check("processor", "ok", f"{machine.cpu.name}, {machine.cpu.cores} cores ({sets})")
    memory = machine.memory
    yield Check(
        "memory",
        "ok",
        f"{memory.total / 1e9:.1f} GB, {memory.usable / 1e9:.1f} GB for a model; "
        f"{memory.bandwidth / 1e9:.0f} GB/s measured",
    )


def _gpus(compute: Sequence[ComputeDevice] | None) -> Iterator[Check]:
    """GPUs that llama.cpp uses; else those that it could use with another build."""
    used = [device for device in compute or () if device.kind == "gpu"]
    for device in used:
        memory = f"{device.free / 1e9:.1f} of {device.total / 1e9:.1f} GB free"
        yield Check("GPU", "ok", f"{device.name}: {device.description}, {memory}")
    if used:
        return
    present = [entry.name for entry in this_machine().accelerators]
    if compute is None:
        yield Check("GPU", "missing", "llama.cpp cannot be asked", "see the line on llama.cpp")
    elif present:
        maker = next((maker for maker in _BUILDS for name in present if maker in name), "Intel")
        fix = f"pip install --force-reinstall --no-deps {_pinned()} --index-url {_INDEX}{_BUILDS[maker]}"
        found = f"{', '.join(present)}: not used, this build of llama.cpp is for processors"
        yield Check("GPU", "missing", found, fix)
    else:
        yield Check("GPU", "missing", "optional: none, models run on the processor", f"builds: {_INDEX}")


def _store() -> Check:
    home = Path(os.environ.get("TERAZI_HOME") or Path.home() / ".terazi")
    present = next(folder for folder in (home, *home.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(present).free
    text = f"{home}, {free / 1e9:.1f} GB free"
    if not os.access(present, os.W_OK):
        return Check("store", "problem", f"{text}, not writable", "set TERAZI_HOME to a folder you may write")
    if free < _LOW_DISK:
        return Check("store", "ok", f"{text}: little for variants", "free some space, or set TERAZI_HOME")
    return Check("store", "ok", text)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
