"""``terazi remove``: forget stored models."""

from __future__ import annotations

import click

from terazi.cli.output import json_option, size, write_json

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  terazi remove smollm2:135m-q4_k_m
  terazi remove --unfinished
"""


@click.command("remove", short_help="Remove models from the store.", epilog=_EXAMPLES)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--unfinished", is_flag=True, help="Also delete unfinished downloads and unnamed contents.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, remove nothing.")
@json_option
def command(names: tuple[str, ...], unfinished: bool, dry_run: bool, as_json: bool) -> None:
    """Remove each NAME from the store, with the contents that no other name uses."""
    from terazi.registry import Store

    if not names and not unfinished:
        raise click.UsageError("give a NAME, or --unfinished")
    store = Store()
    entries = [store.entry(name) for name in names]
    if dry_run:
        rows = [{"name": str(entry.name), "freed": entry.manifest.size} for entry in entries]
    else:
        rows = [{"name": str(entry.name), "freed": store.remove(entry.name)} for entry in entries]
    cleared = store.collect(older_than=0) if unfinished and not dry_run else 0
    if as_json:
        return write_json({"removed": rows, "unfinished": cleared, "dry_run": dry_run})
    for row in rows:
        if dry_run:
            click.echo(f"would remove {row['name']} (up to {size(row['freed'])})")
        else:
            kept = "" if row["freed"] else "; other names still use its content"
            click.echo(f"removed {row['name']}, freed {size(row['freed'])}{kept}")
    if unfinished and not dry_run:
        click.echo(f"freed {size(cleared)} of unfinished downloads")
    return None
