"""``terazi convert``: a checkpoint in another format."""

from __future__ import annotations

from pathlib import Path

import click

from terazi.cli.output import json_option, progress_bars, size, write_json

__all__ = ["command"]


@click.command(
    "convert",
    short_help="Convert a Hugging Face checkpoint to GGUF.",
    epilog="Example: terazi convert ./Qwen3-0.6B qwen3.gguf --type F16",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--type",
    "type_",
    type=click.Choice(["F32", "F16", "BF16"], case_sensitive=False),
    help="What matrices become; by default they stay as they are stored.",
)
@click.option(
    "--pre-tokenizer", "pre", metavar="NAME", help="Take this llama.cpp pre-tokenizer, fitting or not."
)
@click.option("--dry-run", is_flag=True, help="Say how large the file would be and write nothing.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@json_option
def command(
    model: Path, output: Path, type_: str | None, pre: str | None, dry_run: bool, force: bool, as_json: bool
) -> None:
    """Convert the checkpoint MODEL to the GGUF file OUTPUT, which llama.cpp and what is built on it run.

    MODEL is a Hugging Face directory (config.json, safetensors, tokenizer files). The tokenizer, special
    tokens and chat template go into the file. `terazi quantize` takes the same directories and makes smaller
    types in one step.
    """
    from terazi.api import convert

    if dry_run:
        from terazi.convert.gguf import to_gguf
        from terazi.formats import gguf, open_model

        made = to_gguf(open_model(model), type=type_, pre=pre)
        nbytes = gguf.file_size(made.metadata, list(made.tensors.values()))
        report = {"path": str(output), "size": nbytes, "architecture": made.config.architecture}
        return write_json(report) if as_json else click.echo(f"{output} would take {size(nbytes)}")
    with progress_bars(enabled=not as_json) as progress:
        artifact = convert(model, output=output, type=type_, pre=pre, force=force, progress=progress)
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
    click.echo(f"{artifact.path}: {artifact.label}, {size(artifact.size)}")
    return None
