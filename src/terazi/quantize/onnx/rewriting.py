"""What each kind of recipe does to a graph."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import ModelProto
from threadpoolctl import threadpool_limits

from terazi.errors import UnsupportedError
from terazi.formats.onnx import inside, write_graph
from terazi.quantize.methods.blocks import round_to_nearest
from terazi.quantize.methods.gptq import factorize, gptq
from terazi.quantize.methods.hqq import hqq
from terazi.quantize.onnx import sensitivity
from terazi.quantize.onnx.data import batches
from terazi.quantize.onnx.graph import Rewrite, large_floats, matrices, named, tables
from terazi.quantize.onnx.observe import observing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import numpy as np

    from terazi.formats.onnx import Spool
    from terazi.progress import Progress
    from terazi.quantize.methods.blocks import Blocks
    from terazi.quantize.onnx.graph import Matrix
    from terazi.quantize.onnx.recipes import OnnxRecipe
    from terazi.runtime.onnxruntime import OnnxRuntime

    Feeds = Mapping[str, np.ndarray]

__all__ = ["Job", "rewritten"]

_SPARED_GROUP = 512
_SAMPLE = 128
"""Tokens that the error of a product is measured on."""
_PROBES = 2
"""Texts that the error of the outputs is measured on."""
_TEXTS = 48
"""Texts that GPTQ learns from: at 4 bits, more gain little (docs/benchmarks.md)."""
_RANGED = 256
"""Texts that ranges of activations come from, whose extremes need more; 2 bits do as well."""
_TABLE_GROUP = 32
_BFLOAT16_OPSET = 13
_GRAM_BYTES = 1 << 30
"""Second moments that are held at a time; larger models are run several times."""


@dataclass(frozen=True, slots=True)
class Job:
    """A parsed graph, whose weights are at ``source``, and what is to become of it.

    ``whole``: every operator must be in integers. ``data`` is as for `terazi.quantize.onnx.data.batches`.
    """

    model: ModelProto
    source: Path
    recipe: OnnxRecipe
    whole: bool
    data: Any
    spool: Spool
    threads: int

    def feeds(self, **options: Any) -> list[Feeds]:
        """Return the inputs that activations are observed on."""
        return batches(self.model, self.source, self.data, **options)


def rewritten(job: Job, progress: Progress) -> ModelProto:
    """Return the graph under the recipe; weights are in it, at the source or in the spool."""
    kind = job.recipe.kind
    if kind == "float16":
        from terazi.runtime.onnxruntime import tools

        return tools.to_float16(inside(job.model, job.source))
    named(job.model)
    if kind == "bfloat16":
        return _to_bfloat16(job, progress)
    if kind == "static":
        return _calibrated(job)
    rewrite, found = Rewrite(job.model, job.source, job.spool), matrices(job.model)
    if kind == "weights":
        found = [matrix for matrix in found if fitting_group(job.recipe.group_size, matrix.columns)]
    if not found:
        raise UnsupportedError(f"{job.source}: no matrix product by a constant that could be quantized")
    (_to_blocks if kind == "weights" else _to_dynamic)(job, rewrite, found, progress)
    for table in tables(job.model):
        _store_table(job, rewrite, table)
    progress("quantize", len(found), len(found), unit="tensors")
    return rewrite.finish()


def fitting_group(wanted: int, columns: int) -> int:
    """Return the largest power of two up to ``wanted`` (from 16 on) that divides ``columns``, else 0."""
    size = wanted
    while size >= 16 and columns % size:
        size //= 2
    return size if size >= 16 else 0


def _to_bfloat16(job: Job, progress: Progress) -> ModelProto:
    """Store weights in bfloat16 and widen them: onnxruntime's CPU provider has few kernels for the type."""
    opset = max(entry.version for entry in job.model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < _BFLOAT16_OPSET:
        raise UnsupportedError(
            f"{job.source}: opset {opset} cannot widen bfloat16",
            hint=f"export it again with opset {_BFLOAT16_OPSET} or later, or use float16",
        )
    rewrite, found = Rewrite(job.model, job.source, job.spool), large_floats(job.model)
    if not found:
        raise UnsupportedError(f"{job.source}: no float32 weights")
    for done, tensor in enumerate(found):
        progress("quantize", done, len(found), unit="tensors")
        rewrite.to_bfloat16(tensor)
    progress("quantize", len(found), len(found), unit="tensors")
    return rewrite.finish()


def _to_dynamic(job: Job, rewrite: Rewrite, found: Sequence[Matrix], progress: Progress) -> None:
    safe: set[str] = set()
    if job.recipe.spared:
        probes = job.feeds(texts=_PROBES, batch=1)[:_PROBES]
        plain = Rewrite(job.model, job.source)
        errors = sensitivity.output_errors(job.model, job.source, plain, found, probes, job.threads or None)
        safe = sensitivity.spared(found, errors, job.recipe.spared)
    for done, matrix in enumerate(found):
        progress("quantize", done, len(found), unit="tensors")
        if matrix.node in safe:
            _to_bytes(rewrite, matrix, job.threads)
        else:
            rewrite.to_dynamic(matrix)


def _to_blocks(job: Job, rewrite: Rewrite, found: Sequence[Matrix], progress: Progress) -> None:
    recipe = job.recipe
    if not recipe.needs_data:
        return _round_all(job, rewrite, found, progress)
    feeds = job.feeds(texts=_TEXTS if recipe.bits > 2 else _RANGED)
    # Threads of OpenBLAS wait by spinning: on a busy machine they take more time than they save.
    with threadpool_limits(1, "blas"), _observed(job, found) as engine:
        safe: set[str] = set()
        if recipe.spared:
            seen = engine.rows(feeds[:1], at_most=_SAMPLE)
            errors = {}
            for matrix in found:
                weight = rewrite.weight(matrix)
                blocks = _rounded(job, weight)
                errors[matrix.node] = sensitivity.product_error(weight, blocks, seen[matrix.input])
            safe = sensitivity.spared(found, errors, recipe.spared)
        for matrix in found:
            if matrix.node in safe:
                _to_bytes(rewrite, matrix, job.threads)
        rest = [matrix for matrix in found if matrix.node not in safe]
        if recipe.method != "gptq":
            return _round_all(job, rewrite, rest, progress)
        _spread_all(job, rewrite, rest, lambda part: engine.grams(feeds, outputs=part), progress)
    return None


def _spread_all(
    job: Job,
    rewrite: Rewrite,
    found: Sequence[Matrix],
    grams: Callable[[list[str]], dict[str, np.ndarray]],
    progress: Progress,
) -> None:
    """Apply GPTQ to matrices, those of different inputs at the same time."""
    recipe, done = job.recipe, 0

    def spread(gram: np.ndarray, alike: Sequence[Matrix]) -> list[Blocks]:
        factors = factorize(gram)
        group = fitting_group(recipe.group_size, alike[0].columns)
        options = {"symmetric": recipe.symmetric, "threads": 1}
        return [gptq(rewrite.weight(matrix), factors, recipe.bits, group, **options) for matrix in alike]

    with ThreadPoolExecutor(job.threads or os.cpu_count()) as pool:
        for part in _by_input(found):
            moments = grams([alike[0].input for alike in part])
            tasks = [pool.submit(spread, moments.pop(alike[0].input), alike) for alike in part]
            for task, alike in zip(tasks, part, strict=True):
                for matrix, blocks in zip(alike, task.result(), strict=True):
                    progress("quantize", done, len(found), unit="tensors")
                    rewrite.to_blocks(matrix, blocks)
                    done += 1


def _round_all(job: Job, rewrite: Rewrite, found: Sequence[Matrix], progress: Progress) -> None:
    for done, matrix in enumerate(found):
        progress("quantize", done, len(found), unit="tensors")
        rewrite.to_blocks(matrix, _rounded(job, rewrite.weight(matrix)))


def _rounded(job: Job, weight: np.ndarray) -> Blocks:
    recipe = job.recipe
    group = fitting_group(recipe.group_size, weight.shape[1])
    if recipe.method == "hqq":
        return hqq(weight, recipe.bits, group, threads=job.threads)
    return round_to_nearest(weight, recipe.bits, group, symmetric=recipe.symmetric, threads=job.threads)


def _to_bytes(rewrite: Rewrite, matrix: Matrix, threads: int) -> None:
    """Store a spared matrix as 8-bit groups; where no group fits its rows it stays floats."""
    if group := fitting_group(_SPARED_GROUP, matrix.columns):
        rewrite.to_blocks(matrix, round_to_nearest(rewrite.weight(matrix), 8, group, threads=threads))


def _store_table(job: Job, rewrite: Rewrite, table: Matrix) -> None:
    group = fitting_group(_TABLE_GROUP, table.columns)
    if job.recipe.embedding_bits == 4 and group:
        rewrite.table_to_int4(table, round_to_nearest(rewrite.weight(table), 4, group, threads=job.threads))
    else:
        rewrite.table_to_int8(table)


def _observed(job: Job, found: Sequence[Matrix]) -> AbstractContextManager[OnnxRuntime]:
    """Open the graph so that it shows what goes into the matrices."""
    from terazi.runtime.onnxruntime import open_graph

    names = list(dict.fromkeys(matrix.input for matrix in found))
    return open_graph(observing(job.model, names), job.source, threads=job.threads or None)


def _by_input(found: Sequence[Matrix]) -> Iterator[list[list[Matrix]]]:
    """Yield parts of lists of matrices with one input, so that a part's second moments fit into memory."""
    shared: dict[str, list[Matrix]] = {}
    for matrix in found:
        shared.setdefault(matrix.input, []).append(matrix)
    part: list[list[Matrix]] = []
    nbytes = 0
    for alike in shared.values():
        needed = 4 * alike[0].columns ** 2
        if part and nbytes + needed > _GRAM_BYTES:
            yield part
            part, nbytes = [], 0
        part.append(alike)
        nbytes += needed
    if part:
        yield part


def _products_of_activations(model: ModelProto, found: Sequence[Matrix]) -> set[str]:
    """Return the MatMul nodes without a constant, such as attention's: they lose most and hold no weights."""
    constant = {matrix.node for matrix in found}
    return {node.name for node in model.graph.node if node.op_type == "MatMul" and node.name not in constant}


def _calibrated(job: Job) -> ModelProto:
    """Write QDQ pairs; spared matrices and embedding tables, which they do not reach, get 8-bit weights."""
    from terazi.runtime.onnxruntime import tools

    recipe = job.recipe
    stacked = recipe.ranges != "minmax"
    feeds = job.feeds(same_shape=stacked, texts=_RANGED)
    safe: set[str] = set()
    found = matrices(job.model)
    if recipe.spared:
        rewrite = Rewrite(job.model, job.source)
        with _observed(job, found) as engine:
            seen = engine.rows(feeds[:1], at_most=_SAMPLE)
        errors = {
            matrix.node: sensitivity.calibrated_error(
                rewrite.weight(matrix), seen[matrix.input], recipe.activation_bits
            )
            for matrix in found
        }
        safe = sensitivity.spared(found, errors, recipe.spared)
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "model.onnx"
        plain = ModelProto()
        plain.CopyFrom(job.model)
        write_graph(tools.typed(plain), file, origin=job.source)
        proto = tools.quantize_static(
            file,
            feeds=feeds,
            ranges=recipe.ranges,
            activation_bits=recipe.activation_bits,
            excluded=sorted(safe | _products_of_activations(job.model, found)),
            whole=job.whole,
        )
    if job.whole:
        return proto
    rewrite = Rewrite(named(proto), job.source, job.spool)
    for matrix in matrices(proto):
        if matrix.node in safe:
            _to_bytes(rewrite, matrix, job.threads)
    for table in tables(proto):
        rewrite.table_to_int8(table)
    return rewrite.finish()
