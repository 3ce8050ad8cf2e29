"""``terazi devices``: the devices that models can be chosen for."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from terazi.cli.output import json_option, size, write_json, write_table

if TYPE_CHECKING:
    from terazi.devices import Device

__all__ = ["command"]


@click.command(
    "devices",
    short_help="List the devices that models can be chosen for.",
    epilog="\b\nExamples:\n  terazi devices\n  terazi devices raspberry-pi-5 --json > my-board.json",
)
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List device profiles, or show NAME: a profile, this-machine, or a TOML or JSON file of your own.

    Write your own profile by changing the JSON of a shipped one, and give its path to --device.
    """
    from terazi import devices

    if name is not None:
        found = devices.device(name)
        return write_json(asdict(found)) if as_json else _show(found)
    known = [devices.this_machine(), *devices.devices().values()]
    if as_json:
        return write_json([asdict(device) for device in known])
    rows = [
        (d.name, d.title, size(d.memory.usable), f"{d.memory.bandwidth / 1e9:.0f} GB/s", d.runtimes[0])
        for d in known
    ]
    return write_table(
        ("name", "device", "memory for a model", "bandwidth", "engine"),
        rows,
        numeric=("memory for a model", "bandwidth"),
    )


def _show(device: Device) -> None:
    rows = [
        ("name", device.name),
        ("device", device.title),
        ("processor", f"{device.cpu.name}, {device.cpu.architecture}, {device.cpu.cores} cores"),
        ("instruction sets", ", ".join(device.cpu.instruction_sets) or "not stated"),
        ("memory", f"{size(device.memory.total)}, {size(device.memory.usable)} of it for a model"),
        ("bandwidth", f"{device.memory.bandwidth / 1e9:.1f} GB/s: {device.memory.source}"),
        ("accelerators", ", ".join(entry.name for entry in device.accelerators) or "none"),
        ("engines", ", ".join(device.runtimes)),
        ("formats", ", ".join(device.formats)),
    ]
    if device.limits.reason:
        rows.append(("limits", device.limits.reason))
    if device.power:
        rows.append(("power", f"{device.power.watts:g} W: {device.power.source}"))
    write_table(("", ""), rows)
