"""The verbs: what can be done with a model, one short function each; no loops over tensors, no maths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from terazi.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from terazi.calibrate import Calibration
    from terazi.model import Artifact, Model
    from terazi.model.description import Description
    from terazi.model.license import Use
    from terazi.quantize import Plan

__all__ = ["convert", "inspect", "open_model", "quantize", "quantize_collection"]


def convert(
    model: Model | Path | str,
    to: str = "gguf",
    *,
    output: Path | str,
    type: str | None = None,
    pre: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Artifact:
    """Write a Hugging Face checkpoint as a GGUF file that llama.cpp runs.

    ``type`` (F32, F16, BF16) is what matrices become; by default they stay as stored. ``pre`` forces
    llama.cpp's pre-tokenizer by name. Raises `UnsupportedError` for an architecture without a table,
    `FormatError` for a damaged checkpoint, `ExistsError` unless ``force``.
    """
    from terazi.convert import gguf
    from terazi.errors import UsageError
    from terazi.formats import open_model
    from terazi.model import Model

    if to != "gguf":
        raise UsageError(f"cannot convert to {to!r}", hint="choose gguf")
    opened = model if isinstance(model, Model) else open_model(model)
    if opened.format == "gguf":
        raise UsageError(f"{opened.path} is GGUF already", hint="`terazi quantize` makes other types of it")
    made = gguf.to_gguf(opened, type=type, pre=pre)
    return gguf.write(made, output, force=force, progress=progress)


def open_model(model: Path | str) -> Model:
    """Open a checkpoint in any known format; only headers are read. See `terazi.formats.open_model`."""
    from terazi.formats import open_model

    return open_model(model)


def inspect(model: Model | Path | str, *, context: int | None = None, use: Use = "commercial") -> Description:
    """Describe a model from its headers: types, licence, runtimes, and memory at ``context`` tokens.

    See `terazi.model.description.describe` for the defaults. Raises what `open_model` raises.
    """
    from terazi.model import Model
    from terazi.model.description import describe

    return describe(model if isinstance(model, Model) else open_model(model), context=context, use=use)


def quantize(
    model: Model | Path | str,
    recipe: Plan | str = "Q4_K_M",
    *,
    output: Path | str,
    calibration: Calibration | None = None,
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> Artifact:
    """Write a smaller GGUF file of a GGUF or Hugging Face model; the bytes are those of llama.cpp's own tool.

    ``recipe`` is a preset's name or a finished plan. ``calibration`` weighs the rounding. ``options`` are
    those of `terazi.quantize.make_plan`: ``overrides``, ``pure``, ``keep_split`` and so on. Raises
    `UsageError` for what cannot be, `FormatError` for damaged weights, `ExistsError` unless ``force``.
    """
    from terazi.quantize import apply, make_plan, open_source

    source = open_source(model)
    if isinstance(recipe, str):
        recipe = make_plan(source, recipe, calibration=calibration, **options)
    return apply(
        recipe, source, output, calibration=calibration, threads=threads, force=force, progress=progress
    )


def quantize_collection(
    model: Model | Path | str,
    presets: Sequence[str] = (),
    *,
    output: Path | str,
    calibration: Calibration | None = None,
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> list[Artifact]:
    """Write a series of quantized files into the directory ``output``; every weight is read once.

    Without ``presets`` it is the usual series, from Q8_0 down to the smallest that ``calibration`` allows.
    ``options`` and errors are those of `quantize`. No file appears unless all are complete.
    """
    from terazi.quantize import apply_many, collection_path, open_source, plan_collection

    source = open_source(model)
    plans = plan_collection(source, presets, calibration=calibration, **options)
    paths = [collection_path(output, source, plan) for plan in plans]
    return apply_many(
        plans, source, paths, calibration=calibration, threads=threads, force=force, progress=progress
    )
