"""``terazi list``: the models in the store."""

from __future__ import annotations

import time

import click

from terazi.cli.output import json_option, size, write_json, write_table

__all__ = ["command"]


@click.command(
    "list", short_help="List the models in the store.", epilog="Example: terazi list smollm2 --json"
)
@click.argument("words", nargs=-1, metavar="[TEXT]...")
@json_option
def command(words: tuple[str, ...], as_json: bool) -> None:
    """List the models in the store, or those whose name contains every TEXT."""
    from terazi.registry import Store

    store = Store()
    known = store.entries()
    for name, problem in store.damaged().items():
        click.echo(f"note: {name} is damaged: {problem}; pull it again or `terazi remove {name}`", err=True)
    entries = [entry for entry in known if all(word.lower() in entry.name for word in words)]
    if as_json:
        return write_json([entry.to_dict() for entry in entries])
    if known and not entries:
        return click.echo(f"None of the {len(known)} models' names contains {' and '.join(words)}", err=True)
    if not entries:
        return click.echo(f"No models in {store.root}. Try: terazi pull smollm2:135m", err=True)
    rows = [
        (
            entry.name,
            size(entry.manifest.size),
            entry.manifest.format,
            entry.manifest.license or "not stated",
            entry.digest[:12],
            time.strftime("%Y-%m-%d", time.localtime(entry.added)),
        )
        for entry in entries
    ]
    return write_table(("name", "size", "format", "licence", "digest", "added"), rows, numeric=("size",))
