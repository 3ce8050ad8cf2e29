"""Models on container registries: ``oci:host/name:tag``.

Layers are single files, as ModelPack (https://github.com/modelpack/model-spec) and ORAS write them; an
artifact that Terazi pushed brings its lineage and settings along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from terazi.errors import UnsupportedError
from terazi.registry.distribution import Repository, parse_repository
from terazi.registry.manifest import Manifest
from terazi.registry.names import suggest
from terazi.registry.sources import Offer, Remote

if TYPE_CHECKING:
    from pathlib import Path

    from terazi.progress import Progress

__all__ = ["DESCRIPTION", "FILE_NAMES", "offer"]

DESCRIPTION = "application/vnd.terazi.manifest.v1+json"
"""Media type of the layer that holds Terazi's own manifest."""

FILE_NAMES = ("org.cncf.model.filepath", "org.opencontainers.image.title", "org.cnai.model.filepath")
"""Annotations that may name a layer's file: ModelPack's, ORAS's, and ModelPack's former one."""


def offer(reference: str, *, workplace: Path, progress: Progress) -> Offer:
    """Offer the files of an artifact, checked against the digests in its manifest."""
    host, path, version = parse_repository(reference)
    with Repository(host, path) as repository:
        manifest, digest = repository.manifest(version)
        described = _described(repository, manifest["layers"])
        roles = {file.digest: file.role for file in described.files} if described else {}
        layers = [layer for layer in manifest["layers"] if layer.get("mediaType") != DESCRIPTION]
        files = tuple(_remote(repository, layer, roles, len(layers)) for layer in layers)
    tag = "" if version.startswith("sha256:") else version
    return Offer(
        source=f"oci:{host}/{path}@sha256:{digest}",
        name=suggest(path, tag),
        files=files,
        license=described.license if described else None,
        notes=described.notes if described else None,
        lineage=described.lineage if described else {},
        settings=described.settings if described else {},
    )


def _described(repository: Repository, layers: list[dict[str, Any]]) -> Manifest | None:
    for layer in layers:
        if layer.get("mediaType") == DESCRIPTION:
            return Manifest.from_bytes(repository.blob(layer), repository.base)
    return None


def _remote(repository: Repository, layer: dict[str, Any], roles: dict[str, str], count: int) -> Remote:
    media_type = str(layer.get("mediaType", ""))
    annotations = layer.get("annotations") or {}
    name = next((annotations[key] for key in FILE_NAMES if annotations.get(key)), None)
    if ".tar" in media_type or "+gzip" in media_type or "+zstd" in media_type:
        raise UnsupportedError(
            f"{repository.host}/{repository.path} holds an archive ({media_type})",
            hint="push the model as single files (raw layers)",
        )
    if name is None and count > 1 and "gguf" not in media_type:
        name = str(layer["digest"])[7:19]
    digest = layer["digest"].removeprefix("sha256:")
    return Remote(
        name=str(name or "model.gguf"),
        url=repository.blob_url(layer["digest"]),
        size=layer["size"],
        sha256=digest,
        role=roles.get(digest, "weights"),
        headers=dict(repository.headers),
    )
