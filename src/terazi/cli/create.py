"""``terazi create``: a model by a Modelfile."""

from __future__ import annotations

from pathlib import Path

import click

from terazi.cli.output import json_option, progress_bars, size, write_json
from terazi.errors import FormatError, NotFoundError

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  terazi create assistant -f Modelfile
  terazi create assistant:small -f Modelfile --quantize Q4_K_M
"""


@click.command("create", short_help="Make a model by a Modelfile.", epilog=_EXAMPLES)
@click.argument("name")
@click.option(
    "-f", "--file", "path", type=click.Path(path_type=Path), default=Path("Modelfile"), show_default=True,
    help="The Modelfile.",
)  # fmt: skip
@click.option("--quantize", metavar="PRESET", help="Quantize the base, such as Q4_K_M.")
@json_option
def command(name: str, path: Path, quantize: str | None, as_json: bool) -> None:
    """Store a model under NAME: a base with its own system prompt, parameters, template, adapters.

    FROM names a model in the store or the catalog, a source, a GGUF file, or a checkpoint directory.
    """
    from terazi.serve.create import create
    from terazi.serve.modelfile import parse

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file", hint="name the Modelfile with -f") from None
    except UnicodeDecodeError:
        raise FormatError(path, "not a text file in UTF-8") from None
    with progress_bars(enabled=not as_json) as progress:
        entry = create(
            parse(text, str(path)), name, quantize=quantize, directory=path.parent, progress=progress
        )
    if as_json:
        return write_json(entry.to_dict())
    click.echo(f"{entry.name}: {size(entry.manifest.size)}")
    click.echo(f"Next: terazi run {entry.name}", err=True)
    return None
