"""Run language models that onnxruntime-genai's builder exported: directories with genai_config.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import MissingExtraError
from terazi.runtime.child_engine import ChildEngine
from terazi.runtime.engine import Generation, default_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

__all__ = ["LanguageModel"]


class LanguageModel(ChildEngine):
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

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """Return token ids by tokenizer.json."""
        return self._child.call("tokenize", text=text, add_special=add_special).values["tokens"]

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        return self._child.call("detokenize", tokens=[int(token) for token in tokens]).values["text"]

    def generate(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        *,
        max_tokens: int = 256,
        temperature: float = 0.8,
        seed: int = 0,
        on_text: Callable[[str], object] | None = None,
    ) -> Generation:
        """Continue a text, or answer chat messages by the template beside the model.

        Temperature 0 takes the likeliest token; otherwise top-k 40 and top-p 0.95 filter before the draw.
        """
        asked = prompt if isinstance(prompt, str) else [dict(message) for message in prompt]
        values: Mapping = {}
        for message in self._child.stream(
            "generate", prompt=asked, max_tokens=max_tokens, temperature=temperature, seed=seed
        ):
            values = message.values
            if values["kind"] == "event" and on_text is not None:
                on_text(values["text"])
        return Generation(**{key: value for key, value in values.items() if key != "kind"})
