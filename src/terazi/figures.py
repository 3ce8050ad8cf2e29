"""Numbers as people read them: bytes and counts, in the unit that keeps them short."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["count", "scaled", "size", "three_digits"]


def scaled(value: float, units: Sequence[str], text: Callable[[float], str]) -> str:
    """Write ``value`` in the first of ``units``, each 1000 of the one before, in which it reads below 1000.

    What counts is what ``text`` rounds it to: 999.96 MB is 1.0 GB. The last unit takes all the rest.
    """
    for unit in units[:-1]:
        if float(text(abs(value))) < 1000:
            return f"{text(value)} {unit}".rstrip()
        value /= 1000
    shown = text(value) if abs(value) < 999.5 else f"{value:,.0f}"
    return f"{shown} {units[-1]}"


def size(nbytes: float, text: Callable[[float], str] = "{:.1f}".format) -> str:
    """Format bytes in decimal units: ``98.4 MB``."""
    if abs(nbytes) < 999.5:
        return f"{nbytes:.0f} B"
    return scaled(nbytes / 1000, ("kB", "MB", "GB", "TB"), text)


def count(number: float) -> str:
    """Format a number of weights: ``135 M``."""
    return scaled(number, ("", "k", "M", "B", "T"), three_digits)


def three_digits(value: float) -> str:
    """Format with three significant digits, without ending zeros."""
    return f"{value:.3g}"
