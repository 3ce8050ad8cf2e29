"""What variants answer to the same prompts, so that people can judge for themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.search.candidate import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from terazi.progress import Progress

__all__ = ["ask"]

_CONTEXT = 1024


def ask(
    path: Path,
    prompts: Sequence[str],
    *,
    chat: bool,
    max_tokens: int,
    threads: int | None,
    progress: Progress,
) -> list[Sample]:
    """Run each prompt once with the likeliest token at every step. ``chat`` uses the model's own template.

    Raises `EngineError` when the engine fails.
    """
    from terazi.evaluate.engines import open_writer

    samples = []
    if not prompts:
        return samples
    with open_writer(path, context=_CONTEXT, threads=threads) as engine:
        for number, prompt in enumerate(prompts):
            progress(f"{path.name} (answers)", number, len(prompts), unit="prompts")
            asked = [{"role": "user", "content": prompt}] if chat else prompt
            said = engine.generate(asked, max_tokens=max_tokens, temperature=0.0)
            samples.append(Sample(prompt=prompt, answer=said.text.strip(), tokens=said.tokens))
        progress(f"{path.name} (answers)", len(prompts), len(prompts), unit="prompts")
    return samples
