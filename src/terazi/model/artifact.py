"""A finished set of files: what they are, where they came from, and their digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.files import sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    @staticmethod
    def of_files(files: Sequence[Path], *, format: str, **facts: Any) -> Artifact:
        """Describe finished files: reads them for their digest. ``facts`` are the other fields."""
        digests = [sha256(file) for file in files]
        lines = "".join(
            sorted(f"{file.name} {digest}\n" for file, digest in zip(files, digests, strict=True))
        )
        return Artifact(
            path=files[0],
            format=format,
            files=tuple(files),
            size=sum(file.stat().st_size for file in files),
            digest=digests[0] if len(files) == 1 else hashlib.sha256(lines.encode()).hexdigest(),
            versions={"terazi": version("terazi")},
            **facts,
        )

    @staticmethod
    def of_directory(directory: Path, *, format: str, **facts: Any) -> Artifact:
        """Describe a directory of model files: every file below it counts."""
        files = sorted(file for file in directory.rglob("*") if file.is_file())
        return replace(Artifact.of_files(files, format=format, **facts), path=directory)
