"""An ONNX model open in onnxruntime, inside the child process: run, embed, observe, time."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from terazi.errors import EngineError, UnsupportedError
from terazi.runtime.pooling import pool
from terazi.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Session"]

_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}
_BATCH = 16
_FOLDER = "session.model_external_initializers_file_folder_path"


class Session:
    """One model; its tokenizer and pooling are read from the files beside it.

    A ``graph``, a serialized model, runs in place of what is at ``path``, with the weights that lie there.
    """

    def __init__(self, path: Path, *, threads: int, context: int, graph: bytes | None = None) -> None:
        started = time.perf_counter()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if graph:
            options.add_session_config_entry(_FOLDER, str(path.parent))
        try:
            self._session = onnxruntime.InferenceSession(
                graph or str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise EngineError(f"onnxruntime cannot load {path}: {_first_line(error)}") from None
        self.load_time = time.perf_counter() - started
        self.inputs = {value.name: value.type for value in self._session.get_inputs()}
        self.outputs = [value.name for value in self._session.get_outputs()]
        self._directory = path.parent
        self._context = context

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer beside the model; raises `UnsupportedError` without one."""
        return Tokenizer(self._directory)

    def run(self, feeds: dict[str, np.ndarray], outputs: Sequence[str] | None = None) -> list[np.ndarray]:
        """Return ``outputs``, or every one in the model's order."""
        try:
            return [np.asarray(output) for output in self._session.run(outputs, feeds)]
        except Exception as error:
            raise EngineError(f"onnxruntime: {_first_line(error)}") from None

    def feeds(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Tokenize and pad ``texts`` into the inputs this model takes."""
        columns = self.tokenizer.batch(texts, longest=self._context)
        unknown = self.inputs.keys() - columns.keys()
        if unknown:
            raise UnsupportedError(f"the model takes {', '.join(sorted(unknown))}: texts alone do not run it")
        return {name: columns[name].astype(_TYPES[kind]) for name, kind in self.inputs.items()}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, pooled as ``1_Pooling/config.json`` says (the mean where it says nothing)."""
        pieces = []
        for start in range(0, len(texts), _BATCH):
            feeds = self.feeds(texts[start : start + _BATCH])
            states = self.run(feeds)[0].astype(np.float32)
            if states.ndim == 3:
                pieces.append(pool(states, feeds["attention_mask"], self._directory))
            else:
                pieces.append(states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12))
        return np.concatenate(pieces)

    def time(self, *, batch: int, tokens: int, repeats: int) -> list[float]:
        """Return seconds of each run on ``batch`` sequences of ``tokens`` tokens, after a warm-up."""
        generator = np.random.default_rng(0)
        feeds = {
            name: (
                generator.integers(1000, 20_000, (batch, tokens))
                if name == "input_ids"
                else np.full((batch, tokens), name == "attention_mask")
            ).astype(_TYPES[kind])
            for name, kind in self.inputs.items()
        }
        self.run(feeds)
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            self.run(feeds)
            seconds.append(time.perf_counter() - started)
        return seconds


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
