"""ONNX variants of an encoder: planned by recipe, made from one export of its Hugging Face directory."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from terazi.errors import NotFoundError, UsageError
from terazi.quantize import preset
from terazi.quantize.onnx.recipes import ONNX_RECIPES
from terazi.search.candidate import Candidate

if TYPE_CHECKING:
    from pathlib import Path

    from terazi.devices import Device
    from terazi.dtypes import Precision
    from terazi.model import Model
    from terazi.progress import Progress

__all__ = [
    "DEFAULT_ONNX",
    "PREFIX",
    "OnnxPlan",
    "as_measured",
    "encoder_directory",
    "make",
    "obstacle",
    "onnx_plan",
    "predicted",
    "variant_type",
]

PREFIX = "onnx:"
_EXPORT = "f32"
DEFAULT_ONNX = (f"{PREFIX}{_EXPORT}", f"{PREFIX}int8", f"{PREFIX}int4")
"""The export as it is, and one recipe per step of size."""

_PACKAGES = {"onnx": ("onnx", "onnxruntime"), "hf": ("torch", "transformers")}
# Bits of most weights -> their type and its precision class.
_TYPES: dict[int, tuple[str, Precision]] = {
    32: ("F32", "full"),
    16: ("F16", "full"),
    8: ("I8", "medium"),
    4: ("I4", "low"),
    2: ("U2", "ultra-low"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxPlan:
    """How to make an ONNX variant: ``f32``, the export itself, or the name of a recipe applied to it.

    ``digest`` covers the recipe and the versions of what carries it out: same source and digest, same model.
    """

    recipe: str
    bits: int
    digest: str

    @property
    def label(self) -> str:
        """The variant's name."""
        return f"ONNX {self.recipe.upper() if self.recipe == _EXPORT else self.recipe}"


def variant_type(name: str) -> str:
    """Return the one spelling of a GGUF preset (``Q4_K_M``) or an ONNX recipe (``onnx:int8``).

    Recipes may go without the prefix, except ``onnx:f32``. Raises `UsageError` for an unknown name.
    """
    recipe = name.lower().removeprefix(PREFIX)
    if recipe in ONNX_RECIPES or name.lower() == f"{PREFIX}{_EXPORT}":
        return PREFIX + recipe
    if name.lower().startswith(PREFIX):
        known = ", ".join(PREFIX + other for other in (_EXPORT, *ONNX_RECIPES))
        raise UsageError(f"no ONNX recipe is called {recipe!r}", hint=f"choose from {known}")
    return preset(name).name


def onnx_plan(name: str) -> OnnxPlan:
    """Plan a variant by its name, such as ``onnx:int8``."""
    recipe = name.removeprefix(PREFIX)
    if recipe != _EXPORT and recipe not in ONNX_RECIPES:
        raise NotFoundError(f"no ONNX recipe is called {recipe!r}")
    details = asdict(ONNX_RECIPES[recipe]) if recipe != _EXPORT else {"name": _EXPORT}
    makers = {name: _version(name) for name in ("terazi", "onnx", "onnxruntime", "torch", "transformers")}
    key = json.dumps({"recipe": details, "makers": makers}, sort_keys=True)
    bits = ONNX_RECIPES[recipe].bits if recipe != _EXPORT else 32
    return OnnxPlan(recipe=recipe, bits=bits, digest=hashlib.sha256(key.encode()).hexdigest())


def encoder_directory(source: Model) -> bool:
    """Whether ``source`` is the Hugging Face directory of an encoder, which can be exported."""
    causal = source.config.values.get("attention.causal", "bert" not in source.config.architecture)
    return source.variant == "embedding" and source.path.is_dir() and not causal


def obstacle(source: Model, device: Device) -> str | None:
    """Say why no ONNX variant of ``source`` can be made here or run on ``device``; None when it can."""
    if not encoder_directory(source):
        return "ONNX variants are made from the Hugging Face directory of an encoder"
    if "onnx" not in device.formats:
        return f"nothing on {device.title} runs ONNX"
    missing = [extra for extra, packages in _PACKAGES.items() if not all(map(_installed, packages))]
    if missing:
        return f"exporting to ONNX needs an extra: pip install 'terazi[{','.join(missing)}]'"
    return None


def predicted(source: Model, plan: OnnxPlan) -> Candidate:
    """Return what is known before it is made: at least the recipe's bits for every weight."""
    type, level = _TYPES[plan.bits]
    size = source.parameters * plan.bits // 8
    return Candidate(
        label=plan.label,
        format="onnx",
        size=size,
        bits_per_weight=float(plan.bits),
        memory_needed=size,
        token_bytes=0,
        types={type: source.parameters},
        level=level,
        plan_digest=plan.digest,
    )


def as_measured(candidate: Candidate) -> Candidate:
    """Return a variant with what its measurements say of size, memory and types in place of predictions."""
    size, peak = candidate.measured("size"), candidate.measured("peak_memory")
    if size is not None:
        parameters = sum(candidate.types.values())
        candidate = replace(
            candidate,
            size=int(size.value),
            bits_per_weight=8 * size.value / parameters,
            types=size.conditions.get("weights", candidate.types),
        )
    if peak is not None:
        candidate = replace(candidate, memory_needed=int(peak.value))
    return candidate


def make(plan: OnnxPlan, source: Path, output: Path, base: Path, *, threads: int, progress: Progress) -> None:
    """Write a variant as the directory ``output``, whole or not at all.

    ``base`` is where the export of the directory ``source`` is or will be, which all recipes start from.
    """
    from terazi.convert.onnx import convert
    from terazi.formats import open_model
    from terazi.quantize.onnx import quantize_onnx

    if not base.exists():
        convert(open_model(source), base, progress=progress)
    if plan.recipe != _EXPORT:
        quantize_onnx(open_model(base), plan.recipe, output, threads=threads, progress=progress)


def _installed(package: str) -> bool:
    return find_spec(package) is not None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
