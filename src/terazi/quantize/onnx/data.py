"""What a graph is observed on: texts, or named inputs that a file or the caller gives."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.calibrate.corpus import calibration_corpus, read_corpus, sentences
from terazi.errors import FormatError, NotFoundError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from onnx import ModelProto

    Feeds = Mapping[str, np.ndarray]

__all__ = ["batches", "read_arrays"]

_LONGEST = 256
_BATCH, _STACKED = 8, 32
_CONTEXT = 128
_ONNX = {1: np.float32, 6: np.int32, 7: np.int64}


def batches(
    model: ModelProto,
    source: Path,
    data: Path | str | Iterable[str] | Iterable[Feeds] | None,
    *,
    same_shape: bool = False,
    texts: int,
    batch: int = _BATCH,
) -> list[Feeds]:
    """Return inputs for the graph ``model`` of the file ``source``, batch after batch.

    ``data`` is a text file or .npz file (see `read_arrays`), texts, or batches of named inputs: at most 256
    items of them. By default it is ``texts`` sentences of the default calibration text. Texts make batches of
    ``batch``, like lengths together; with ``same_shape`` one batch of at most 32, for methods that stack what
    they see. Raises `UnsupportedError` for texts when the graph takes other inputs.
    """
    from terazi.runtime.tokenizer import Tokenizer

    if isinstance(data, str | Path) and Path(data).suffix == ".npz":
        return read_arrays(data)
    if data is None or isinstance(data, str | Path):
        corpus, count = (read_corpus(data), _LONGEST) if data else (calibration_corpus(), texts)
        items: list[Any] = sentences(corpus, count)
    else:
        items = list(islice(data, _LONGEST))
    if not items:
        raise UsageError("no calibration data", hint="give at least one text or batch of inputs")
    if not isinstance(items[0], str):
        return [dict(item) for item in items]
    if same_shape:
        batch, items = _STACKED, items[:: max(len(items) // _STACKED, 1)][:_STACKED]
    kinds = _inputs(model)
    try:
        columns = Tokenizer(source.parent).batch(items, longest=_CONTEXT)
        if unknown := sorted(kinds.keys() - columns.keys()):
            raise UnsupportedError(f"the model takes {', '.join(unknown)}: texts alone do not run it")
    except UnsupportedError as error:
        raise UnsupportedError(
            error.message, hint="give its inputs instead: a .npz file, or batches of arrays from Python"
        ) from None
    return _parts({name: columns[name].astype(kind) for name, kind in kinds.items()}, batch)


def _inputs(model: ModelProto) -> dict[str, type]:
    """Return what a graph takes, by name, with the NumPy type of what texts can become."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: _ONNX.get(value.type.tensor_type.elem_type, np.int64)
        for value in model.graph.input
        if value.name not in weights
    }


def _parts(feeds: dict[str, np.ndarray], size: int) -> list[Feeds]:
    """Cut one batch into batches of ``size``, like lengths together and without columns of mere padding."""
    count = len(next(iter(feeds.values())))
    mask = feeds.get("attention_mask")
    order = np.arange(count) if mask is None else mask.sum(1).argsort(kind="stable")
    found = []
    for start in range(0, count, size):
        rows = order[start : start + size]
        used = slice(None) if mask is None else mask[rows].any(0)
        found.append({name: values[rows][:, used] for name, values in feeds.items()})
    return found


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
