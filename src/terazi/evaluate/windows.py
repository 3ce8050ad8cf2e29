"""The evaluation text cut into token windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from terazi.calibrate.corpus import Corpus
    from terazi.runtime.engine import Engine

__all__ = ["windows"]

# No tokenizer in use makes tokens this long on average, so more text than this is never needed.
_CHARACTERS_PER_TOKEN = 32


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
