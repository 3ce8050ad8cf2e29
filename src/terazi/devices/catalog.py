"""The shipped profiles and use cases, and the reading of a user's own file."""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from terazi.devices.device import Device
from terazi.devices.machine import THIS_MACHINE, this_machine
from terazi.devices.use_case import UseCase
from terazi.errors import FormatError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.resources.abc import Traversable

__all__ = ["device", "devices", "use_case", "use_cases"]

T = TypeVar("T", Device, UseCase)

_LIMIT = 1 << 18  # bytes; a profile is a page of text


@cache
def devices() -> dict[str, Device]:
    """Return the shipped device profiles by name, sorted. `this_machine` is not among them."""
    return {found.name: found for found in _shipped("profiles", Device)}


@cache
def use_cases() -> dict[str, UseCase]:
    """Return the shipped use cases by name, sorted."""
    return {found.name: found for found in _shipped("use_cases", UseCase)}


def device(name: str | Path) -> Device:
    """Find a profile by name (``this-machine`` is detected) or read it from a TOML or JSON file.

    Raises `NotFoundError` naming what there is, and `FormatError` for a file that does not fit.
    """
    if str(name) == THIS_MACHINE:
        return this_machine()
    return _find(name, devices(), Device, "device", extra=(THIS_MACHINE,))


def use_case(name: str | Path) -> UseCase:
    """Find a use case by name, or read it from a TOML or JSON file; errors as for `device`."""
    return _find(name, use_cases(), UseCase, "use case")


def _find(name: str | Path, known: dict[str, T], kind: type[T], what: str, extra: Iterable[str] = ()) -> T:
    if str(name) in known:
        return known[str(name)]
    path = Path(name)
    if path.suffix in (".toml", ".json") or path.is_file():
        return _read(path, kind)
    raise NotFoundError(
        f"no {what} is called {str(name)!r}",
        hint=f"one of {', '.join([*known, *extra])}, or a .toml or .json file",
    )


def _shipped(folder: str, kind: type[T]) -> list[T]:
    root = files("terazi.devices") / folder
    return [
        _read(entry, kind)
        for entry in sorted(root.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    ]


def _read(path: Traversable | Path, kind: type[T]) -> T:
    """Read one TOML or JSON file. The file's name is the default for ``name``."""
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file") from None
    except OSError as error:
        raise FormatError(str(path), f"cannot be read: {error.strerror}") from None
    if len(data) > _LIMIT:
        raise FormatError(str(path), f"is larger than {_LIMIT // 1024} KiB, which no profile is")
    is_json = path.name.endswith(".json") or data.lstrip().startswith(b"{")  # which TOML never does
    try:
        values: dict[str, Any] = (json if is_json else tomllib).loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(str(path), f"is not {'JSON' if is_json else 'TOML'}: {error}") from None
    if not isinstance(values, dict):
        raise FormatError(str(path), "holds more than one profile", hint="see `terazi devices NAME --json`")
    values.setdefault("name", re.sub(r"\.(toml|json)$", "", path.name))
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise FormatError(
            str(path), _first_problem(error), hint="compare with `terazi devices --json`"
        ) from None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    words = {
        "unexpected_keyword_argument": "is not a known key",
        "missing": "is missing",
        "missing_keyword_only_argument": "is missing",
    }
    text = words.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    more = error.error_count() - 1
    return f"{where}: {text}" + (f" (and {more} more)" if more else "")
