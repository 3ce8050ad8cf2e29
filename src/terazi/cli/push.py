"""``terazi push``: put a stored model on a registry."""

from __future__ import annotations

import click

from terazi.cli.output import json_option, progress_bars, write_json

__all__ = ["command"]


@click.command(
    "push",
    short_help="Put a stored model on a container registry.",
    epilog="\b\nExample:\n  terazi push smollm2:135m-q4_k_m oci:registry.example:5000/team/smollm2:v1",
)
@click.argument("name")
@click.argument("target")
@json_option
def command(name: str, target: str, as_json: bool) -> None:
    """Upload the stored model NAME to TARGET, an address like oci:host/name:tag.

    Any OCI registry will do; `docker login` keeps the password. What it has already is not sent again.
    """
    from terazi.registry.push import push

    with progress_bars(enabled=not as_json) as progress:
        pinned = push(name, target, progress=progress)
    if as_json:
        return write_json({"name": name, "source": pinned})
    click.echo(pinned)
    click.echo(f"Next: terazi pull {target}", err=True)
    return None
