"""Run ONNX models in onnxruntime, in a child process whose crash is an error and not the end."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import MissingExtraError, NotFoundError, UnsupportedError, UsageError
from terazi.runtime.child_engine import ChildEngine
from terazi.runtime.engine import Timings, default_threads
from terazi.runtime.onnxruntime.language import LanguageModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from onnx import ModelProto

    Feeds = Mapping[str, np.ndarray]

__all__ = ["LanguageModel", "OnnxRuntime", "open_engine", "open_graph", "open_graph_file"]


def open_engine(
    path: Path | str, *, context: int = 512, threads: int | None = None, timeout: float = 600
) -> OnnxRuntime | LanguageModel:
    """Load an .onnx file (or a directory with model.onnx) into onnxruntime's CPU provider.

    A directory with genai_config.json is a language model and runs in onnxruntime-genai. ``context`` cuts
    longer texts of the others. Raises `MissingExtraError` without the runtime and `EngineError` with its
    reason when the model cannot be loaded.
    """
    path = Path(path)
    if (path / "genai_config.json").is_file():
        return LanguageModel(path, context=context, threads=threads, timeout=timeout)
    return OnnxRuntime(path, context=context, threads=threads, timeout=timeout)


def open_graph_file(path: Path, *, threads: int | None = None) -> OnnxRuntime:
    """Load one .onnx file as a plain graph, cutting texts at 128 tokens, whatever lies beside it."""
    return OnnxRuntime(path, context=128, threads=threads, timeout=600)


@contextmanager
def open_graph(graph: ModelProto, beside: Path, *, threads: int | None = None) -> Iterator[OnnxRuntime]:
    """Run a graph in memory as if it were saved in the directory of ``beside``, where its tokenizer is."""
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory(prefix="terazi-") as temporary:
        path = Path(temporary) / "model.onnx"
        path.write_bytes(graph.SerializeToString())
        for name in ("tokenizer.json", "1_Pooling/config.json"):
            if (beside.parent / name).is_file():
                (path.parent / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(beside.parent / name, path.parent / name)
        with open_graph_file(path, threads=threads) as engine:
            yield engine


class OnnxRuntime(ChildEngine):
    """The parent's side of an onnxruntime child process."""

    def __init__(self, path: Path, *, context: int, threads: int | None, timeout: float) -> None:
        from importlib.metadata import PackageNotFoundError, version

        from terazi.runtime.child import Child

        try:
            self.runtime = f"onnxruntime {version('onnxruntime')}"
        except PackageNotFoundError:
            raise MissingExtraError("running ONNX models", "onnx") from None
        path = self._path = path / "model.onnx" if path.is_dir() else path
        if not path.is_file():
            raise NotFoundError(f"{path}: no such file")
        self.threads = default_threads() if threads is None else threads
        self.context = context
        self.vocabulary = 0
        self._child = Child("terazi.runtime.onnxruntime.worker", timeout=timeout)
        try:
            opened = self._child.call(
                "open", path=str(path.resolve()), threads=self.threads, context=context
            ).values
        except BaseException:
            self._child.close()
            raise
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

    def feeds(self, texts: Sequence[str], *, batch: int = 16) -> list[Feeds]:
        """Tokenize ``texts`` into the model's inputs, padded within each batch."""
        found = []
        for start in range(0, len(texts), batch):
            made = self._child.call("feeds", texts=list(texts[start : start + batch]))
            found.append(dict(zip(made.values["names"], made.arrays, strict=True)))
        return found

    def gram(self, feeds: Sequence[Feeds]) -> dict[str, np.ndarray]:
        """Return, per output [..., n], the sum of ``x xT`` over the rows of all batches: float32[n, n]."""
        return self._over("gram", feeds)

    def replace(self, graph: ModelProto) -> None:
        """Load another graph in place of the one that runs, in the same process and beside the same files."""
        self._path.write_bytes(graph.SerializeToString())
        self._child.call("open", path=str(self._path), threads=self.threads, context=self.context)

    def activations(self, feeds: Sequence[Feeds]) -> dict[str, np.ndarray]:
        """Return, per output [..., n], its rows over all batches, without padding: float32[rows, n]."""
        return self._over("activations", feeds)

    def _over(self, operation: str, feeds: Sequence[Feeds]) -> dict[str, np.ndarray]:
        names = list(self.inputs)
        for name in names:
            if any(name not in batch for batch in feeds):
                raise UsageError(f"the model takes {', '.join(names)}: a batch lacks {name}")
        arrays = [batch[name] for batch in feeds for name in names]
        found = self._child.call(operation, *arrays, names=names).arrays
        return dict(zip(self.outputs, found, strict=True))

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
