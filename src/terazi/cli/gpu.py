"""How many layers go to GPUs, on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from typing import Any

__all__ = ["GpuLayers"]


class GpuLayers(click.ParamType):
    """A number of layers, or ``auto``, which becomes -1."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail as a wrong one does."""
        if value == "auto" or value == -1:
            return -1
        return click.IntRange(0, 10_000).convert(value, param, ctx)
