"""Run ONNX models in onnxruntime, in a child process whose crash is an error and not the end."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from terazi.errors import MissingExtraError, NotFoundError, UnsupportedError, UsageError
from terazi.runtime.child_engine import ChildEngine
from terazi.runtime.engine import Timings, default_threads
from terazi.runtime.onnxruntime.language import LanguageModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from onnx import ModelProto

    Feeds = Mapping[str, np.ndarray]

__all__ = ["LanguageModel", "OnnxRuntime", "open_engine", "open_graph"]


def open_engine(
    path: Path | str, *, context: int = 512, threads: int | None = None, timeout: float = 600
) -> OnnxRuntime | LanguageModel:
    """Load an .onnx file (or a directory with model.onnx or one other graph) into onnxruntime's CPU provider.

    A directory with genai_config.json is a language model and runs in onnxruntime-genai. ``context`` cuts
    longer texts of the others. Raises `MissingExtraError` without the runtime and `EngineError` with its
    reason when the model cannot be loaded.
    """
    path = Path(path)
    if (path / "genai_config.json").is_file():
        return LanguageModel(path, context=context, threads=threads, timeout=timeout)
    return OnnxRuntime(path, context=context, threads=threads, timeout=timeout)


@contextmanager
def open_graph(graph: ModelProto, path: Path, *, threads: int | None = None) -> Iterator[OnnxRuntime]:
    """Run a graph made of the model at ``path``: weights that it does not hold are read from there."""
    from terazi.formats.onnx import inside

    if path.is_symlink():  # onnxruntime follows none
        graph = inside(graph, path)
    with OnnxRuntime(path, context=128, threads=threads, timeout=600, graph=graph) as engine:
        yield engine


class OnnxRuntime(ChildEngine):
    """The parent's side of an onnxruntime child process."""

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        threads: int | None,
        timeout: float,
        graph: ModelProto | None = None,
    ) -> None:
        from importlib.metadata import PackageNotFoundError, version

        from terazi.formats.onnx import graph_file
        from terazi.runtime.child import Child

        try:
            self.runtime = f"onnxruntime {version('onnxruntime')}"
        except PackageNotFoundError:
            raise MissingExtraError("running ONNX models", "onnx") from None
        path = graph_file(path)
        if not path.is_file():
            raise NotFoundError(f"{path}: no such file")
        self.threads = default_threads() if threads is None else threads
        self.context = context
        self.vocabulary = 0
        limits = {"OPENBLAS_NUM_THREADS": str(self.threads)}
        self._child = Child("terazi.runtime.onnxruntime.worker", timeout=timeout, environment=limits)
        given = [] if graph is None else [np.frombuffer(graph.SerializeToString(), np.uint8)]
        opened = self._child.open(*given, path=str(path.resolve()), threads=self.threads, context=context)
        self.load_time = float(opened["load_time"])
        self.inputs = tuple(opened["inputs"])
        self.outputs = tuple(opened["outputs"])

    def logits(self, tokens: Sequence[int], *, first: int = 0) -> np.ndarray:
        """Raise `UnsupportedError`: plain ONNX graphs are run whole, with `run` or `embed`."""
        raise UnsupportedError("this ONNX model is no language model that onnxruntime runs by tokens")

    def run(self, feeds: Feeds) -> list[np.ndarray]:
        """Run the graph once on named inputs and return every output."""
        return list(self._child.call("run", *feeds.values(), names=list(feeds)).arrays)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one unit vector per text: float32[len(texts), dimensions]."""
        return self._child.call("embed", texts=list(texts)).arrays[0]

    def rows(self, feeds: Sequence[Feeds], *, at_most: int) -> dict[str, np.ndarray]:
        """Return, per output [..., n], its first rows over all batches without padding: float32[rows, n]."""
        found = self._child.call("rows", *self._ordered(feeds), names=self.inputs, at_most=at_most).arrays
        return dict(zip(self.outputs, found, strict=True))

    def grams(self, feeds: Sequence[Feeds], *, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Return, per output [..., n] asked for, the sum of ``x xT`` over its rows: float32[n, n]."""
        ordered = self._ordered(feeds)
        found = self._child.call("grams", *ordered, names=self.inputs, outputs=list(outputs)).arrays
        return dict(zip(outputs, found, strict=True))

    def _ordered(self, feeds: Sequence[Feeds]) -> list[np.ndarray]:
        for name in self.inputs:
            if any(name not in batch for batch in feeds):
                raise UsageError(f"the model takes {', '.join(self.inputs)}: a batch lacks {name}")
        return [batch[name] for batch in feeds for name in self.inputs]

    def latencies(self, *, batch: int, tokens: int, repeats: int) -> list[float]:
        """Return seconds of each run on ``batch`` sequences of ``tokens`` tokens, after a warm-up."""
        return self._child.call("time", batch=batch, tokens=tokens, repeats=repeats).values["seconds"]

    def time(self, *, prompt_tokens: int, decode_tokens: int, repeats: int, seconds: float) -> Timings:
        """Time one sequence of ``prompt_tokens`` up to ``repeats`` times; nothing is decoded one by one.

        Three repeats are made in any case; more only while they take less than ``seconds`` in all.
        """
        import time

        used, started = self._processor_time(), time.perf_counter()
        found = self.latencies(batch=1, tokens=prompt_tokens, repeats=3)
        if repeats > 3 and 2 * sum(found) < seconds:
            found += self.latencies(batch=1, tokens=prompt_tokens, repeats=repeats - 3)
        passed = (time.perf_counter() - started) * self.threads
        return Timings(
            prompt_tokens=prompt_tokens,
            prompt_seconds=tuple(found),
            decode_tokens=0,
            decode_seconds=(),
            processor_share=min((self._processor_time() - used) / passed, 1.0),
        )

    def _processor_time(self) -> float:
        return float(self._child.call("memory").values["processor_time"])
