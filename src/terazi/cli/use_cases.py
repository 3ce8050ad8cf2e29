"""``terazi use-cases``: what models can be chosen for."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from terazi.cli.output import json_option, write_json, write_table

if TYPE_CHECKING:
    from terazi.devices import Budget

__all__ = ["command"]


@click.command(
    "use-cases",
    short_help="List what models can be chosen for, with weights and floors.",
    epilog="Example: terazi use-cases --json",
)
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List use cases, or show NAME: one of them, or a TOML or JSON file of your own.

    Weights say how much quality, speed and small size count. Floors must hold unless you set other limits
    with terazi optimize.
    """
    from terazi import devices

    known = list(devices.use_cases().values()) if name is None else [devices.use_case(name)]
    if as_json:
        return write_json(asdict(known[0]) if name is not None else [asdict(entry) for entry in known])
    rows = [
        (
            entry.name,
            f"{entry.weights.quality:g}",
            f"{entry.weights.speed:g}",
            f"{entry.weights.size:g}",
            _floors(entry.floors),
            f"{entry.context:,}",
            entry.description,
        )
        for entry in known
    ]
    return write_table(
        ("name", "quality", "speed", "size", "floors", "context", "for"),
        rows,
        numeric=("quality", "speed", "size", "context"),
    )


def _floors(floors: Budget) -> str:
    words = []
    if floors.min_speed:
        words.append(f"{floors.min_speed:g} tokens/s")
    if floors.min_agreement:
        words.append(f"{floors.min_agreement:.0%} agreement")
    if floors.min_cosine:
        words.append(f"cosine {floors.min_cosine:g}")
    return ", ".join(words) or "none"
