"""Draft models: small ones whose guesses a larger model checks several at a time; which fit together."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from terazi.errors import UnsupportedError
from terazi.formats import open_model
from terazi.progress import silent
from terazi.registry import resolve_model
from terazi.runtime.llamacpp.server import NGRAM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from terazi.model import Model
    from terazi.progress import Progress
    from terazi.registry import Store

__all__ = ["check_draft", "drafts_for"]

# llama.cpp's own limits (common/speculative.cpp): how many tokens one vocabulary may have more, and the first
# token that is compared; those before it are markers.
_MORE, _FIRST = 128, 5


def drafts_for(names: Sequence[str], draft: str, store: Store, progress: Progress = silent) -> dict[str, str]:
    """Return what drafts for each of the stored models ``names``: a file, or `NGRAM`.

    ``draft`` is a path, a name or a source, which is pulled when the store lacks it. Raises
    `UnsupportedError` when it does not fit one of the models.
    """
    entries = [store.entry(name) for name in names]
    if draft != NGRAM:
        path = resolve_model(draft, store=store, progress=progress)
        for entry in entries:
            check_draft(open_model(store.resolve(entry.name)), open_model(path))
        draft = str(path)
    return {entry.name: draft for entry in entries}


def check_draft(model: Model, draft: Model) -> None:
    """Raise `UnsupportedError` with the reason unless both models write with the same tokens."""
    if draft.format != "gguf" or draft.tokenizer is None or model.tokenizer is None:
        raise UnsupportedError(f"{draft.name} is no language model in GGUF form, which a draft model must be")
    problem = _difference(model, draft)
    if problem:
        raise UnsupportedError(
            f"{draft.name} cannot draft for {model.name}: {problem}",
            hint="take a smaller model of the same family, a smaller quantization of it, or `ngram`",
        )


def _difference(model: Model, draft: Model) -> str:
    def differs(value: Callable[[Model], Any]) -> bool:
        return value(model) != value(draft)

    for key, what in (("model", "kinds of tokenizer"), ("pre", "ways to split words")):
        if differs(lambda which, key=key: which.metadata.get(f"tokenizer.ggml.{key}")):
            return f"they have different {what}"
    for mark in ("bos", "eos"):
        if differs(lambda which, mark=mark: which.metadata.get(f"tokenizer.ggml.{mark}_token_id")):
            return f"they have different {mark.upper()} tokens"
    ours, theirs = (which.metadata.get("tokenizer.ggml.tokens", ()) for which in (model, draft))
    if abs(len(ours) - len(theirs)) > _MORE:
        return f"their vocabularies have {len(ours)} and {len(theirs)} tokens"
    pairs = enumerate(zip(ours, theirs, strict=False))
    for token, (one, other) in islice(pairs, _FIRST, None):
        if one != other:
            return f"token {token} is {one!r} in one and {other!r} in the other"[:200]
    return ""
