"""What a device offers: memory and its bandwidth, processor, accelerators, runtimes, limits, power."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from terazi.devices.quantities import ByteRate, ByteSize

__all__ = ["Accelerator", "ComputeDevice", "Cpu", "Device", "Limits", "Memory", "Power"]

Runtime = Literal["llama.cpp", "onnxruntime", "mlx", "wllama", "transformers.js", "vllm"]
"""An engine by the name that reports use."""

_CONFIG = ConfigDict(extra="forbid")
Architecture = Literal["aarch64", "armv7l", "x86_64", "wasm32", "unknown"]
"""A processor family."""

_Text = Annotated[str, Field(min_length=1, max_length=2000)]
_Count = Annotated[int, Field(gt=0, le=100_000)]


@dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class Memory:
    """Main memory: ``total`` bytes, the ``usable`` part that one model may take, ``bandwidth`` in bytes/s.

    ``bandwidth`` is the peak that the memory's width and clock give, unless it was measured on this machine;
    ``source`` says where the figures come from.
    """

    total: ByteSize
    usable: ByteSize
    bandwidth: ByteRate
    source: _Text


@dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class Cpu:
    """The processor: how many cores a model may use, and what they can do."""

    name: _Text
    cores: _Count
    architecture: Architecture
    instruction_sets: tuple[_Text, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class Accelerator:
    """A GPU or NPU. Without memory of its own it shares the device's memory and bandwidth."""

    name: _Text
    kind: Literal["gpu", "npu"]
    runtimes: tuple[Runtime, ...] = ()
    memory: ByteSize | None = None
    bandwidth: ByteRate | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class ComputeDevice:
    """What llama.cpp computes on, by its own name (``CPU``, ``CUDA0``, ``Vulkan0``, ``Metal``); bytes."""

    name: _Text
    description: str
    kind: Literal["cpu", "gpu", "accelerator"]
    total: Annotated[int, Field(ge=0)]
    free: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class Limits:
    """What a platform refuses: files above a size, tensor types (patterns such as ``IQ*``) and why."""

    file_size: ByteSize | None = None
    avoid_types: tuple[_Text, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class Power:
    """Watts while generating, for energy estimates; ``source`` says how the figure was found."""

    watts: Annotated[float, Field(gt=0, le=1e6)]
    source: _Text


@dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class Device:
    """Capability facts of one kind of device. ``runtimes`` and ``formats`` come in order of preference."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
    title: _Text
    description: str = ""
    memory: Memory
    cpu: Cpu
    runtimes: Annotated[tuple[Runtime, ...], Field(min_length=1)]
    formats: Annotated[tuple[Literal["gguf", "onnx", "mlx", "safetensors"], ...], Field(min_length=1)]
    accelerators: tuple[Accelerator, ...] = ()
    limits: Limits = Limits()
    power: Power | None = None
    detected: bool = False

    def avoids(self, type: str) -> bool:
        """Whether tensors of ``type`` (``IQ4_XS``) should not be sent to this device."""
        return any(fnmatchcase(type, pattern) for pattern in self.limits.avoid_types)

    def place(self, needed: int) -> tuple[str, int]:
        """Where a model that needs ``needed`` bytes runs: a name and that memory's bandwidth in bytes/s.

        An accelerator with memory of its own is used when the whole model fits there.
        """
        for accelerator in self.accelerators:
            if accelerator.memory and accelerator.bandwidth and needed <= accelerator.memory:
                return accelerator.name, accelerator.bandwidth
        return self.cpu.name, self.memory.bandwidth
