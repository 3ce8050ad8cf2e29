"""Run GGUF files in llama.cpp, in a child process whose crash is an error and not the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import NotFoundError, UsageError
from terazi.runtime.child_engine import ChildLanguageModel
from terazi.runtime.engine import default_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

__all__ = ["LlamaCpp", "open_engine"]

_LONGEST_CONTEXT = 1 << 24  # beyond it llama.cpp's bookkeeping alone takes gigabytes

# OpenMP threads wait at a barrier after every node of the graph. Measured with SmolLM2 on two cores: spinning
# on, libgomp's default, costs a busy machine nine tenths of its speed (17 -> 2 tokens/s); sleeping at once
# costs an idle one more than half (102 -> 42). Spinning briefly is best on both. A backtrace after a failed
# assertion would start a debugger.
_ENVIRONMENT = {"GOMP_SPINCOUNT": "1000", "GGML_NO_BACKTRACE": "1"}


def open_engine(
    path: Path | str,
    *,
    context: int = 512,
    threads: int | None = None,
    embedding: bool = False,
    gpu_layers: int = 0,
    timeout: float = 600,
) -> LlamaCpp:
    """Load a GGUF file into llama.cpp and return the engine; use it in a ``with`` block.

    ``context`` is the longest sequence in tokens. ``threads`` defaults to the processors this process may
    use. ``embedding`` opens the model for `embed` instead of logits and generation. ``gpu_layers`` go to
    GPUs, -1: as many as their free memory holds. A call that stays silent for ``timeout`` seconds is stopped.
    Raises `EngineError` with llama.cpp's reason when it cannot be loaded.
    """
    return LlamaCpp(
        Path(path),
        context=context,
        threads=threads,
        embedding=embedding,
        gpu_layers=gpu_layers,
        timeout=timeout,
    )


class LlamaCpp(ChildLanguageModel):
    """The parent's side of a llama.cpp child process; one call at a time, from any thread."""

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        threads: int | None,
        embedding: bool,
        gpu_layers: int,
        timeout: float,
    ) -> None:
        from terazi.devices.machine import memory_limit
        from terazi.runtime.child import Child
        from terazi.runtime.llamacpp import library

        if not path.is_file():
            raise NotFoundError(f"{path}: no such file")
        if not 0 < context <= _LONGEST_CONTEXT:
            raise UsageError(f"a context of {context} tokens is not between 1 and {_LONGEST_CONTEXT}")
        self.runtime = f"llama.cpp (xllamacpp {library.version()})"
        self.threads = default_threads() if threads is None else threads
        if self.threads < 1:
            raise UsageError(f"{self.threads} threads make no sense")
        self.context = context
        self._child = Child("terazi.runtime.llamacpp.worker", timeout=timeout, environment=_ENVIRONMENT)
        opened = self._child.open(
            path=str(path.resolve()),
            context=context,
            threads=self.threads,
            embedding=embedding,
            gpu_layers=gpu_layers,
            memory=memory_limit(),
        )
        self.load_time = float(opened["load_time"])
        self.vocabulary = int(opened["vocabulary"])
        self.dimensions = int(opened["dimensions"])
        self.trained_context = int(opened["trained_context"])
        self.begin_token: int | None = int(opened["bos"]) if opened["adds_bos"] else None

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one unit vector per text, pooled as the file says: float32[len(texts), dimensions]."""
        return self._child.call("embed", texts=list(texts)).arrays[0]
