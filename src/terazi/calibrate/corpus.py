"""Texts to calibrate and to evaluate on: the defaults, a user's file, cut into sentences."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from terazi.errors import NotFoundError, UsageError

__all__ = ["Corpus", "calibration_corpus", "evaluation_corpus", "read_corpus", "sentences"]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'])|\n\s*\n")
_SHORTEST, _LONGEST = 40, 400


@dataclass(frozen=True, slots=True)
class Corpus:
    """A text with a name for people; ``digest`` is the SHA-256 of its UTF-8 bytes."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        """Digest of the whole text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def calibration_corpus() -> Corpus:
    """Return the first half of Python's own language reference, which every Python carries."""
    text = _language_reference()
    return Corpus("pydoc_data.topics, first half", text[: len(text) // 2])


def evaluation_corpus() -> Corpus:
    """Return the second half of Python's own language reference.

    The first half is the default for calibration, so the two never overlap. The text differs a little
    between Python versions: its digest is part of every measurement.
    """
    text = _language_reference()
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


def _language_reference() -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))
