"""``terazi catalog``: models that Terazi knows by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from terazi.cli.output import count, json_option, size, write_json, write_table

if TYPE_CHECKING:
    from terazi.model.license import Use

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  terazi catalog
  terazi catalog --use commercial --kind chat
"""


@click.command("catalog", short_help="List the models known by name, with licences.", epilog=_EXAMPLES)
@click.option(
    "--use",
    type=click.Choice(["commercial", "redistribution", "research", "personal"]),
    help="Only models whose licence allows this use, with or without conditions.",
)
@click.option("--kind", type=click.Choice(["chat", "base", "embedding", "code"]), help="Only this kind.")
@json_option
def command(use: Use | None, kind: str | None, as_json: bool) -> None:
    """List the models that `terazi pull` knows by name, and the variants of them in the store.

    What a licence allows is a first orientation and no legal advice.
    """
    from terazi.registry import Store
    from terazi.registry.catalog import search

    found = search(use=use, kind=kind)
    stored = [entry.name for entry in Store().entries()]
    variants = {known.name: [name for name in stored if name.startswith(known.name)] for known, _ in found}
    if as_json:
        return write_json(
            [
                known.to_dict()
                | {"use": verdict.verdict, "condition": verdict.reason, "stored": variants[known.name]}
                for known, verdict in found
            ]
        )
    rows = [
        (
            known.name,
            known.title,
            known.kind,
            count(known.parameters),
            size(known.size) if known.size else "",
            known.license,
            verdict.verdict,
            ", ".join(variants[known.name]) or "no",
        )
        for known, verdict in found
    ]
    columns = ("name", "title", "kind", "weights", "size", "licence", use or "commercial", "stored")
    return write_table(columns, rows, numeric=("weights", "size"))
