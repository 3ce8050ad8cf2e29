"""What a graph is observed on: texts, or named inputs that a file or the caller gives."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.calibrate.corpus import calibration_corpus, read_corpus, sentences
from terazi.errors import EngineError, FormatError, NotFoundError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Feeds = Mapping[str, np.ndarray]

__all__ = ["batches", "read_arrays"]

_LONGEST = 256
_ONE_BATCH = 32


def batches(
    source: Path,
    data: Path | str | Iterable[str] | Iterable[Feeds] | None,
    *,
    same_shape: bool,
    threads: int | None,
) -> list[Feeds]:
    """Return inputs for the graph ``source``, batch after batch.

    ``data`` is a text file or .npz file (see `read_arrays`), texts, or batches of named inputs; by default
    sentences of the default calibration text. At most 256 items count. With ``same_shape`` texts make one
    batch of at most 32, for methods that stack what they see. Raises `UnsupportedError` for texts when the
    graph takes other inputs.
    """
    from terazi.runtime.onnxruntime import open_graph_file

    if isinstance(data, str | Path) and Path(data).suffix == ".npz":
        return read_arrays(data)
    if data is None or isinstance(data, str | Path):
        items: list[Any] = sentences(read_corpus(data) if data else calibration_corpus(), _LONGEST)
    else:
        items = list(islice(data, _LONGEST))
    if not items:
        raise UsageError("no calibration data", hint="give at least one text or batch of inputs")
    if not isinstance(items[0], str):
        return [dict(item) for item in items]
    texts = items[:: max(len(items) // _ONE_BATCH, 1)][:_ONE_BATCH] if same_shape else items
    try:
        with open_graph_file(source, threads=threads) as engine:
            return list(engine.feeds(texts, batch=_ONE_BATCH if same_shape else 16))
    except EngineError as error:
        raise UnsupportedError(
            error.message, hint="give its inputs instead: a .npz file, or batches of arrays from Python"
        ) from None


def read_arrays(path: Path | str) -> list[Feeds]:
    """Read a .npz file with one array per input, samples along the first axis, as batches of 16 samples."""
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in opened.files}
    except (ValueError, OSError, KeyError) as error:
        raise FormatError(path, f"no .npz file of plain arrays: {error}") from None
    lengths = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise FormatError(path, "needs arrays with the same number of samples along the first axis")
    count = min(lengths.pop(), _LONGEST)
    # A shorter last batch is left out: entropy and percentile stack batches.
    starts = range(0, count - count % 16 or count, 16)
    return [{name: array[start : start + 16] for name, array in arrays.items()} for start in starts]
