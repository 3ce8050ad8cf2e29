"""``terazi verify``: check stored contents against their digests."""

from __future__ import annotations

import click

from terazi.cli.output import json_option, progress_bars, write_json
from terazi.errors import TeraziError

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  terazi verify --store
  terazi verify --store --discard-damaged
"""


@click.command("verify", short_help="Check stored models against their digests.", epilog=_EXAMPLES)
@click.option("--store", "whole_store", is_flag=True, help="Hash every content of the store again.")
@click.option("--discard-damaged", is_flag=True, help="Delete damaged contents; the next pull brings them.")
@json_option
def command(whole_store: bool, discard_damaged: bool, as_json: bool) -> None:
    """Hash everything in the store again and report what is damaged or missing."""
    from terazi.registry import Store

    if not whole_store:
        raise click.UsageError("say what to verify: --store")
    store = Store()
    with progress_bars(enabled=not as_json) as progress:
        problems = store.verify(progress=progress)
    if discard_damaged:
        store.discard_damaged(problems)
    if as_json:
        write_json({"store": str(store.root), "problems": problems})
    else:
        for what, problem in problems.items():
            click.echo(f"{what}: {problem}")
    if problems:
        hint = "pull the models again" if discard_damaged else "terazi verify --store --discard-damaged"
        raise TeraziError(f"{len(problems)} problems in {store.root}", hint=hint)
    if not as_json:
        click.echo(f"{store.root}: all contents are as they were stored")
