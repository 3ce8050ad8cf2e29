"""What engines that run in a child process share: timing by the child, its memory, its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.runtime.engine import Engine, Timings

if TYPE_CHECKING:
    from terazi.runtime.child import Child

__all__ = ["ChildEngine"]


class ChildEngine(Engine):
    """The parent's side of a child process that knows ``time`` and ``memory``."""

    _child: Child

    def time(self, *, prompt_tokens: int, decode_tokens: int, repeats: int, seconds: float) -> Timings:
        """Time a prompt of random tokens and single steps, up to ``repeats`` times after a warm-up.

        Three repeats are made in any case; more only while they take less than ``seconds`` in all.
        """
        result = self._child.call(
            "time",
            prompt_tokens=prompt_tokens,
            decode_tokens=decode_tokens,
            repeats=repeats,
            seconds=seconds,
        ).values
        return Timings(
            prompt_tokens=prompt_tokens,
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
