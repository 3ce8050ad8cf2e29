"""``terazi convert``: a checkpoint in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from terazi.cli.operators import operators_before_and_after, write_operators
from terazi.cli.output import json_option, progress_bars, size, write_json

if TYPE_CHECKING:
    from terazi.model import Model

__all__ = ["command"]


_EXAMPLES = """\b
Examples:
  terazi convert ./Qwen3-0.6B qwen3.gguf --type F16
  terazi convert ./all-MiniLM-L6-v2 minilm-onnx --to onnx
  terazi convert model.gguf model-mlx --to mlx --bits 4
"""


@click.command(
    "convert",
    short_help="Convert a model to GGUF, ONNX, MLX or safetensors.",
    epilog=_EXAMPLES,
)
@click.argument("model")
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--to", "target", metavar="FORMAT", help="gguf, mlx, onnx or safetensors; by default what OUTPUT ends in."
)
@click.option(
    "--type", "type", metavar="NAME", help="What matrices become, such as F16; by default they stay."
)
@click.option("--bits", type=int, help="MLX: bits per weight (2, 3, 4, 5, 6 or 8).")
@click.option("--group-size", type=int, help="MLX: weights that share a scale (32, 64 or 128).")
@click.option("--mode", metavar="NAME", help="MLX: affine, mxfp4, nvfp4 or mxfp8.")
@click.option("--recipe", metavar="NAME", help="MLX: mixed_2_6, mixed_3_4, mixed_3_6 or mixed_4_6.")
@click.option("--opset", type=click.IntRange(11, 20), help="ONNX: version of the operators; by default 18.")
@click.option("--pre-tokenizer", "pre", metavar="NAME", help="GGUF: take this pre-tokenizer, fitting or not.")
@click.option("--dry-run", is_flag=True, help="GGUF: say how large the file would be and write nothing.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@json_option
def command(
    model: str, output: Path, target: str | None, dry_run: bool, force: bool, as_json: bool, **options: Any
) -> None:
    """Convert MODEL and write OUTPUT: a GGUF file, or a directory for the other formats.

    MODEL is a Hugging Face directory (config.json, safetensors, tokenizer files), a GGUF file, an MLX
    directory, an ONNX file, which is checked and optimized, or a stored name or source of these. The
    tokenizer, special tokens and chat template come along. `terazi quantize` makes smaller GGUF types of a
    checkpoint in one step.
    """
    from terazi.api import convert, open_model
    from terazi.convert import check_conversion

    chosen = {name: value for name, value in options.items() if value is not None}
    typed = {param.name: param.opts[0] for param in click.get_current_context().command.params}
    source = open_model(model)
    check_conversion(source.format, target, output, chosen, {name: typed[name] for name in options})
    if dry_run:
        return _dry_run(source, target, output, as_json, chosen)
    with progress_bars(enabled=not as_json) as progress:
        artifact = convert(source, target, output=output, force=force, progress=progress, **chosen)
    if as_json:
        onnx = artifact.format == "onnx"
        return write_json(
            {
                "path": str(artifact.path),
                "format": artifact.format,
                "type": artifact.label,
                "size": artifact.size,
                "digest": artifact.digest,
                "license": artifact.license,
                "operators": operators_before_and_after(source, open_model(output)) if onnx else None,
            }
        )
    click.echo(f"{artifact.path}: {artifact.format} {artifact.label}, {size(artifact.size)}")
    if artifact.format == "onnx":
        write_operators(source, open_model(output))
    return None


def _dry_run(source: Model, target: str | None, output: Path, as_json: bool, options: dict[str, Any]) -> None:
    from terazi.convert.gguf import to_gguf
    from terazi.formats import gguf

    if (target or output.suffix.lstrip(".")) != "gguf":
        raise click.UsageError("--dry-run knows the size of GGUF files only")
    made = to_gguf(source, **options)
    nbytes = gguf.file_size(made.metadata, list(made.tensors.values()))
    if as_json:
        write_json({"path": str(output), "size": nbytes, "architecture": made.config.architecture})
    else:
        click.echo(f"{output} would take {size(nbytes)}")
