"""How many layers go to GPUs, on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from typing import Any

__all__ = ["GpuLayers"]


_MOST = 100_000


class GpuLayers(click.ParamType):
    """A number of layers, or ``auto``, which becomes -1."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail as a wrong one does."""
        if value == "auto" or value == -1:
            return -1
        if not str(value).isdecimal() or int(value) > _MOST:
            self.fail(f"{value!r} is neither auto nor a number of layers", param, ctx)
        return int(value)
