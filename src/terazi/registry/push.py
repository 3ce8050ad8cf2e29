"""Putting stored models on a container registry, as ModelPack artifacts of single files.

Specification: https://github.com/modelpack/model-spec. One more layer carries Terazi's own manifest, so that
lineage and settings come back with a pull.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.errors import UsageError
from terazi.progress import silent
from terazi.registry.distribution import Repository, parse_repository
from terazi.registry.names import split_source
from terazi.registry.sources.oci import DESCRIPTION, FILE_NAMES
from terazi.registry.store import Store

if TYPE_CHECKING:
    from terazi.progress import Progress
    from terazi.registry.manifest import Entry

__all__ = ["push"]

_IMAGE = "application/vnd.oci.image.manifest.v1+json"
_ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
_CONFIG = "application/vnd.cncf.model.config.v1+json"
_WEIGHTS = "application/vnd.cncf.model.weight.v1.raw"
_WEIGHTS_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
_BIG = (".gguf", ".safetensors", ".onnx", ".data", ".bin")


def push(name: str, target: str, *, store: Store | None = None, progress: Progress = silent) -> str:
    """Upload a stored model to ``oci:host/name:tag`` and return the reference pinned by digest.

    Contents that the registry has already are not sent again. Raises `DownloadError` when the registry
    cannot be reached or refuses.
    """
    store = store or Store()
    source = split_source(target)
    if source is None or source[0] != "oci":
        raise UsageError(f"{target} is not a registry address", hint="use oci:host/name:tag")
    host, path, tag = parse_repository(source[1])
    if tag.startswith("sha256:"):
        raise UsageError(f"{target}: push to a tag, the digest follows from the content")
    entry = store.entry(name)
    with Repository(host, path, actions="pull,push") as repository:
        layers = []
        for file in entry.manifest.files:
            repository.put_blob(f"sha256:{file.digest}", store.file(entry, file), progress=progress)
            media_type = _WEIGHTS if file.name.endswith(_BIG) else _WEIGHTS_CONFIG
            layers.append(_layer(media_type, file.digest, file.size, file.name))
        described = store.blob(entry.digest)
        assert described is not None
        repository.put_blob(f"sha256:{entry.digest}", described)
        layers.append(_layer(DESCRIPTION, entry.digest, described.stat().st_size, "terazi.json"))
        config = _put_config(repository, entry, store)
        manifest = {
            "schemaVersion": 2,
            "mediaType": _IMAGE,
            "artifactType": _ARTIFACT,
            "config": config,
            "layers": layers,
        }
        data = json.dumps(manifest, sort_keys=True).encode()
        digest = repository.put_manifest(tag, data, _IMAGE)
    return f"oci:{host}/{path}@{digest}"


def _layer(media_type: str, digest: str, size: int, name: str) -> dict[str, Any]:
    return {
        "mediaType": media_type,
        "digest": f"sha256:{digest}",
        "size": size,
        "annotations": dict.fromkeys(FILE_NAMES[:2], name),
    }


def _put_config(repository: Repository, entry: Entry, store: Store) -> dict[str, Any]:
    """Upload ModelPack's description of the model and return its descriptor."""
    manifest = entry.manifest
    descriptor: dict[str, Any] = {"name": entry.name}
    if manifest.license:
        descriptor["licenses"] = [manifest.license]
    config = {
        "descriptor": descriptor,
        "modelfs": {"type": "layers", "diffIds": [f"sha256:{file.digest}" for file in manifest.files]},
        "config": {"format": manifest.format},
    }
    handle, temporary = tempfile.mkstemp(dir=store.root)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(config, sort_keys=True).encode())
        from terazi.files import sha256

        digest, size = sha256(temporary), Path(temporary).stat().st_size
        repository.put_blob(f"sha256:{digest}", Path(temporary))
    finally:
        Path(temporary).unlink()
    return {"mediaType": _CONFIG, "digest": f"sha256:{digest}", "size": size}
