"""Run language models in onnxruntime-genai: directories with genai_config.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.errors import MissingExtraError
from terazi.runtime.child_engine import ChildLanguageModel
from terazi.runtime.engine import default_threads

if TYPE_CHECKING:
    from pathlib import Path

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
        opened = self._child.open(path=str(path.resolve()), threads=self.threads, context=context)
        self.load_time = float(opened["load_time"])
        self.vocabulary = int(opened["vocabulary"])
        self.context = int(opened["context"])
        self.begin_token: int | None = opened["begin_token"]
