"""A model in figures and words: what `terazi inspect` tells."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Literal

from terazi.dtypes import TYPES, Precision, dtype
from terazi.errors import TeraziError
from terazi.model.arch import architecture
from terazi.model.license import LicenseCheck, Use, check_license
from terazi.model.memory import MemoryNeed, memory_needed

if TYPE_CHECKING:
    from terazi.model.model import Config, Model, Tokenizer, Variant
    from terazi.model.tensor import Tensor

__all__ = ["Description", "RuntimeFit", "TypeShare", "describe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeShare:
    """How much of a model is stored in one tensor type."""

    type: str
    tensors: int
    weights: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFit:
    """An engine that runs this model, where, and what to mind."""

    runtime: str
    platforms: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What is known of a model from its headers. ``memory`` is an estimate for ``context`` tokens."""

    path: str
    format: str
    name: str
    variant: Variant
    config: Config
    tokenizer: Tokenizer | None
    parameters: int
    nbytes: int
    bits_per_weight: float
    precision: Precision
    types: tuple[TypeShare, ...]
    license: LicenseCheck
    runtimes: tuple[RuntimeFit, ...]
    context: int
    memory: MemoryNeed


_DESKTOP = ("Linux x86-64", "Linux Arm", "macOS", "Windows")
_PHONES = ("Android", "iOS")
_RECENT_TYPES = {"MXFP4", "NVFP4", "Q1_0", "Q2_0"}  # added to llama.cpp since August 2025
_BROWSER_FILE_LIMIT = 2 << 30  # wllama: one file may have 2 GB

_RUNTIMES: dict[Literal["gguf", "huggingface", "onnx", "mlx"], tuple[RuntimeFit, ...]] = {
    "gguf": (
        RuntimeFit(
            runtime="llama.cpp", platforms=(*_DESKTOP, *_PHONES), note="also inside Ollama, LM Studio"
        ),
        RuntimeFit(runtime="wllama", platforms=("browser (WebGPU, WebAssembly)",)),
    ),
    "huggingface": (
        RuntimeFit(runtime="transformers", platforms=_DESKTOP, note="needs PyTorch"),
        RuntimeFit(runtime="vLLM", platforms=("Linux with a GPU",), note="for serving many users"),
        RuntimeFit(runtime="llama.cpp", platforms=(*_DESKTOP, *_PHONES), note="after `terazi convert`"),
        RuntimeFit(runtime="mlx-lm", platforms=("macOS on Apple silicon",), note="after conversion to MLX"),
    ),
    "onnx": (
        RuntimeFit(runtime="onnxruntime", platforms=(*_DESKTOP, *_PHONES)),
        RuntimeFit(runtime="transformers.js", platforms=("browser (WebGPU, WebAssembly)",)),
    ),
    "mlx": (
        RuntimeFit(
            runtime="mlx-lm",
            platforms=("macOS on Apple silicon", "iOS (MLX Swift)"),
            note="on Linux too, slowly: one processor core",
        ),
    ),
}


def describe(model: Model, *, context: int | None = None, use: Use = "commercial") -> Description:
    """Describe an opened model.

    ``context`` (tokens) is what memory is estimated for: by default what the model was trained for, at most
    4096. ``use`` is what its licence is checked against.
    """
    trained = model.config.context_length
    context = context or min(trained or 4096, 4096)
    types = _type_shares(model)
    nbytes = sum(share.nbytes for share in types)
    parameters = sum(share.weights for share in types)
    return Description(
        path=str(model.path),
        format=model.format,
        name=model.name,
        variant=model.variant,
        config=model.config,
        tokenizer=model.tokenizer,
        parameters=parameters,
        nbytes=nbytes,
        bits_per_weight=nbytes * 8 / max(parameters, 1),
        precision=_precision(model),
        types=types,
        license=check_license(model.license, use),
        runtimes=_runtimes(model, nbytes),
        context=context,
        memory=memory_needed(nbytes, model.config, context),
    )


def _type_shares(model: Model) -> tuple[TypeShare, ...]:
    tensors: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    for tensor in model.tensors.values():
        type = tensor.packed.name if tensor.packed else tensor.type
        tensors[type] += 1
        weights[type] += prod(tensor.shape)
        nbytes[type] += _stored_bytes(tensor)
    return tuple(
        TypeShare(type=type, tensors=tensors[type], weights=weights[type], nbytes=nbytes[type])
        for type in sorted(nbytes, key=lambda type: (-nbytes[type], type))
    )


def _stored_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor, also of ONNX's types of less than a byte, whose rows need not be whole blocks."""
    kind = dtype(tensor.type)
    if tensor.packed or tensor.type in TYPES:
        return tensor.stored_bytes
    return -(-prod(tensor.shape) // kind.block_size) * kind.block_bytes


def _precision(model: Model) -> Precision:
    """Return the class that holds most weights."""
    weights: Counter[Precision] = Counter()
    for tensor in model.tensors.values():
        weights[_class(tensor)] += prod(tensor.shape)
    return weights.most_common(1)[0][0] if weights else "full"


def _class(tensor: Tensor) -> Precision:
    if tensor.packed:
        return "ultra-low" if tensor.packed.bits <= 2 else "low" if tensor.packed.bits <= 4 else "medium"
    # As weights, 8-bit integers are what ONNX graphs multiply with.
    return "medium" if tensor.type == "I8" else dtype(tensor.type).precision


def _runtimes(model: Model, nbytes: int) -> tuple[RuntimeFit, ...]:
    """Return the engines of the format, without llama.cpp where Terazi has no conversion to GGUF."""
    fits = _RUNTIMES[model.format]
    if model.format == "huggingface" and not _converts(model):
        return tuple(fit for fit in fits if fit.runtime != "llama.cpp")
    if model.format != "gguf":
        return fits
    types = {tensor.type for tensor in model.tensors.values()}
    notes = {"llama.cpp": [], "wllama": []}
    if recent := sorted(types & _RECENT_TYPES):
        notes["llama.cpp"].append(f"a recent version, for {', '.join(recent)}")
    if nbytes > _BROWSER_FILE_LIMIT * len(model.files):
        notes["wllama"].append("in parts below 2 GB each; this model has larger files")
    if any(type.startswith("IQ") for type in types):
        notes["wllama"].append("IQ types are slow there")
    return tuple(replace(fit, note="; ".join(filter(None, [fit.note, *notes[fit.runtime]]))) for fit in fits)


def _converts(model: Model) -> bool:
    try:
        architecture(model.metadata)
    except TeraziError:
        return False
    return True
