"""What becomes of MLX's reasons for not loading a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["refusal"]


def refusal(engine: str, directory: Path, error: Exception) -> EngineError:
    """Return the error to raise: the first line of the reason, and what else to try."""
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
    return EngineError(
        f"{engine} cannot load {directory}: {reason}",
        hint="if it does not know this kind of model: `terazi convert` makes GGUF files of many others",
    )
