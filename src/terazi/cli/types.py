"""``terazi types``: the tensor types that GGUF files may hold."""

from __future__ import annotations

from dataclasses import asdict

import click

from terazi.cli.output import json_option, write_json, write_table
from terazi.dtypes import TYPES

__all__ = ["command"]

_IMPORTANCE = {
    "none": "not a target",
    "ignored": "makes no difference",
    "used": "improves it",
    "required": "required",
}


@click.command(
    "types",
    short_help="List tensor types, their bits and their class.",
    epilog="Example: terazi types --json",
)
@json_option
def command(as_json: bool) -> None:
    """List every tensor type of GGUF: bits per weight, precision class, and what an importance matrix does.

    Classes: ultra-low is 1-2 bit, low 3-4, medium 5-8, full 16-32. Rows must be a multiple of the block.
    """
    if as_json:
        write_json([asdict(kind) | {"bits_per_weight": kind.bits_per_weight} for kind in TYPES.values()])
        return
    shown = sorted(TYPES.values(), key=lambda kind: (kind.bits_per_weight, kind.id))
    write_table(
        ["type", "bits per weight", "class", "block", "bytes per block", "importance matrix"],
        [
            [
                kind.name,
                f"{kind.bits_per_weight:.4g}",
                kind.precision,
                str(kind.block_size),
                str(kind.block_bytes),
                "engine-internal" if kind.activation else _IMPORTANCE[kind.importance],
            ]
            for kind in shown
        ],
        numeric=["bits per weight", "block", "bytes per block"],
    )
