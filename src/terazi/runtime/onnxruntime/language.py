"""Run language models in onnxruntime-genai: directories with genai_config.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import MissingExtraError
from terazi.runtime.child_engine import ChildLanguageModel
from terazi.runtime.engine import default_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

__all__ = ["LanguageModel"]


class LanguageModel(ChildLanguageModel):
    """The parent's side of an onnxruntime-genai child process."""

    def __init__(self, path: Path, *, context: int, threads: int | None, timeout: float) -> None:
        from importlib.metadata import PackageNotFoundError, version

        from terazi.runtime.child import Child

        try:
            self.runtime = f"onnxruntime-genai {version('onnxruntime-genai')}"
        except PackageNotFoundError:
            raise MissingExtraError("running ONNX language models", "genai") from None
        self.threads = default_threads() if threads is None else threads
        self._child = Child("terazi.runtime.onnxruntime.language_worker", timeout=timeout)
        try:
            opened = self._child.call(
                "open", path=str(path.resolve()), threads=self.threads, context=context
            ).values
        except BaseException:
            self._child.close()
            raise
        self.load_time = float(opened["load_time"])
        self.vocabulary = int(opened["vocabulary"])
        self.context = int(opened["context"])
        self.begin_token: int | None = opened["begin_token"]

    def logits(self, tokens: Sequence[int], *, first: int = 0) -> np.ndarray:
        """Run one sequence from its start; float32[len(tokens) - first, vocabulary], from ``first`` on."""
        import numpy as np

        return self._child.call("logits", np.asarray(tokens, np.int32), first=first).arrays[0]
