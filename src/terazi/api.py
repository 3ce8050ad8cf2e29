"""The verbs: what can be done with a model, one short function each; no loops over tensors, no maths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.progress import Progress, silent

if TYPE_CHECKING:
    from pathlib import Path

    from terazi.model import Artifact, Model

__all__ = ["convert"]


def convert(
    model: Model | Path | str,
    to: str = "gguf",
    *,
    output: Path | str,
    type: str | None = None,
    pre: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Artifact:
    """Write a Hugging Face checkpoint as a GGUF file that llama.cpp runs.

    ``type`` (F32, F16, BF16) is what matrices become; by default they stay as stored. ``pre`` forces
    llama.cpp's pre-tokenizer by name. Raises `UnsupportedError` for an architecture without a table,
    `FormatError` for a damaged checkpoint, `ExistsError` unless ``force``.
    """
    from terazi.convert import gguf
    from terazi.errors import UsageError
    from terazi.formats import open_model
    from terazi.model import Model

    if to != "gguf":
        raise UsageError(f"cannot convert to {to!r}", hint="choose gguf")
    opened = model if isinstance(model, Model) else open_model(model)
    if opened.format == "gguf":
        raise UsageError(f"{opened.path} is GGUF already", hint="`terazi quantize` makes other types of it")
    made = gguf.to_gguf(opened, type=type, pre=pre)
    return gguf.write(made, output, force=force, progress=progress)
