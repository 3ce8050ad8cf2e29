"""What engines that run in a child process share: texts and tokens, timing by the child, memory, the end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from terazi.runtime.engine import Engine, Generation, Timings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

    from terazi.runtime.child import Child

__all__ = ["ChildEngine", "ChildLanguageModel"]


class ChildEngine(Engine):
    """The parent's side of a child process that knows ``time`` and ``memory``."""

    _child: Child

    def time(self, *, prompt_tokens: int, decode_tokens: int, repeats: int, seconds: float) -> Timings:
        """Time a prompt of random tokens and single steps, up to ``repeats`` times after a warm-up.

        Three repeats are made in any case; more only while they take less than ``seconds`` in all. An engine
        may shorten prompts that would take far longer; `Timings.prompt_tokens` tells.
        """
        result = self._child.call(
            "time",
            prompt_tokens=prompt_tokens,
            decode_tokens=decode_tokens,
            repeats=repeats,
            seconds=seconds,
        ).values
        return Timings(
            prompt_tokens=int(result["prompt_tokens"]),
            prompt_seconds=tuple(result["prompt_seconds"]),
            decode_tokens=decode_tokens,
            decode_seconds=tuple(result["decode_seconds"]),
            processor_share=float(result["processor_share"]),
        )

    @property
    def peak_memory(self) -> int:
        """Largest resident size of the child so far in bytes, interpreter and mapped weights included."""
        return int(self._child.call("memory").values["peak"])

    @property
    def base_memory(self) -> int:
        """Resident size of the child in bytes before the model was loaded, the engine's code included."""
        return int(self._child.call("memory").values["before"])

    def close(self) -> None:
        """End the child process; closing twice is harmless."""
        self._child.close()


class ChildLanguageModel(ChildEngine):
    """The parent's side of a child process that has what `terazi.runtime.language_worker` lists."""

    def logits(self, tokens: Sequence[int], *, first: int = 0) -> np.ndarray:
        """Run one sequence from its start; float32[len(tokens) - first, vocabulary], from ``first`` on."""
        import numpy as np

        pieces = list(self.stream_logits(np.asarray(tokens, np.int32)[None], first=first))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def stream_logits(self, windows: np.ndarray, *, first: int = 0) -> Iterator[np.ndarray]:
        """Yield the logits of int32[n, length] row after row, in pieces of up to 128 MB.

        A piece never spans two rows. The child runs on meanwhile.
        """
        for message in self._child.stream("logits", windows, first=first):
            yield from message.arrays

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """Return token ids, with the model's own begin and end tokens when ``add_special``."""
        return self._child.call("tokenize", text=text, add_special=add_special).arrays[0].tolist()

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        import numpy as np

        return self._child.call("detokenize", np.asarray(tokens, np.int32)).values["text"]

    def generate(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        *,
        max_tokens: int = 256,
        temperature: float = 0.8,
        seed: int = 0,
        on_text: Callable[[str], object] | None = None,
    ) -> Generation:
        """Continue a text, or answer chat messages by the model's own template.

        Temperature 0 takes the likeliest token. Otherwise top-k 40 and top-p 0.95 (in llama.cpp min-p 0.05
        too) filter before a draw that ``seed`` makes repeatable. ``on_text`` receives the text in pieces as
        it is written; what it raises ends the answer, and the engine is ready for the next.
        """
        asked = prompt if isinstance(prompt, str) else [dict(message) for message in prompt]
        values: Mapping = {}
        stream = self._child.stream(
            "generate", prompt=asked, max_tokens=max_tokens, temperature=temperature, seed=seed
        )
        with contextlib.closing(stream):
            for message in stream:
                values = message.values
                if values["kind"] == "event" and on_text is not None:
                    on_text(values["text"])
        return Generation(**{key: value for key, value in values.items() if key != "kind"})
