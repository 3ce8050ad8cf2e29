"""Quantities as people write them: ``400MB``, ``1.5 GiB``, ``17.1 GB/s``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from terazi.errors import UsageError

__all__ = ["ByteRate", "ByteSize", "parse_bytes"]

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {_letter: 1000**_power, f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power}
_PATTERN = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kmgt]?i?b?)\s*", re.IGNORECASE)


def parse_bytes(text: str | float) -> int:
    """Read a size in bytes: a number, or text with a decimal (kB, MB, GB) or binary (KiB, MiB, GiB) unit.

    Raises `UsageError` for anything else, and for sizes that are not positive.
    """
    match = _PATTERN.fullmatch(str(text))
    unit = match.group(2).lower() if match else None
    if match is None or unit not in _UNITS:
        raise UsageError(f"{text!r} is not a size", hint="write it like 400MB or 1.5GiB")
    value = int(float(match.group(1)) * _UNITS[unit])
    if value <= 0:
        raise UsageError(f"{text!r} is not a size above zero")
    return value


def _size(value: Any) -> int:
    try:
        return parse_bytes(value)
    except UsageError as error:
        raise ValueError(f"{error.message}; {error.hint}" if error.hint else error.message) from None


def _rate(value: Any) -> int:
    text = str(value)
    return _size(text[: -len("/s")] if text.endswith("/s") else text)


ByteSize = Annotated[int, BeforeValidator(_size), Field(gt=0)]
"""A field in bytes that a file may write as ``"8 GB"``."""

ByteRate = Annotated[int, BeforeValidator(_rate), Field(gt=0)]
"""A field in bytes per second that a file may write as ``"17.1 GB/s"``."""
