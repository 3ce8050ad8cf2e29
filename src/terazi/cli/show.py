"""``terazi show``: everything the store knows of one model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from terazi.cli.output import json_option, size, write_json

if TYPE_CHECKING:
    from terazi.registry import Entry

__all__ = ["command"]


@click.command(
    "show", short_help="Show what the store knows of a model.", epilog="Example: terazi show smollm2:135m"
)
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """Show the files, the origin, the lineage and the settings of the stored model NAME."""
    from terazi.registry import Store

    store = Store()
    entry = store.entry(name)
    path = store.resolve(name)
    if as_json:
        return write_json(entry.to_dict() | {"path": str(path)})
    for label, value in _facts(entry):
        click.echo(f"{label:<10}{value}")
    click.echo(f"{'path':<10}{path}")
    for file in entry.manifest.files:
        role = "" if file.role == "weights" else f"  ({file.role})"
        click.echo(f"{'file':<10}{file.name}  {size(file.size)}  sha256:{file.digest}{role}")
    return None


def _facts(entry: Entry) -> list[tuple[str, str]]:
    manifest, lineage = entry.manifest, dict(entry.manifest.lineage)
    measured = lineage.pop("measurements", ())
    facts = [
        ("name", entry.name),
        ("digest", f"sha256:{entry.digest}"),
        ("size", size(manifest.size)),
        ("format", manifest.format),
        ("licence", manifest.license or "not stated"),
        ("source", manifest.source or "unknown"),
        ("added", time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.added))),
        ("note", manifest.notes or ""),
    ]
    labels = {"source_digest": "made from", "plan_digest": "plan"}
    facts += [(labels.get(key, key), str(value)) for key, value in lineage.items()]
    facts += [("measured", f"{m['metric']} = {m['value']:.6g} {m['unit']}".rstrip()) for m in measured]
    facts += [(key, " ".join(str(value).split())[:200]) for key, value in manifest.settings.items()]
    return [(label, value) for label, value in facts if value]
