"""The catalog: models known by name, their licences and where to get them."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from terazi.registry.names import parse_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from terazi.model.license import LicenseCheck, Use

__all__ = ["CatalogEntry", "catalog", "find", "search"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """A known model. ``sources`` are tried in order; ``sha256`` and ``size`` (bytes) pin its one file."""

    name: str
    title: str
    publisher: str
    license: str
    kind: Literal["chat", "base", "embedding", "code"]
    parameters: int
    format: str
    upstream: str
    sources: tuple[str, ...]
    file: str | None = None
    size: int | None = None
    sha256: str | None = None
    notes: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@cache
def catalog() -> Mapping[str, CatalogEntry]:
    """Return every known model by name, in the catalog's order."""
    text = files("terazi.registry").joinpath("catalog.toml").read_text(encoding="utf-8")
    entries = {}
    for name, values in tomllib.loads(text).items():
        values["sources"] = tuple(values["sources"])
        entries[name] = CatalogEntry(name=name, **values)
    return MappingProxyType(entries)


def find(name: str) -> CatalogEntry | None:
    """Return the entry of ``model[:tag]``; a bare model means its first entry."""
    parsed = parse_name(name)
    if (found := catalog().get(str(parsed))) or ":" in name:
        return found
    return next((entry for key, entry in catalog().items() if parse_name(key).model == parsed.model), None)


def search(*, use: Use | None = None, kind: str | None = None) -> list[tuple[CatalogEntry, LicenseCheck]]:
    """Return entries with what their licence says of ``use`` (``commercial`` unless given).

    With ``use`` given, only those that allow it stay, with or without conditions.
    """
    from terazi.model.license import check_license

    checked = [(entry, check_license(entry.license, use or "commercial")) for entry in catalog().values()]
    return [
        (entry, verdict)
        for entry, verdict in checked
        if kind in (None, entry.kind) and (use is None or verdict.verdict in ("yes", "conditions"))
    ]
