"""``terazi pull``: bring a model into the store."""

from __future__ import annotations

import click

from terazi.cli.output import json_option, progress_bars, size, write_json

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  terazi pull smollm2:135m
  terazi pull hf:bartowski/SmolLM2-360M-Instruct-GGUF/SmolLM2-360M-Instruct-Q4_K_M.gguf
  terazi pull hf:onnx-community/all-MiniLM-L6-v2-ONNX/onnx/model_quantized.onnx
  terazi pull ollama:qwen3:0.6b
  terazi pull oci:registry.example:5000/team/model:v1
  terazi pull ./model.gguf --name team/model:v1
"""


@click.command("pull", short_help="Bring a model into the store.", epilog=_EXAMPLES)
@click.argument("model")
@click.option("--name", metavar="NAME", help="Store it under this name instead of its own.")
@json_option
def command(model: str, name: str | None, as_json: bool) -> None:
    """Fetch MODEL into the store: a name in the catalog, a source, or a local file or directory.

    Sources are hf:org/name[/path], pypi:package, ollama:name, oci:host/name:tag, https://… and file:path.
    An interrupted download continues when the command is run again. Contents that are stored already are not
    fetched twice.
    """
    from terazi.registry import pull

    with progress_bars(enabled=not as_json) as progress:
        entry = pull(model, name=name, progress=progress)
    if as_json:
        return write_json(entry.to_dict())
    manifest = entry.manifest
    click.echo(
        f"{entry.name}: {size(manifest.size)}, {manifest.format}, licence {manifest.license or 'not stated'}"
    )
    for file in manifest.files:
        click.echo(f"  {file.name}  sha256:{file.digest}")
    click.echo(f"  from {manifest.source}")
    if manifest.notes:
        click.echo(f"note: {manifest.notes}", err=True)
    click.echo(f"Next: terazi inspect {entry.name}", err=True)
    return None
