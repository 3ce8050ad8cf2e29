"""The file under evaluation: what it is, and the digest that its measurements belong to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from terazi.dtypes import dtype
from terazi.errors import UnsupportedError
from terazi.evaluate.engines import ENGINES
from terazi.files import sha256

__all__ = ["Subject", "open_subject"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model: ``types`` are its weight types, most used first, ``weights`` how many have
    each; ``embeds`` marks embedding models.

    ``format`` decides which engine opens ``path``.
    """

    path: Path
    format: str
    digest: str
    size: int
    bits_per_weight: float
    parameters: int
    types: tuple[str, ...]
    weights: dict[str, int]
    embeds: bool

    @property
    def quantized(self) -> bool:
        """Whether the bulk of the weights is stored in a lossy type."""
        return dtype(self.types[0]).precision not in ("full", "exact")


def open_subject(path: Path | str) -> Subject:
    """Look at a model's headers and digest; raises `UnsupportedError` for what no engine here runs."""
    from terazi.formats import open_model

    model = open_model(path)
    if model.format not in ENGINES:
        raise UnsupportedError(
            f"{path}: nothing here measures {model.format} models; these can be: {', '.join(ENGINES)}",
            hint=f"terazi convert {path} model.gguf",
        )
    weights: dict[str, int] = {}
    for tensor in model.tensors.values():
        weights[tensor.type] = weights.get(tensor.type, 0) + tensor.size
    digests = [(file.name, _digest(file, *_stamp(file))) for file in model.files]
    if len(digests) == 1:
        digest = digests[0][1]
    else:
        lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests))
        digest = hashlib.sha256(lines.encode()).hexdigest()
    return Subject(
        path=model.files[0],
        format=model.format,
        digest=digest,
        size=sum(file.stat().st_size for file in model.files),
        bits_per_weight=model.bits_per_weight,
        parameters=model.parameters,
        types=tuple(sorted(weights, key=lambda name: (-weights[name], name))),
        weights=weights,
        embeds=model.variant == "embedding" or "last_hidden_state" in model.metadata.get("outputs", ()),
    )


def _stamp(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


@lru_cache(maxsize=256)
def _digest(file: Path, size: int, modified: int, inode: int) -> str:
    """Digest once per process and state of the file: a reference is compared with many variants."""
    return sha256(file)
