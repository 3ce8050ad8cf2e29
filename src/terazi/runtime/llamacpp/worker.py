"""The child process of the llama.cpp engine: ``python -m terazi.runtime.llamacpp.worker``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from terazi.runtime.child import Message, memory
from terazi.runtime.language_worker import LanguageWorker
from terazi.runtime.llamacpp.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    Emit = Callable[[Message], None]

__all__ = ["Worker"]

_ADDRESS_SPACE = 4 << 30  # what interpreter and libraries reserve and never fill


def _limit_memory(available: int, path: Path) -> None:
    """Let an allocation fail that this machine can never hold, instead of filling the memory first."""
    try:
        import resource
    except ImportError:  # Windows
        return
    mapped = sum(file.stat().st_size for file in path.parent.glob("*.gguf"))  # all parts of a split model
    limit = available + path.stat().st_size + mapped + _ADDRESS_SPACE
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


class Worker(LanguageWorker):
    """The operations of one engine; ``open`` comes first."""

    operations = (*LanguageWorker.operations, "embed")
    _session: Session

    @property
    def session(self) -> Session:
        """The open model."""
        return self._session

    def open(self, call: Message, emit: Emit) -> Message:
        """Load a model."""
        from terazi.runtime.llamacpp import library

        values = call.values
        _limit_memory(values["memory"], Path(values["path"]))
        library.load()
        self.before = memory()[0]
        self._session = session = Session(
            values["path"],
            context=values["context"],
            threads=values["threads"],
            embedding=values["embedding"],
            gpu_layers=values["gpu_layers"],
        )
        return Message(
            {
                "load_time": session.load_time,
                "vocabulary": session.vocabulary_size,
                "dimensions": session.dimensions,
                "trained_context": session.trained_context,
                "adds_bos": bool(session.library.llama_vocab_get_add_bos(session.vocabulary)),
                "bos": int(session.library.llama_vocab_bos(session.vocabulary)),
            }
        )

    def tokenize(self, call: Message, emit: Emit) -> Message:
        """Text to token ids."""
        tokens = self.session.tokenize(call.values["text"], add_special=call.values["add_special"])
        return Message(arrays=[tokens])

    def detokenize(self, call: Message, emit: Emit) -> Message:
        """Token ids to text."""
        return Message({"text": self.session.detokenize(call.arrays[0])})

    def embed(self, call: Message, emit: Emit) -> Message:
        """Texts to unit vectors."""
        return Message(arrays=[self.session.embed(call.values["texts"])])


if __name__ == "__main__":
    Worker().serve()
