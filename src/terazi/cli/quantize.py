"""``terazi quantize``: a smaller file of the same model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from terazi.cli.output import count, json_option, progress_bars, size, write_json, write_table
from terazi.cli.real import Real

if TYPE_CHECKING:
    from terazi.calibrate import Calibration
    from terazi.model import Model
    from terazi.quantize import Plan

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  terazi quantize model-f16.gguf small.gguf --type Q4_K_M --importance imatrix.gguf
  terazi quantize ./Qwen3-0.6B variants --collection --type Q8_0 --type Q4_K_M
  terazi quantize model.gguf --type Q5_K_M --dry-run
"""
_ONNX_OPTIONS = ("data", "method", "provider", "ranges", "spare")


def _list_types(as_json: bool) -> None:
    from terazi.quantize import ALIASES, PRESETS
    from terazi.quantize.onnx.providers import PROVIDERS, legal
    from terazi.quantize.onnx.recipes import ONNX_RECIPES

    gguf = [(name, p.type, p.default.bits_per_weight, p.title) for name, p in PRESETS.items()]
    onnx = [(recipe.name, recipe.title) for recipe in ONNX_RECIPES.values()]
    providers = [(name, entry.title, legal(entry)) for name, entry in PROVIDERS.items()]
    if as_json:
        columns = ("name", "type", "bits_per_weight", "title")
        return write_json(
            {
                "gguf": [dict(zip(columns, row, strict=True)) for row in gguf],
                "aliases": dict(ALIASES),
                "onnx": [{"name": name, "title": title} for name, title in onnx],
                "providers": [
                    {"name": n, "title": title, "types": list(types)} for n, title, types in providers
                ],
            }
        )
    rows = [(name, most, f"{bits:g}", title) for name, most, bits, title in gguf]
    write_table(("type", "most tensors", "bits", "for"), rows, numeric=("bits",))
    click.echo("Short names: " + ", ".join(f"{short} = {name}" for short, name in ALIASES.items()))
    click.echo("\nFor ONNX models:")
    write_table(("type", "for"), onnx)
    click.echo("\nProviders that run them:")
    rows = [(name, title, ", ".join(types)) for name, title, types in providers]
    return write_table(("provider", "is for", "types"), rows)


