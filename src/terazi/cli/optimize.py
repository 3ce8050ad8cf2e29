"""``terazi optimize``: the variant of a model that fits a device, by measurement."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from terazi.cli.output import json_option, progress_bars, size, write_json, write_table
from terazi.cli.real import Real
from terazi.cli.variants import show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from terazi.search import Settings, Study

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  terazi optimize smollm2:135m --device raspberry-pi-5 --use-case chat
  terazi optimize ./model-f16.gguf --device android-phone --use-case mobile-productivity --max-size 400MB
  terazi optimize ./Qwen3-0.6B --types Q4_0,Q4_K_M,Q5_K_M --calibrate --output qwen3
  terazi optimize ./Qwen3-0.6B --device apple-m-series --formats gguf,mlx
  terazi optimize model.gguf --device my-board.toml --dry-run
"""


def _bytes(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    from terazi.devices import parse_bytes
    from terazi.errors import UsageError

    try:
        return None if value is None else parse_bytes(value)
    except UsageError as error:
        raise click.BadParameter(f"{error.message}; {error.hint}") from None


def _types(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    from terazi.errors import UsageError
    from terazi.search import variant_type

    try:
        return tuple(variant_type(name.strip()) for name in value.split(",")) if value else ()
    except UsageError as error:
        raise click.BadParameter(f"{error.message}; {error.hint}") from None


def _formats(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    if not value:
        return ()
    from terazi.search import FORMATS

    names = tuple(dict.fromkeys(name.strip().lower() for name in value.split(",")))
    if unknown := [name for name in names if name not in FORMATS]:
        raise click.BadParameter(f"no variants in {unknown[0]!r}; choose from {', '.join(FORMATS)}")
    return names


@click.command("optimize", short_help="Find the variant of a model that fits a device.", epilog=_EXAMPLES)
@click.argument("model")
@click.option(
    "--device", default="this-machine", show_default=True, help="Profile (terazi devices) or .toml."
)
@click.option("--use-case", default="chat", show_default=True, help="Name (terazi use-cases) or .toml.")
@click.option(
    "--context", type=click.IntRange(128), help="Tokens to keep in memory; the use case's unless given."
)
@click.option("--max-size", callback=_bytes, metavar="SIZE", help="Largest file, such as 400MB.")
@click.option("--max-memory", callback=_bytes, metavar="SIZE", help="Most memory, KV cache included.")
@click.option("--min-speed", type=Real(0, 1e9, min_open=True), help="Tokens/s on the device, at least.")
@click.option("--min-agreement", type=Real(0, 1), help="Same first choice as the source, 0 to 1.")
@click.option("--max-kl", type=Real(0, 1e9, min_open=True), help="KL divergence to the source, in nats.")
@click.option("--formats", callback=_formats, metavar="LIST", help="Formats to try: gguf,onnx,mlx.")
@click.option("--types", callback=_types, metavar="LIST", help="Variants to try: Q4_0,onnx:int8,mlx:4bit.")
@click.option(
    "--thorough",
    is_flag=True,
    help="Try every usual variant in every format, calibrated, on eight times the text.",
)
@click.option("--calibrate", is_flag=True, help="Weigh the rounding by what the model attends to; slower.")
@click.option("--tokens", type=click.IntRange(32), help="Tokens to measure quality on. [default: 2048]")
@click.option("--text", type=click.Path(path_type=Path), metavar="FILE", help="UTF-8 text to measure on.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads; every usable core unless given.")
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Where to write."
)
@click.option("--dry-run", is_flag=True, help="Show what would be tried, and how large; run nothing.")
@click.option("--force", is_flag=True, help="Replace an earlier report.")
@json_option
def command(
    model: str, output: Path | None, dry_run: bool, force: bool, as_json: bool, **options: Any
) -> None:
    """Make variants of MODEL, run each, measure, and recommend one for a device and a use case.

    MODEL is a GGUF file, a Hugging Face directory, or a name such as smollm2:135m. Variants are GGUF files,
    for models that make embeddings also ONNX and MLX; --formats chooses. Each runs in its own engine
    (llama.cpp, onnxruntime, mlx). Writes report.html, report.json and the picked model. Limits replace the
    floors of the use case. An interrupted run goes on where it was when you repeat the command. Exit code 3:
    nothing keeps the limits; the report says what would have to change.
    """
    from terazi import api

    if options["types"] and options["formats"]:
        raise click.UsageError("--types names formats already: leave --formats out")
    folder = output or Path(f"{_word(model)}-{_word(options['device'])}")
    with progress_bars(enabled=not as_json) as bars:
        progress = bars if sys.stderr.isatty() or as_json else _lines
        study = api.propose(model, progress=progress, **_request(options))
        if dry_run:
            return _show_plan(study, as_json)
        api.optimize(study, settings=_settings(options), output=folder, force=force, progress=progress)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if as_json:
        write_json(report)
    else:
        show(report)
        _show_recommendation(report, folder)
    return _judge(report)


def _request(options: Mapping[str, Any]) -> dict[str, Any]:
    from terazi.devices import Budget

    limits = ("max_size", "max_memory", "min_speed", "min_agreement", "max_kl")
    return {
        "device": options["device"],
        "use_case": options["use_case"],
        "budget": Budget(**{name: options[name] for name in limits}),
        "context": options["context"],
        "types": options["types"],
        "formats": options["formats"],
        "thorough": options["thorough"],
    }


def _settings(options: Mapping[str, Any]) -> Settings:
    from terazi.search import Settings

    settings = Settings(text=options["text"], threads=options["threads"])
    tokens = options["tokens"] or settings.tokens * (8 if options["thorough"] else 1)
    return replace(settings, tokens=tokens, calibrate=options["calibrate"] or options["thorough"])


def _lines(task: str, done: int, total: int, *, unit: str = "") -> None:
    """Report each variant on a line of its own, where there is no terminal to draw bars on."""
    if task == "variants" and done < total:
        click.echo(f"measuring variant {done + 1} of {total}", err=True)


def _word(text: str) -> str:
    """Make a folder name of a model's or device's name."""
    stem = re.sub(r"\.(gguf|toml)$", "", Path(text).name or text)
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip(".-") or "model"


def _show_plan(study: Study, as_json: bool) -> None:
    rows = [
        {
            "label": p.candidate.label,
            "source": p.candidate.source,
            "size": p.candidate.size,
            "bits_per_weight": p.candidate.bits_per_weight,
            "memory_needed": p.candidate.memory_needed,
            "exact": p.candidate.format == "gguf",
            "runs": p.skipped is None,
            "skipped": p.skipped,
        }
        for p in study.proposals
    ]
    if as_json:
        return write_json(
            {
                "device": study.device.name,
                "context": study.context,
                "variants": rows,
                "notes": list(study.notes),
            }
        )
    write_table(
        ("variant", "size", "bits", "memory", "plan"),
        [
            (
                row["label"] + (" (source)" if row["source"] else ""),
                _least(size(row["size"]), row) if row["size"] else "",
                f"{row['bits_per_weight']:.2f}",
                _least(size(row["memory_needed"]), row) if row["size"] else "",
                "measure" if row["runs"] else f"skip: {row['skipped']}",
            )
            for row in rows
        ],
        numeric=("size", "bits", "memory"),
    )
    made = [row for row in rows if row["runs"] and not row["source"]]
    click.echo(
        f"{len(made) + 1} variants would be measured for {study.device.title} at {study.context:,} tokens; "
        f"up to {size(sum(row['size'] for row in made))} of temporary files."
    )
    for note in study.notes:
        click.echo(f"note: {note}")
    return None


def _least(text: str, row: Mapping[str, Any]) -> str:
    """Mark what is a lower bound until the variant is made."""
    return text if row["exact"] else f"> {text}"


def _show_recommendation(report: Mapping[str, Any], folder: Path) -> None:
    found = report["recommendation"]
    for sentence in (*found["reasons"], *found["against"]):
        click.echo(f"- {sentence}")
    click.echo(f"- Engine: {found['framework']['reason']}")
    for caveat in report["caveats"]:
        click.echo(f"note: {caveat}")
    click.echo(f"\nReport: {folder / 'report.html'} (and report.json)")
    if found["run"]:
        click.echo(f"Run it:\n  {found['run']}")


def _judge(report: Mapping[str, Any]) -> None:
    """Raise `LimitError` when nothing keeps the limits."""
    from terazi.errors import LimitError

    found = report["recommendation"]
    if found["pick"] is None:
        raise LimitError(
            found["reasons"][0], hint=" ".join(found["changes"]) or "see the reasons in the table"
        )
