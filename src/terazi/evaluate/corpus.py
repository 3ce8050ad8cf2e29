"""Texts to evaluate on: the default one, cut into token windows or sentences."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from terazi.runtime.engine import Engine

__all__ = ["Corpus", "default_corpus", "read_corpus", "sentences", "windows"]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'])|\n\s*\n")
_SHORTEST, _LONGEST = 40, 400
# No tokenizer in use makes tokens this long on average, so more text than this is never needed.
_CHARACTERS_PER_TOKEN = 32


@dataclass(frozen=True, slots=True)
class Corpus:
    """A text with a name for people; ``digest`` is the SHA-256 of its UTF-8 bytes."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        """Digest of the whole text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def default_corpus() -> Corpus:
    """Return the second half of Python's own language reference, which every Python carries.

    The first half is the default for calibration, so the two never overlap. The text differs a little
    between Python versions: its digest is part of every measurement.
    """
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    return Corpus("pydoc_data.topics, second half", text[len(text) // 2 :])


def read_corpus(path: Path | str) -> Corpus:
    """Read a UTF-8 text file; raises `NotFoundError` or `UsageError`."""
    path = Path(path)
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from None
    return Corpus(path.name, text)


def windows(engine: Engine, corpus: Corpus, *, tokens: int, context: int) -> np.ndarray:
    """Return the corpus's first windows as int32[tokens // context, context].

    As in llama-perplexity: the whole text is tokenized with the model's begin token, then cut. At least two
    windows must come out, of at least 16 tokens.
    """
    import numpy as np

    if context < 16:
        raise UsageError(f"a context of {context} tokens is too short to score; 16 is the least")
    count = max(tokens // context, 2)
    text = corpus.text[: _CHARACTERS_PER_TOKEN * count * context]
    found = engine.tokenize(text)
    if len(found) < count * context and len(text) < len(corpus.text):
        found = engine.tokenize(corpus.text)
    count = min(count, len(found) // context)
    if count < 2:
        raise UsageError(
            f"{corpus.name}: {len(found)} tokens are too few for two windows of {context}",
            hint="give a longer text or a smaller context",
        )
    return np.array(found[: count * context], np.int32).reshape(count, context)


def sentences(corpus: Corpus, count: int) -> list[str]:
    """Return up to ``count`` different sentences, evenly spread over the corpus, in its order."""
    found = {" ".join(part.split()): None for part in _SENTENCE_END.split(corpus.text)}
    usable = [sentence for sentence in found if _SHORTEST <= len(sentence) <= _LONGEST]
    if len(usable) < 3:
        raise UsageError(
            f"{corpus.name}: fewer than three sentences of {_SHORTEST} to {_LONGEST} characters",
            hint="give a longer text",
        )
    count = min(count, len(usable))
    return [usable[number * len(usable) // count] for number in range(count)]
