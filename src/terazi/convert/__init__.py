"""A model in another format: one module per target."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from terazi.model import Artifact

__all__ = ["TARGETS", "converter"]

# Target -> module with `convert(model, output, *, force, progress, **options) -> Artifact`; imported on use.
TARGETS: dict[str, str] = {
    "gguf": "terazi.convert.gguf",
    "mlx": "terazi.convert.mlx",
    "onnx": "terazi.convert.onnx",
    "safetensors": "terazi.convert.huggingface",
}


def converter(target: str | None, output: Path | str) -> Callable[..., Artifact]:
    """Return the function that writes ``target``, or the format that ``output`` ends in."""
    name = target or Path(output).suffix.lstrip(".")
    if name not in TARGETS:
        raise UsageError(
            f"{target!r} is no format to convert to" if target else f"{output}: which format?",
            hint=f"pass --to with one of {', '.join(TARGETS)}",
        )
    return import_module(TARGETS[name]).convert
