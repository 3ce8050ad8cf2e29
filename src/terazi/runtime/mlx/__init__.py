"""Run directories in MLX, in a child process whose crash is an error and not the end.

Language models run in mlx-lm, which reads unquantized Hugging Face directories too; encoders in `bert`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import MissingExtraError, NotFoundError, UsageError
from terazi.runtime.child_engine import ChildLanguageModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

__all__ = ["Mlx", "open_engine"]

_PLACE = "Metal" if sys.platform == "darwin" else "processor"


def open_engine(
    path: Path | str,
    *,
    context: int = 512,
    threads: int | None = None,
    embedding: bool = False,
    timeout: float = 1800,
) -> Mlx:
    """Load a directory, quantized by MLX or not at all; use the engine in a ``with`` block.

    ``context`` is the longest sequence in tokens. ``threads`` changes nothing: MLX runs on Apple's GPU, or on
    one processor core where there is none. ``embedding`` opens an encoder for `embed` instead of logits and
    generation. Raises `MissingExtraError` without mlx-lm and `EngineError` with the reason when the model
    cannot be loaded.
    """
    path = Path(path)
    return Mlx(path.parent if path.is_file() else path, context=context, embedding=embedding, timeout=timeout)


class Mlx(ChildLanguageModel):
    """The parent's side of an MLX child process; one call at a time, from any thread."""

    def __init__(self, path: Path, *, context: int, embedding: bool, timeout: float) -> None:
        from importlib.metadata import PackageNotFoundError, version

        from terazi.runtime.child import Child

        try:
            if embedding:
                self.runtime = f"mlx {version('mlx')} ({_PLACE})"
            else:
                self.runtime = f"mlx-lm {version('mlx-lm')} (mlx {version('mlx')}, {_PLACE})"
        except PackageNotFoundError:
            raise MissingExtraError("running MLX and Hugging Face directories", "mlx") from None
        if not (path / "config.json").is_file():
            raise NotFoundError(f"{path}: no directory with a config.json")
        if context < 1:
            raise UsageError(f"a context of {context} tokens makes no sense")
        self.threads = 1
        self.context = context
        self._child = Child("terazi.runtime.mlx.worker", timeout=timeout)
        opened = self._child.open(path=str(path.resolve()), context=context, embedding=embedding)
        self.load_time = float(opened["load_time"])
        self.vocabulary = int(opened["vocabulary"])
        self.trained_context = int(opened["trained_context"])
        self.begin_token: int | None = opened["begin_token"]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one unit vector per text, pooled as the directory says: float32[len(texts), dimensions]."""
        return self._child.call("embed", texts=list(texts)).arrays[0]
