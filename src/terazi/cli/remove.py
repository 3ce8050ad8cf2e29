"""``terazi remove``: forget stored models."""

from __future__ import annotations

import click

from terazi.cli.output import size

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
def command(names: tuple[str, ...], unfinished: bool, dry_run: bool) -> None:
    """Remove each NAME from the store, with the contents that no other name uses."""
    from terazi.registry import Store

    if not names and not unfinished:
        raise click.UsageError("give a NAME, or --unfinished")
    store = Store()
    entries = [store.entry(name) for name in names]
    if dry_run:
        for entry in entries:
            click.echo(f"would remove {entry.name} (up to {size(entry.manifest.size)})")
        return
    for entry in entries:
        freed = store.remove(entry.name)
        kept = "" if freed else "; other names still use its content"
        click.echo(f"removed {entry.name}, freed {size(freed)}{kept}")
    if unfinished:
        click.echo(f"freed {size(store.collect(older_than=0))} of unfinished downloads")
