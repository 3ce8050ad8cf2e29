"""Collecting an importance matrix: run text through a model in llama.cpp, chunk by chunk, resumably."""

from __future__ import annotations

import hashlib
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from terazi.calibrate.calibration import Calibration, Sums
from terazi.calibrate.imatrix import read_sums, tensors_of
from terazi.errors import TeraziError, UnsupportedError, UsageError
from terazi.formats import gguf, open_model
from terazi.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from terazi.calibrate.corpus import Corpus
    from terazi.model import Model
    from terazi.runtime.llamacpp.observer import Observer

__all__ = ["collect"]

_CONTEXT = 512  # tokens per chunk, as llama-imatrix has it
_SECONDS_BETWEEN_SAVES = 60.0
_IDENTITY = "terazi.state.of"
_HEAD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _State:
    """Where a running collection is saved; ``identity`` says what it belongs to."""

    path: Path
    identity: str

    def read(self) -> tuple[int, dict[str, tuple[np.ndarray, np.ndarray]]]:
        """Return finished chunks and their totals; nothing when there is no state or it is another's."""
        if not self.path.is_file():
            return 0, {}
        try:
            contents = gguf.read_contents(self.path)
            if contents.metadata.get(_IDENTITY) != self.identity:
                return 0, {}
            sums = read_sums(self.path, contents.tensors)
            chunks = int(contents.metadata["terazi.state.chunks"])
        except (TeraziError, KeyError, TypeError, ValueError):
            return 0, {}
        return chunks, {name: (entry.squares, entry.counts) for name, entry in sums.items()}

    def write(self, chunks: int, totals: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Keep totals in float64, so that continuing gives the same bytes as never stopping."""
        metadata = {_IDENTITY: self.identity, "terazi.state.chunks": np.uint32(chunks)}
        sums = {name: Sums(*pair) for name, pair in totals.items()}
        gguf.write(self.path, metadata, tensors_of(sums), force=True)


def collect(
    model: Path | str,
    corpus: Corpus,
    *,
    context: int | None = None,
    chunks: int | None = None,
    output_tensor: bool = False,
    threads: int | None = None,
    state: Path | None = None,
    progress: Progress = silent,
) -> Calibration:
    """Run a text through a model and return the mean squared input of every weight's columns.

    The definition is llama-imatrix's: the text is tokenized with the model's special tokens and cut into
    chunks of ``context`` tokens, each of which begins with the model's begin token and is run on its own; all
    block weights are watched, ``output.weight`` too with ``output_tensor``. ``context`` is 512, or what the
    model was trained for when that is less. ``chunks`` limits how many are
    run. For mixtures of experts each expert counts the tokens routed to it.

    A Hugging Face directory is first written as GGUF, into a temporary file. With ``state`` (a path) progress
    is saved there every minute, an interrupted run continues there, and a finished one removes it.
    Raises `UsageError` for more ``context`` than the model was trained for, or a text that does not fill one
    chunk, and `EngineError` when llama.cpp fails.
    """
    from terazi.runtime.llamacpp.observer import Observer

    opened = open_model(model)
    encoder = "bert" in opened.config.architecture or opened.config.values.get("attention.causal") is False
    context = _chunk_size(opened, context)
    identity = _identity(opened.files, f"{corpus.digest} {context} {output_tensor}")
    saved = _State(state, identity) if state else None
    with (
        _gguf_file(opened, progress) as file,
        Observer(file, context=context, threads=threads, encoder=encoder, output=output_tensor) as observer,
    ):
        windows = _windows(observer, corpus, context, chunks)
        totals = _run(observer, windows, saved, progress)
    if state:
        state.unlink(missing_ok=True)
    if not totals:
        raise UnsupportedError(f"{model}: llama.cpp multiplied no block weight with activations")
    return Calibration(
        sums={
            name: Sums(squares.astype(np.float32), counts)
            for name, (squares, counts) in sorted(totals.items())
        },
        datasets=(corpus.name,),
        text_digests=(corpus.digest,),
        chunks=len(windows),
        chunk_size=context,
    )


@contextmanager
def _gguf_file(model: Model, progress: Progress) -> Iterator[Path]:
    """Yield a GGUF file of the model: its own, or a temporary one."""
    if model.format == "gguf":
        yield model.files[0]
        return
    from terazi.convert.gguf import to_gguf

    with tempfile.TemporaryDirectory(prefix="terazi-calibrate-") as directory:
        made = to_gguf(model)
        yield gguf.write(
            Path(directory) / "model.gguf", made.metadata, list(made.tensors.values()), progress=progress
        )


def _chunk_size(model: Model, context: int | None) -> int:
    trained = model.config.context_length
    if context and trained and context > trained:
        raise UsageError(
            f"{model.path}: the model was trained for {trained} tokens, not {context}",
            hint=f"give a --context of at most {trained}",
        )
    return context or min(_CONTEXT, trained or _CONTEXT)


def _windows(observer: Observer, corpus: Corpus, context: int, chunks: int | None) -> np.ndarray:
    """Cut the text into int32[chunks, context], each with the begin token in front if the model wants one."""
    tokens = observer.tokenize(corpus.text)
    count = min(len(tokens) // context, chunks or len(tokens))
    if count < 1:
        raise UsageError(
            f"{corpus.name}: {len(tokens)} tokens, less than one chunk of {context}",
            hint="give a longer text or a smaller --context",
        )
    windows = tokens[: count * context].reshape(count, context).copy()
    if observer.begin_token is not None:
        windows[:, 0] = observer.begin_token
    return windows


def _run(
    observer: Observer, windows: np.ndarray, saved: _State | None, progress: Progress
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Observe all windows that are not done yet, saving the state on the way."""
    count, context = windows.shape
    done, totals = saved.read() if saved else (0, {})
    if done > count:
        done, totals = 0, {}
    if totals:
        observer.restore(totals)
    last_save = time.monotonic()
    progress("calibrating", done * context, count * context, unit="tokens")
    for number in range(done, count):
        observer.observe(windows[number])
        progress("calibrating", (number + 1) * context, count * context, unit="tokens")
        if saved and time.monotonic() - last_save > _SECONDS_BETWEEN_SAVES and number + 1 < count:
            saved.write(number + 1, observer.totals())
            last_save = time.monotonic()
    return observer.totals()


def _identity(files: tuple[Path, ...], settings: str) -> str:
    """Say what totals belong to: the model's files (size, time, beginning), and text and settings."""
    digest = hashlib.sha256(settings.encode())
    for file in files:
        about = file.stat()
        with file.open("rb") as opened:
            digest.update(f"{about.st_size} {about.st_mtime_ns}".encode() + opened.read(_HEAD_BYTES))
    return digest.hexdigest()