def _named_type(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Any:
    pairs = [value.rpartition("=")[::2] for value in values]
    if bad := [value for value, (pattern, type) in zip(values, pairs, strict=True) if not (pattern and type)]:
        raise click.BadParameter(f"{bad[0]!r} is not REGEX=TYPE, such as ffn_down=Q6_K")
    return pairs


@click.command(
    "quantize",
    short_help="Write a smaller file of a model, in any of llama.cpp's types.",
    epilog=_EXAMPLES,
)
@click.argument("model", required=False)
@click.argument("output", type=click.Path(path_type=Path), required=False)
@click.option("--type", "types", multiple=True, metavar="NAME", help="Preset; Q4_K_M unless given.")
@click.option("--list-types", is_flag=True, help="List the presets, largest first, and exit.")
@click.option(
    "--importance", "calibration", type=click.Path(path_type=Path), metavar="FILE",
    help="Importance matrix that weighs the rounding (see terazi calibrate).",
)  # fmt: skip
@click.option(
    "--tensor-type", "overrides", multiple=True, metavar="REGEX=TYPE", callback=_named_type,
    help="Type for the tensors whose name matches; the first match wins. Repeatable.",
)  # fmt: skip
@click.option("--token-embedding-type", metavar="TYPE", help="Type for the token embedding.")
@click.option("--output-tensor-type", metavar="TYPE", help="Type for the output matrix.")
@click.option("--pure", is_flag=True, help="Give all tensors the preset's main type, no mixture.")
@click.option("--leave-output-tensor", is_flag=True, help="Keep output.weight as it is.")
@click.option("--keep-split", is_flag=True, help="Write as many files as a split source has.")
@click.option("--collection", is_flag=True, help="Write a series into the directory OUTPUT, in one pass.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and how large; write no model.")
@click.option("--plan", type=click.Path(path_type=Path), metavar="FILE", help="Carry this plan out.")
@click.option("--save-plan", type=click.Path(path_type=Path), metavar="FILE", help="Write the plan as JSON.")
@click.option("--data", metavar="FILE", help="ONNX: observe activations on this text, or .npz of inputs.")
@click.option(
    "--provider", metavar="NAME", help="ONNX: what will run it, such as cuda or qnn; by default cpu."
)
@click.option(
    "--method", type=click.Choice(["rtn", "hqq", "gptq"]),
    help="ONNX: how weights are rounded: to nearest, by HQQ (no data), or by GPTQ (most exact).",
)  # fmt: skip
@click.option(
    "--ranges", type=click.Choice(["minmax", "entropy", "percentile"]), help="ONNX: for static types."
)
@click.option(
    "--spare", type=Real(0, 1), metavar="SHARE",
    help="ONNX: share of the weights, the worst by measurement, that is kept better.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(0), default=0, help="Threads; 0 takes every core.")
@click.option("--force", is_flag=True, help="Replace outputs that exist.")
@json_option
def command(model: str | None, output: Path | None, list_types: bool, as_json: bool, **options: Any) -> None:
    """Quantize MODEL and write the GGUF file OUTPUT (for an ONNX model or recipe: the directory OUTPUT).

    MODEL is a GGUF file (whole or split, also one that is quantized already), a Hugging Face directory, or a
    name in the registry. With --collection, OUTPUT is a directory and --type may be given several times.

    The bytes are those that llama.cpp's own tool writes, whatever the number of threads.
    """
    if list_types:
        return _list_types(as_json)
    if model is None:
        raise click.UsageError("name the MODEL, or add --list-types to see what it can become")
    from terazi.api import open_model
    from terazi.quantize import open_source
    from terazi.quantize.onnx.recipes import ONNX_RECIPES

    if output is None and not options["dry_run"]:
        raise click.UsageError("name the OUTPUT, or add --dry-run to see what would be written")
    if output is not None and len(options["types"]) == 1 and options["types"][0].lower() in ONNX_RECIPES:
        return _write_onnx(model, output, as_json, options)
    if foreign := [f"--{name}" for name in _ONNX_OPTIONS if options[name] is not None]:
        raise click.UsageError(f"{', '.join(foreign)}: for ONNX types only (see --list-types)")
    source = open_source(open_model(model))
    calibration = _loaded(options["calibration"])
    plans = _plans(source, calibration, options)
    for note in [note for note in plans[0].notes if all(note in plan.notes for plan in plans)]:
        click.echo(f"note: {note}", err=True)
    if options["save_plan"]:
        from terazi.files import write_text

        write_text(options["save_plan"], plans[0].to_json(), force=options["force"])
    if options["dry_run"] or output is None:
        return _show(plans, source, as_json)
    if not options["collection"]:
        return _write(plans, source, [output], calibration, as_json, options)
    from terazi.quantize import collection_directory, collection_path

    with collection_directory(output):
        outputs = [collection_path(output, source, plan) for plan in plans]
        return _write(plans, source, outputs, calibration, as_json, options)


def _write_onnx(model: str, output: Path, as_json: bool, options: dict[str, Any]) -> None:
    from dataclasses import replace

    from terazi.api import open_model, quantize
    from terazi.cli.operators import operators_before_and_after, write_operators
    from terazi.quantize.onnx.recipes import onnx_recipe

    recipe = onnx_recipe(options["types"][0])
    recipe = replace(recipe, **{name: options[name] for name in ("method", "ranges") if options[name]})
    if options["spare"] is not None:
        recipe = replace(recipe, spared=options["spare"])
    source = open_model(model)
    with progress_bars(enabled=not as_json) as progress:
        artifact = quantize(
            source,
            recipe,
            output=output,
            data=options["data"],
            on=options["provider"] or "cpu",
            threads=options["threads"],
            force=options["force"],
            progress=progress,
        )
    if as_json:
        return write_json(
            {
                "path": str(artifact.path),
                "size": artifact.size,
                "digest": artifact.digest,
                "operators": operators_before_and_after(source, open_model(output)),
            }
        )
    click.echo(f"{artifact.path}: ONNX {artifact.label}, {size(artifact.size)}")
    return write_operators(source, open_model(output))


def _loaded(path: Path | None) -> Calibration | None:
    if path is None:
        return None
    from terazi.calibrate import load

    return load(path)


def _plans(source: Model, calibration: Calibration | None, options: dict[str, Any]) -> list[Plan]:
    from terazi.quantize import Plan, make_plan, plan_collection

    names = ("overrides", "token_embedding_type", "output_tensor_type", "pure", "leave_output_tensor")
    chosen = {name: options[name] for name in (*names, "keep_split")}
    if options["plan"]:
        if options["types"] or options["collection"] or any(chosen.values()):
            raise click.UsageError("--plan decides every tensor: give no types or series beside it")
        return [Plan.from_json(options["plan"].read_bytes(), where=str(options["plan"]))]
    if options["collection"]:
        if options["save_plan"]:
            raise click.UsageError("--save-plan saves one plan, not a series")
        return plan_collection(source, options["types"], calibration=calibration, **chosen)
    if len(options["types"]) > 1:
        raise click.UsageError("several --type need --collection")
    preset = options["types"][0] if options["types"] else "Q4_K_M"
    return [make_plan(source, preset, calibration=calibration, **chosen)]


def _write(
    plans: list[Plan],
    source: Model,
    outputs: list[Path],
    calibration: Calibration | None,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    from terazi.quantize import apply_many

    with progress_bars(enabled=not as_json) as progress:
        made = apply_many(
            plans,
            source,
            outputs,
            calibration=calibration,
            threads=options["threads"],
            force=options["force"],
            progress=progress,
        )
    if as_json:
        reports = [
            _report(plan, source)
            | {
                "path": str(artifact.path),
                "files": [str(f) for f in artifact.files],
                "digest": artifact.digest,
            }
            for plan, artifact in zip(plans, made, strict=True)
        ]
        return write_json(reports if options["collection"] else reports[0])
    for plan, artifact in zip(plans, made, strict=True):
        click.echo(
            f"{artifact.path}: {plan.preset}, {size(artifact.size)}, "
            f"{plan.bits_per_weight:.2f} bits per weight (from {size(source.nbytes)})"
        )
    return None


def _show(plans: list[Plan], source: Model, as_json: bool) -> None:
    reports = [_report(plan, source) for plan in plans]
    if as_json:
        return write_json(reports if len(plans) > 1 else reports[0])
    if len(plans) > 1:
        rows = [(r["preset"], size(r["size"]), f"{r['bits_per_weight']:.2f}") for r in reports]
        return write_table(("type", "size", "bits"), rows, numeric=("size", "bits"))
    rows = [(t["type"], str(t["tensors"]), count(t["weights"]), size(t["size"])) for t in reports[0]["types"]]
    write_table(("type", "tensors", "weights", "size"), rows, numeric=("tensors", "weights", "size"))
    click.echo(
        f"{plans[0].preset} would take {plans[0].size} bytes ({size(plans[0].size)}), "
        f"{plans[0].bits_per_weight:.2f} bits per weight; the source takes {size(source.nbytes)}"
    )
    return None


def _report(plan: Plan, source: Model) -> dict[str, Any]:
    from math import prod

    types = {
        type: [entry for entry in plan.entries if entry.type == type]
        for type in dict.fromkeys(entry.type for entry in plan.entries)
    }
    return {
        "preset": plan.preset,
        "size": plan.size,
        "bits_per_weight": plan.bits_per_weight,
        "source_size": source.nbytes,
        "plan_digest": plan.digest,
        "importance": plan.importance.digest if plan.importance else None,
        "types": [
            {
                "type": type,
                "tensors": len(entries),
                "weights": sum(prod(entry.shape) for entry in entries),
                "size": sum(entry.nbytes for entry in entries),
            }
            for type, entries in types.items()
        ],
        "notes": list(plan.notes),
    }
