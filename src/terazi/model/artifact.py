"""A finished set of files: what they are, where they came from, and their digests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Artifact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Model files that Terazi wrote or stored.

    ``digest`` is the SHA-256 of the file, or of the sorted ``name digest`` lines when there are several.
    ``source_digest`` and ``plan_digest`` say what it was made from: same source and plan, same bytes.
    """

    path: Path
    format: str
    files: tuple[Path, ...]
    size: int
    digest: str
    label: str = ""
    source_digest: str | None = None
    plan_digest: str | None = None
    license: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
