"""``terazi doctor``: what this machine can do, and how to get what is missing."""

from __future__ import annotations

import click

from terazi.cli.output import json_option, write_json, write_table

__all__ = ["command"]

_MARKS = {"ok": "ok", "missing": "--", "problem": "!!"}


@click.command(
    "doctor",
    short_help="Check engines, kernels, memory and disk; say how to fix what is missing.",
    epilog="\b\nExamples:\n  terazi doctor\n  terazi doctor --json",
)
@json_option
def command(as_json: bool) -> None:
    """Check this machine: engines, kernels, processor, GPUs, memory, disk, store.

    Optional parts that are missing are listed with the command that installs them. Exit code 1 when
    something that Terazi always needs is broken.
    """
    from terazi.devices.health import checks

    found = checks()
    if as_json:
        write_json([{"name": c.name, "state": c.state, "found": c.found, "fix": c.fix} for c in found])
    else:
        write_table(
            ("", "check", "found", "to fix"),
            [(_MARKS[check.state], check.name, check.found, check.fix) for check in found],
        )
    if any(check.state == "problem" for check in found):
        raise click.exceptions.Exit(1)
