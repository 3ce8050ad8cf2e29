"""ONNX variants: exported once and quantized by recipe, or built by onnxruntime-genai; run in onnxruntime."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from terazi.errors import UsageError
from terazi.quantize.onnx.recipes import ONNX_RECIPES
from terazi.search.variants.family import (
    Contents,
    Family,
    RecipePlan,
    missing_extras,
    named_precision,
    recipe_proposal,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terazi.devices import Device
    from terazi.model import Model
    from terazi.search.variants.family import Making, Proposal, Wanted

__all__ = ["FAMILY"]

_PREFIX = "onnx:"
_EXPORT = "f32"
_MAKERS = ("onnx", "onnxruntime", "onnxruntime-genai", "torch", "transformers")
_ENCODER_EXTRAS = {"onnx": ("onnx", "onnxruntime"), "hf": ("torch", "transformers")}
_WRITER_EXTRAS = {"onnx": ("onnx", "onnxruntime"), "genai": ("onnxruntime_genai", "transformers")}
# Recipe -> the type that onnxruntime-genai's model builder gives the export of a model that writes.
_BUILT = {_EXPORT: "F32", "int8": "INT8", "int4": "INT4"}
# Bits of most weights -> their type before the files tell.
_TYPES = {32: "F32", 16: "F16", 8: "I8", 4: "I4", 2: "U2"}


def _usual(source: Model, thorough: bool) -> tuple[str, ...]:
    """The export as it is (for encoders, which are small), and one recipe per step of size."""
    recipes = ("int8", "int4")
    if source.variant == "embedding":
        recipes = (_EXPORT, *recipes, *(("w8", "w4", "float16") if thorough else ()))
    elif thorough:
        recipes = (*recipes, "w8", "w4")
    return tuple(_PREFIX + recipe for recipe in recipes)


def _spelled(name: str) -> str | None:
    """``onnx:int8`` in the end; recipes may go without the prefix, except ``onnx:f32``."""
    recipe = name.lower().removeprefix(_PREFIX)
    if recipe in ONNX_RECIPES or name.lower() == f"{_PREFIX}{_EXPORT}":
        return _PREFIX + recipe
    if name.lower().startswith(_PREFIX):
        known = ", ".join(_PREFIX + other for other in (_EXPORT, *ONNX_RECIPES))
        raise UsageError(f"no ONNX recipe is called {recipe!r}", hint=f"choose from {known}")
    return None


def _obstacle(source: Model, device: Device) -> str | None:
    if "onnx" not in device.formats:
        return f"nothing on {device.title} runs ONNX"
    if source.variant == "embedding" and not _exportable(source):
        return (
            "ONNX variants of a model for embeddings are made from the Hugging Face directory of an encoder"
        )
    extras = missing_extras(_ENCODER_EXTRAS if source.variant == "embedding" else _WRITER_EXTRAS)
    return f"exporting to ONNX needs an extra: pip install 'terazi[{extras}]'" if extras else None


def _exportable(source: Model) -> bool:
    causal = source.config.values.get("attention.causal", "bert" not in source.config.architecture)
    return source.path.is_dir() and not causal


def _propose(names: Sequence[str], wanted: Wanted) -> list[Proposal]:
    return [_variant(name.removeprefix(_PREFIX), wanted) for name in names]


def _variant(recipe: str, wanted: Wanted) -> Proposal:
    source, plan = wanted.source, _plan(recipe)
    least = source.parameters * plan.bits // 8
    type = _TYPES[plan.bits]
    found = Contents(
        size=least,
        weights=least,
        read=0 if wanted.embeds else least,
        types={type: source.parameters},
        level=named_precision(type),
    )
    proposal = recipe_proposal(FAMILY, plan, found, wanted)
    if proposal.skipped is None and not wanted.embeds and recipe not in _BUILT:
        made = ONNX_RECIPES[recipe]
        if made.needs_data or made.kind != "weights":
            return proposal.refused(
                "this recipe is for encoders: int8, int4, w8 and w4 are for models that write"
            )
    return proposal


def _plan(recipe: str) -> RecipePlan:
    details: Any = asdict(ONNX_RECIPES[recipe]) if recipe != _EXPORT else {"name": _EXPORT}
    bits = ONNX_RECIPES[recipe].bits if recipe != _EXPORT else 32
    label = f"ONNX {recipe.upper() if recipe == _EXPORT else recipe}"
    return RecipePlan.of("onnx", recipe, label, bits, details, _MAKERS)


def _make(plan: RecipePlan, making: Making) -> object:
    """Write a directory, whole or not at all. Recipes start from one export, made when it is needed."""
    from terazi.convert.onnx import convert
    from terazi.formats import open_model
    from terazi.quantize.onnx import quantize_onnx

    source, progress = making.source, making.progress
    built = _BUILT.get(plan.recipe) if source.variant != "embedding" else None
    if plan.recipe == _EXPORT or built:
        return convert(open_model(source.path), making.output, type=built, progress=progress)
    export = making.beside(_plan(_EXPORT))
    if not export.exists():
        convert(open_model(source.path), export, progress=progress)
    threads = making.threads
    return quantize_onnx(open_model(export), plan.recipe, making.output, threads=threads, progress=progress)


def _contents(model: Model) -> Contents:
    """Read a finished graph: an embedding table with an output matrix of its own is looked up, not read."""
    types: dict[str, int] = {}
    for tensor in model.tensors.values():
        types[tensor.type] = types.get(tensor.type, 0) + tensor.size
    main = max(types, key=lambda name: (types[name], name), default="F32")
    writes = "logits" in model.metadata["outputs"] and any(f.name == "genai_config.json" for f in model.files)
    weights = sum(tensor.nbytes for tensor in model.tensors.values())
    tables = [
        tensor.nbytes
        for name, tensor in model.tensors.items()
        if name in ("cos_cache", "sin_cache")
        or (tensor.type == "F32" and name.endswith("embed_tokens.weight"))
    ]
    return Contents(
        size=sum(file.stat().st_size for file in model.files),
        weights=weights,
        read=weights - sum(tables) if writes else 0,
        types=types,
        level=named_precision(main),
        operators=model.metadata["operators"],
        exported=model.metadata["exported"],
    )


FAMILY = Family(
    format="onnx",
    title="ONNX",
    engine="onnxruntime",
    suffix="",
    cache_bytes=4,
    peak_counts=True,
    usual=_usual,
    spelled=_spelled,
    obstacle=_obstacle,
    propose=_propose,
    make=_make,
    contents=_contents,
)
