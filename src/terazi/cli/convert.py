"""``terazi convert``: a checkpoint in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from terazi.cli.output import json_option, progress_bars, size, write_json

__all__ = ["command"]


@click.command(
    "convert",
    short_help="Convert a checkpoint to GGUF, ONNX or MLX.",
    epilog="Examples: terazi convert ./Qwen3-0.6B qwen3.gguf --type F16\n\n"
    "terazi convert ./all-MiniLM-L6-v2 minilm-onnx --to onnx",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--to", "target", metavar="FORMAT", help="gguf, onnx or mlx; by default what OUTPUT ends in.")
@click.option(
    "--type", "type", metavar="NAME", help="What matrices become, such as F16; by default they stay."
)
@click.option("--bits", type=int, help="MLX: bits per weight (2, 3, 4, 5, 6 or 8).")
@click.option("--group-size", type=int, help="MLX: weights that share a scale (32, 64 or 128).")
@click.option("--mode", metavar="NAME", help="MLX: affine, mxfp4, nvfp4 or mxfp8.")
@click.option("--recipe", metavar="NAME", help="MLX: mixed_2_6, mixed_3_4, mixed_3_6 or mixed_4_6.")
@click.option("--pre-tokenizer", "pre", metavar="NAME", help="GGUF: take this pre-tokenizer, fitting or not.")
@click.option("--dry-run", is_flag=True, help="GGUF: say how large the file would be and write nothing.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@json_option
def command(
    model: Path, output: Path, target: str | None, dry_run: bool, force: bool, as_json: bool, **options: Any
) -> None:
    """Convert the checkpoint MODEL and write OUTPUT: a GGUF file, or a directory for ONNX and MLX.

    MODEL is a Hugging Face directory (config.json, safetensors, tokenizer files). The tokenizer, special
    tokens and chat template come along. `terazi quantize` takes the same directories and makes smaller GGUF
    types in one step.
    """
    from terazi.api import convert

    chosen = {name: value for name, value in options.items() if value is not None}
    if dry_run:
        return _dry_run(model, output, as_json, chosen)
    with progress_bars(enabled=not as_json) as progress:
        artifact = convert(model, target, output=output, force=force, progress=progress, **chosen)
    if as_json:
        write_json(
            {
                "path": str(artifact.path),
                "format": artifact.format,
                "type": artifact.label,
                "size": artifact.size,
                "digest": artifact.digest,
                "license": artifact.license,
            }
        )
        return None
    click.echo(f"{artifact.path}: {artifact.format} {artifact.label}, {size(artifact.size)}")
    return None


def _dry_run(model: Path, output: Path, as_json: bool, options: dict[str, Any]) -> None:
    from terazi.convert.gguf import to_gguf
    from terazi.formats import gguf, open_model

    made = to_gguf(open_model(model), **options)
    nbytes = gguf.file_size(made.metadata, list(made.tensors.values()))
    if as_json:
        write_json({"path": str(output), "size": nbytes, "architecture": made.config.architecture})
    else:
        click.echo(f"{output} would take {size(nbytes)}")
