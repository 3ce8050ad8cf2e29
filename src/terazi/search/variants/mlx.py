"""MLX variants: rounded for mlx-lm at one or two widths; run in mlx, on the processor without Metal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from terazi.codecs.mlx import MODES
from terazi.convert.huggingface import to_huggingface
from terazi.convert.mlx import FAMILIES, RECIPES
from terazi.errors import UnsupportedError, UsageError
from terazi.formats import open_model
from terazi.search.variants.family import (
    Contents,
    Family,
    RecipePlan,
    missing_extras,
    named_precision,
    recipe_proposal,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from terazi.devices import Device
    from terazi.model import Model
    from terazi.search.variants.family import Making, Proposal, Wanted

__all__ = ["FAMILY"]

_PREFIX = "mlx:"
# Name -> options of `terazi.convert.mlx.convert`.
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    **{f"{bits}bit": {"bits": bits} for bits in MODES["affine"].bits},
    **{mode: {"mode": mode} for mode in MODES if mode != "affine"},
    **{recipe: {"recipe": recipe} for recipe in RECIPES},
}
# Mixed recipes go by layers that only models that write have.
_WRITERS = (
    ("8bit", "4bit", "mixed_4_6"),
    ("8bit", "6bit", "5bit", "mixed_4_6", "4bit", "mxfp4", "mixed_3_6", "3bit"),
)
_ENCODERS = ("8bit", "6bit", "4bit"), ("8bit", "6bit", "5bit", "4bit", "mxfp8", "mxfp4")


def _usual(source: Model, thorough: bool) -> tuple[str, ...]:
    quick, many = _ENCODERS if source.variant == "embedding" else _WRITERS
    return tuple(_PREFIX + recipe for recipe in (many if thorough else quick))


def _spelled(name: str) -> str | None:
    if not name.lower().startswith(_PREFIX):
        return None
    recipe = name.lower().removeprefix(_PREFIX)
    if recipe not in _OPTIONS:
        known = ", ".join(_PREFIX + other for other in _OPTIONS)
        raise UsageError(f"no MLX recipe is called {recipe!r}", hint=f"choose from {known}")
    return _PREFIX + recipe


def _obstacle(source: Model, device: Device) -> str | None:
    if "mlx" not in device.formats and not device.detected:
        return f"nothing on {device.title} runs MLX"
    if missing_extras({"mlx": ("mlx", "mlx_lm")}):
        return "measuring MLX variants needs an extra: pip install 'terazi[mlx]'"
    return _unknown(source)


def _unknown(source: Model) -> str | None:
    """Say why there is no MLX layout for a model's family."""
    model = open_model(source.path)
    try:
        checkpoint = model if model.format == "huggingface" else to_huggingface(model)
    except UnsupportedError as error:
        return error.message
    family = str(checkpoint.metadata.get("model_type"))
    return None if family in FAMILIES else f"there is no MLX layout for {family} models here"


def _propose(names: Sequence[str], wanted: Wanted) -> list[Proposal]:
    return [_variant(name.removeprefix(_PREFIX), wanted) for name in names]


def _variant(recipe: str, wanted: Wanted) -> Proposal:
    plan = _plan(recipe)
    least = wanted.source.parameters * plan.bits // 8
    found = Contents(
        size=least,
        weights=least,
        read=0 if wanted.embeds else least,
        types={f"{plan.bits}-bit": wanted.source.parameters},
        level=named_precision(f"{plan.bits}-bit"),
    )
    return recipe_proposal(FAMILY, plan, found, wanted)


def _plan(recipe: str) -> RecipePlan:
    options = _OPTIONS[recipe]
    if "recipe" in options:
        bits = RECIPES[recipe][0]
    else:
        bits = options.get("bits") or MODES[options["mode"]].bits[0]
    label = f"MLX {bits}-bit" if "bits" in options else f"MLX {recipe}"
    return RecipePlan.of("mlx", recipe, label, bits, dict(options), ("mlx", "mlx-lm"))


def _make(plan: RecipePlan, making: Making) -> object:
    from terazi.convert.mlx import convert

    model = open_model(making.source.path)
    return convert(model, making.output, progress=making.progress, **_OPTIONS[plan.recipe])


def _contents(model: Model) -> Contents:
    """Read finished files: an embedding table with an output matrix of its own is looked up, not read."""
    types: dict[str, int] = {}
    for tensor in model.tensors.values():
        name = tensor.packed.name if tensor.packed else tensor.type  # such as "affine 4-bit"
        types[name] = types.get(name, 0) + tensor.size
    looked_up = (
        sum(t.stored_bytes for name, t in model.tensors.items() if name.endswith("embed_tokens.weight"))
        if any(name.endswith("lm_head.weight") for name in model.tensors)
        else 0
    )
    return Contents(
        size=sum(file.stat().st_size for file in model.files),
        weights=model.nbytes,
        read=0 if model.variant == "embedding" else model.nbytes - looked_up,
        types=types,
        level=named_precision(max(types, key=lambda name: (types[name], name))),
    )


FAMILY = Family(
    format="mlx",
    title="MLX",
    engine="mlx",
    suffix="",
    cache_bytes=2,
    peak_counts=True,
    usual=_usual,
    spelled=_spelled,
    obstacle=_obstacle,
    propose=_propose,
    make=_make,
    contents=_contents,
)
