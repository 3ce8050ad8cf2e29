"""Where models come from: each module turns a reference into a list of files to download."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from terazi.progress import Progress
    from terazi.registry.names import Name

__all__ = ["SOURCES", "Offer", "Remote", "offer"]

# Scheme -> module of this package. Each has `offer(reference, *, workplace, progress) -> Offer`.
SOURCES = {
    "hf": "huggingface",
    "pypi": "pypi",
    "ollama": "ollama",
    "oci": "oci",
    "https": "https",
    "http": "https",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file to fetch: from ``url`` with ``headers``, or already at ``path``.

    ``headers`` may carry credentials; they go to the host of ``url`` only. ``wheel`` says that the model is
    inside a Python wheel.
    """

    name: str
    url: str = ""
    path: Path | None = None
    size: int | None = None
    sha256: str | None = None
    role: str = "weights"
    wheel: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a source has: the exact version of it (``source``), a name for the store, the files."""

    source: str
    name: Name
    files: tuple[Remote, ...]
    license: str | None = None
    notes: str | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def offer(scheme: str, reference: str, *, workplace: Path, progress: Progress) -> Offer:
    """Ask a source what it has. Raises `DownloadError`, `NotFoundError` or `UsageError`."""
    module = import_module(f"{__name__}.{SOURCES[scheme]}")
    return module.offer(reference, workplace=workplace, progress=progress)
