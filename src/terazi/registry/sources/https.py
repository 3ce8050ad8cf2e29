"""Models at any web address: one file."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from terazi.errors import UsageError
from terazi.registry.names import suggest
from terazi.registry.sources import Offer, Remote

if TYPE_CHECKING:
    from pathlib import Path

    from terazi.progress import Progress

__all__ = ["offer"]


def offer(reference: str, *, workplace: Path, progress: Progress) -> Offer:
    """Offer the file at a web address; passwords and queries stay out of what is recorded."""
    import httpx2

    try:
        url = httpx2.URL(reference)
    except httpx2.InvalidURL as error:
        raise UsageError(f"{reference[:200]!r} is not a web address ({error})") from None
    name = PurePosixPath(url.path).name
    if not url.host or not name:
        raise UsageError(f"{reference[:200]!r} names no file", hint="use https://host/path/model.gguf")
    public = str(url.copy_with(username=None, password=None, query=None, fragment=None))
    remote = Remote(name=suggest(name).model, url=reference)
    return Offer(source=public, name=suggest(PurePosixPath(name).stem), files=(remote,))
