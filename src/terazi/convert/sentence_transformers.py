"""What sentence-transformers' modules.json adds to an embedding model: pooling, and layers after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from terazi.errors import FormatError, UnsupportedError
from terazi.formats.huggingface import safetensors
from terazi.formats.huggingface.reader import read_json
from terazi.model import Tensor

__all__ = ["dense_layers", "pooling", "pooling_files"]

# Its words, in old and new spelling -> GGUF's pooling types.
_POOLING = {
    "mean": 1,
    "cls": 2,
    "lasttoken": 3,
    "pooling_mode_mean_tokens": 1,
    "pooling_mode_cls_token": 2,
    "pooling_mode_lasttoken": 3,
}


def pooling(directory: Path) -> int | None:
    """Return how token vectors become one (GGUF's number). Raises `UnsupportedError` for other ways."""
    part = next(_modules(directory, "Pooling"), None)
    if part is None:
        return None
    said = _settings(part)
    modes = [name for name, value in said.items() if name.startswith("pooling_mode_") and value is True]
    modes = modes or [said.get("pooling_mode")]
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise UnsupportedError(f"{part}: llama.cpp cannot pool vectors by {', '.join(map(str, modes))[:80]}")
    return _POOLING[modes[0]]


def pooling_files(kind: int, width: int) -> dict[str, str]:
    """Return the files, by name, that say how vectors of ``width`` are pooled (GGUF's number); none for 0."""
    mode = next((name for name, number in _POOLING.items() if number == kind and "_mode_" in name), None)
    if mode is None:
        return {}
    types = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{type}"}
        for number, (path, type) in enumerate(types.items())
    ]
    return {
        "modules.json": json.dumps(modules, indent=2),
        "1_Pooling/config.json": json.dumps({"word_embedding_dimension": width, mode: True}, indent=2),
    }


def dense_layers(directory: Path, names: tuple[str, ...]) -> list[Tensor]:
    """Return the layers that follow the pooling, as ``<name>.weight`` for ``names`` in order.

    Raises `UnsupportedError` when there are others than llama.cpp's graph has.
    """
    parts = list(_modules(directory, "Dense"))
    if parts and len(parts) != len(names):
        raise UnsupportedError(
            f"{directory}: has {len(parts)} dense layers after its pooling; llama.cpp has {len(names)} there"
        )
    made = []
    for name, part in zip(names, parts, strict=False):
        said = _settings(part)
        if said.get("bias") or not str(said.get("activation_function", "Identity")).endswith("Identity"):
            raise UnsupportedError(f"{part}: llama.cpp has no bias or activation in this dense layer")
        file = part / "model.safetensors"
        weight = safetensors.read(file).get("linear.weight") if file.is_file() else None
        if weight is None or len(weight.shape) != 2:
            raise FormatError(file, "has no matrix linear.weight")
        made.append(weight.renamed(f"{name}.weight"))
    return made


def _settings(part: Path) -> dict[str, Any]:
    if not (part / "config.json").is_file():
        raise FormatError(part.parent / "modules.json", f"names {part.name}, which has no config.json")
    return read_json(part / "config.json")


def _modules(directory: Path, kind: str) -> Iterator[Path]:
    """Yield the folders of the modules of one ``kind``."""
    file = directory / "modules.json"
    if not file.is_file():
        return
    try:
        entries = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        raise FormatError(file, "is not a JSON list of modules")
    for entry in entries:
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(key), str) for key in ("type", "path")
        ):
            raise FormatError(file, "has a module without type or path")
        if entry["type"].endswith(kind):
            yield directory / Path(entry["path"]).name
