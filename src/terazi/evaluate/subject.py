"""The file under evaluation: what it is, and the digest that its measurements belong to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.dtypes import dtype
from terazi.evaluate.measurement import METRICS, Measurement
from terazi.files import sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

    from terazi.model import Model

__all__ = ["Subject", "makes_embeddings", "open_subject"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model: ``types`` are its weight types, most used first, ``weights`` how many have each.

    ``format`` decides which engine opens ``path``. ``context`` is the length in tokens that the model was
    trained for, 0 where unknown. ``quantized`` says whether the bulk of the weights is stored in a lossy
    type; ``embeds`` marks embedding models.
    """

    path: Path
    format: str
    digest: str
    size: int
    bits_per_weight: float
    parameters: int
    context: int
    types: tuple[str, ...]
    weights: dict[str, int]
    quantized: bool
    embeds: bool

    def measured(
        self,
        metric: str,
        value: float,
        conditions: Mapping[str, Any],
        *,
        device: str,
        error: float | None = None,
        samples: int = 1,
    ) -> Measurement:
        """Return a number about this model; ``error`` is one standard error."""
        return Measurement(
            metric=metric,
            value=value,
            unit=METRICS[metric].unit,
            artifact=self.digest,
            device=device,
            uncertainty=error,
            samples=samples,
            conditions=conditions,
        )


def open_subject(path: Path | str) -> Subject:
    """Look at a model's headers and digest; raises what `terazi.formats.open_model` raises."""
    from terazi.formats import open_model

    model = open_model(path)
    weights: dict[str, int] = {}
    lossy = 0
    for tensor in model.tensors.values():
        name = tensor.packed.name if tensor.packed else tensor.type
        weights[name] = weights.get(name, 0) + tensor.size
        if tensor.packed or dtype(tensor.type).precision not in ("full", "exact"):
            lossy += tensor.size
    embeds = makes_embeddings(model)
    digests = [(file.name, _digest(file, *_stamp(file))) for file in model.files]
    if len(digests) == 1:
        digest = digests[0][1]
    else:
        lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests))
        digest = hashlib.sha256(lines.encode()).hexdigest()
    return Subject(
        path=_opened(model, embeds),
        format=model.format,
        digest=digest,
        size=sum(file.stat().st_size for file in model.files),
        bits_per_weight=model.bits_per_weight,
        parameters=model.parameters,
        context=model.config.context_length,
        types=tuple(sorted(weights, key=lambda name: (-weights[name], name))),
        weights=weights,
        quantized=2 * lossy > model.parameters,
        embeds=embeds,
    )


def makes_embeddings(model: Model) -> bool:
    """Whether a model turns text into vectors instead of writing."""
    encoder = "bert" in model.config.architecture or "last_hidden_state" in model.metadata.get("outputs", ())
    return encoder or model.variant == "embedding"


def _opened(model: Model, embeds: bool) -> Path:
    """Return what the engine takes: a file, or the directory that it lies in."""
    file = model.files[0]
    return file if model.format == "gguf" or (model.format == "onnx" and embeds) else file.parent


def _stamp(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


@lru_cache(maxsize=256)
def _digest(file: Path, size: int, modified: int, inode: int) -> str:
    """Digest once per process and state of the file: a reference is compared with many variants."""
    return sha256(file)
