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
    from collections.abc import Iterator

__all__ = ["Check", "checks"]

_LOW_DISK = 5 * 10**9
# Package -> what it is for, the extra that installs it.
_OPTIONAL = {
    "onnxruntime": ("run and measure ONNX models", "onnx"),
    "onnxruntime-genai": ("language models as ONNX", "genai"),
    "mlx": ("run MLX models", "mlx"),
    "torch": ("export from PyTorch", "hf"),
    "transformers": ("read Hugging Face models for export", "hf"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. ``missing`` is optional and absent, ``problem`` is needed and broken."""

    name: str
    state: Literal["ok", "missing", "problem"]
    found: str
    fix: str = ""


def checks() -> list[Check]:
    """Look at everything; imports no engine and takes about a second."""
    return [_kernels(), _llama_cpp(), *_optional(), *_machine(), _store()]


def _kernels() -> Check:
    try:
        from terazi import _native
    except ImportError as error:
        return Check("kernels", "problem", str(error), "make build, or pip install --force-reinstall terazi")
    return Check("kernels", "ok", f"compiled; uses {', '.join(_native.instruction_sets())}")


def _llama_cpp() -> Check:
    """The pinned engine: another version is a problem, because structures are read by their layout."""
    pinned = next((need for need in requires("terazi") or [] if need.startswith("xllamacpp")), "xllamacpp")
    wanted = pinned.partition("==")[2].split(";")[0].strip()
    found = _version("xllamacpp")
    if found is None or find_spec("xllamacpp") is None:
        return Check("llama.cpp", "problem", "not installed", f"pip install {pinned}")
    if wanted and found != wanted:
        return Check("llama.cpp", "problem", f"xllamacpp {found}, made for {wanted}", f"pip install {pinned}")
    return Check("llama.cpp", "ok", f"xllamacpp {found}")


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
    if machine.accelerators:
        yield Check("GPU", "ok", ", ".join(entry.name for entry in machine.accelerators))
    else:
        yield Check("GPU", "missing", "optional: none answers", "models run on the processor")


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
