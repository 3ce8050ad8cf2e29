"""Models on Ollama's registry: ``ollama:[[host/]namespace/]name[:tag]``.

The protocol is OCI's with media types of its own. TERAZI_OLLAMA_REGISTRY names another default host.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from terazi.errors import FormatError, UnsupportedError, UsageError
from terazi.registry.distribution import Repository, parse_repository
from terazi.registry.names import suggest
from terazi.registry.sources import Offer, Remote

if TYPE_CHECKING:
    from pathlib import Path

    from terazi.progress import Progress

__all__ = ["offer"]

_PREFIX = "application/vnd.ollama.image."
# Media type's last word -> role and file name of a layer that is a file.
_FILES = {
    "model": ("weights", "model.gguf"),
    "adapter": ("adapter", "adapter-{number}.gguf"),
    "projector": ("projector", "projector-{number}.gguf"),
}


def offer(reference: str, *, workplace: Path, progress: Progress) -> Offer:
    """Offer weights, adapters and projectors as files; template, system and parameters as settings."""
    parts = reference.split("/")
    if len(parts) > 3 or not all(parts):
        raise UsageError(f"ollama:{reference[:200]} is not a model", hint="use ollama:name:tag")
    full = ["library", *parts] if len(parts) == 1 else parts
    if len(full) == 2:
        full = [os.environ.get("TERAZI_OLLAMA_REGISTRY", "registry.ollama.ai"), *full]
    host, path, version = parse_repository("/".join(full).lower())
    with Repository(host, path) as repository:
        manifest, digest = repository.manifest(version)
        files, settings, license = [], {}, None
        for number, layer in enumerate(manifest["layers"]):
            kind = str(layer.get("mediaType", "")).removeprefix(_PREFIX).partition(";")[0]
            if kind in _FILES:
                role, name = _FILES[kind]
                files.append(_remote(repository, layer, role, name.format(number=number)))
            elif kind == "tensor":
                raise UnsupportedError(
                    f"ollama:{reference} is stored tensor by tensor", hint="use a variant stored as GGUF"
                )
            elif kind == "license":
                license = (
                    license
                    or repository.blob(layer).decode(errors="replace").strip().partition("\n")[0][:100]
                )
            elif kind in ("template", "system", "params", "messages"):
                settings |= _setting(kind, repository.blob(layer), reference)
    weights = sum(file.role == "weights" for file in files)
    if weights != 1:
        raise UnsupportedError(f"ollama:{reference} has {weights} weight files, expected 1")
    return Offer(
        source=f"ollama:{host}/{path}@sha256:{digest}",
        name=suggest(path.removeprefix("library/"), version),
        files=tuple(files),
        license=license,
        settings=settings,
    )


def _setting(kind: str, data: bytes, reference: str) -> dict[str, Any]:
    """What a small layer says: text, or JSON."""
    try:
        if kind in ("template", "system"):
            return {kind: data.decode()}
        value = json.loads(data)
    except ValueError:
        raise FormatError(f"ollama:{reference}", f"its {kind} are damaged") from None
    return {"parameters" if kind == "params" else kind: value}


def _remote(repository: Repository, layer: dict[str, Any], role: str, name: str) -> Remote:
    return Remote(
        name=name,
        url=repository.blob_url(layer["digest"]),
        size=layer["size"],
        sha256=layer["digest"].removeprefix("sha256:"),
        role=role,
        headers=dict(repository.headers),
    )
