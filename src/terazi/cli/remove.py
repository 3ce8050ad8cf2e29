"""``terazi remove``: forget stored models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from terazi.cli.output import json_option, size, write_json

if TYPE_CHECKING:
    from terazi.registry import Store

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
    from terazi.registry.names import parse_name

    if not names and not unfinished:
        raise click.UsageError("give a NAME, or --unfinished")
    store = Store()
    sizes = {str(parse_name(name)): _size(store, name) for name in names}  # all are there, or none goes
    rows = [
        {"name": name, "freed": nbytes if dry_run else store.remove(name)} for name, nbytes in sizes.items()
    ]
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


def _size(store: Store, name: str) -> int:
    """Bytes of a model, 0 of one whose manifest is damaged. Raises `NotFoundError`."""
    from terazi.errors import FormatError

    try:
        return store.entry(name).manifest.size
    except FormatError:
        return 0
