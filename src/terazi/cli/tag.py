"""``terazi tag``: another name for a stored model."""

from __future__ import annotations

import click

from terazi.cli.output import json_option, write_json

__all__ = ["command"]


@click.command(
    "tag",
    short_help="Give a stored model another name.",
    epilog="Example: terazi tag smollm2:135m-q4_k_m team/assistant:stable",
)
@click.argument("name")
@click.argument("alias")
@click.option("--force", is_flag=True, help="Move ALIAS when another model has it.")
@json_option
def command(name: str, alias: str, force: bool, as_json: bool) -> None:
    """Let ALIAS name the same content as NAME. Nothing is copied; each name can be removed by itself."""
    from terazi.registry import Store

    entry = Store().tag(name, alias, force=force)
    if as_json:
        return write_json({"name": str(entry.name), "digest": entry.digest})
    return click.echo(f"{entry.name} is now sha256:{entry.digest[:12]}")
