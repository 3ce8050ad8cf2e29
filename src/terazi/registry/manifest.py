"""What a stored model consists of: files by digest, where they came from, and what was measured on them."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from terazi.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Entry", "Manifest", "StoredFile", "check_file_name"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_RESERVED = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file: its relative name, SHA-256, bytes, and what it is for.

    ``role`` is ``weights``, ``adapter`` (LoRA) or ``projector`` (image encoder).
    """

    name: str
    digest: str
    size: int
    role: str = "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An immutable description of a stored model; its own SHA-256 pins everything.

    ``lineage`` tells what it was made from (``source_digest``, ``plan_digest``, ``recipe``,
    ``measurements``); ``settings`` what to run it with (``system``, ``template``, ``parameters``,
    ``messages``).
    """

    format: str
    files: tuple[StoredFile, ...]
    source: str | None = None
    license: str | None = None
    notes: str | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def weights(self) -> tuple[StoredFile, ...]:
        """The model's own files, without adapters and projectors."""
        return tuple(file for file in self.files if file.role == "weights")

    def to_bytes(self) -> bytes:
        """Return canonical JSON: the same manifest always has the same digest."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()

    @staticmethod
    def from_bytes(data: bytes, origin: Path | str) -> Manifest:
        """Read what `to_bytes` wrote. Raises `FormatError` for anything that is not a safe manifest."""
        try:
            values = json.loads(data)
            files = tuple(StoredFile(**file) for file in values.pop("files"))
            manifest = Manifest(files=files, **values)
            _check_types(manifest)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise FormatError(origin, f"not a manifest ({error})") from None
        for file in files:
            if not isinstance(file.digest, str) or not _DIGEST.fullmatch(file.digest):
                raise FormatError(origin, f"{file.digest!r} is not a SHA-256")
            if not isinstance(file.size, int) or file.size < 0:
                raise FormatError(origin, f"{file.size!r} is not a size")
            check_file_name(file.name, origin)
        return manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A name in the store and the manifest it points to. ``added`` is seconds since 1970."""

    name: str
    digest: str
    manifest: Manifest
    added: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "name": self.name,
            "digest": f"sha256:{self.digest}",
            "size": self.manifest.size,
            "added": self.added,
            **asdict(self.manifest),
        }


def _check_types(manifest: Manifest) -> None:
    """Raise `TypeError` unless every field is of its own type."""
    words = (manifest.source, manifest.license, manifest.notes)
    texts = [manifest.format, *(word for word in words if word is not None)]
    mappings = (manifest.lineage, manifest.settings)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(m, dict) for m in mappings):
        raise TypeError("a field is of another type")


def check_file_name(name: str, origin: Path | str) -> str:
    """Return ``name`` when it is a plain relative path inside a model. Raises `FormatError` otherwise."""
    path = PurePosixPath(name) if isinstance(name, str) and name else PurePosixPath("/")
    unsafe = (
        not path.parts or path.is_absolute() or ".." in path.parts or len(name) > 400 or len(path.parts) > 8
    )
    if unsafe or _RESERVED.search(name) or str(path) != name:
        raise FormatError(origin, f"unsafe file name {name!r}"[:200])
    return name
