"""Carrying out an ONNX recipe: observe activations where it needs them, rewrite, write a directory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from terazi.errors import ExistsError, MissingExtraError, UnsupportedError
from terazi.files import write_bytes
from terazi.formats.onnx import graph_file, load_graph
from terazi.model import Artifact
from terazi.progress import silent
from terazi.quantize.methods.blocks import round_to_nearest
from terazi.quantize.methods.gptq import gptq
from terazi.quantize.onnx import sensitivity
from terazi.quantize.onnx.data import batches
from terazi.quantize.onnx.providers import fitted, provider
from terazi.quantize.onnx.recipes import onnx_recipe
from terazi.quantize.onnx.sensitivity import fitting_group

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from onnx import ModelProto

    from terazi.model import Model
    from terazi.progress import Progress
    from terazi.quantize.methods.blocks import Blocks
    from terazi.quantize.onnx.graph import Matrix, Rewrite
    from terazi.quantize.onnx.providers import Provider
    from terazi.quantize.onnx.recipes import OnnxRecipe

    Feeds = Mapping[str, np.ndarray]

__all__ = ["quantize_onnx"]

_SPARED_GROUP = 512
_LARGEST_FILE = 2_000_000_000


def quantize_onnx(
    model: Model,
    recipe: OnnxRecipe | str,
    output: Path | str,
    *,
    data: Path | str | Iterable[str] | Iterable[Feeds] | None = None,
    on: Provider | str = "cpu",
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> Artifact:
    """Write ``model`` under ``recipe`` (or a name in `ONNX_RECIPES`) as the directory ``output``.

    Recipes that observe activations do so on ``data``: a text file, a .npz file with an array per input,
    texts, or batches of named inputs; by default sentences of the default calibration text. ``on`` is the
    execution provider (a name in `PROVIDERS`) that will run it. The files beside the model are copied.

    Raises `UnsupportedError` when nothing in the graph can be quantized, the provider does not run the recipe
    or the result would need external data.
    """
    chosen = onnx_recipe(recipe) if isinstance(recipe, str) else recipe
    target = provider(on) if isinstance(on, str) else on
    chosen = fitted(chosen, target)
    output, source = Path(output), graph_file(model.path)
    if output.exists() and not force:
        raise ExistsError(output)
    feeds: list[Feeds] = []
    if chosen.needs_data:
        stacked = chosen.kind == "static" and chosen.ranges != "minmax"
        feeds = batches(source, data, same_shape=stacked, threads=threads or None)
    if chosen.kind == "float16":
        from terazi.runtime.onnxruntime import tools

        proto = tools.to_float16(source)
    elif chosen.kind == "static":
        proto = _calibrated(source, chosen, feeds, threads or None, whole=target.whole)
    else:
        proto = _rewrite(source, chosen, feeds, threads or None, progress)
    if proto.ByteSize() >= _LARGEST_FILE:
        raise UnsupportedError(f"the result is {proto.ByteSize()} bytes, over ONNX's limit for one file")
    write_directory(proto, output, source.parent, model.files, force=force)
    return Artifact.of_directory(output, format="onnx", label=chosen.name, license=model.license)


def write_directory(
    proto: ModelProto, output: Path, origin: Path, files: Sequence[Path], *, force: bool
) -> Path:
    """Write model.onnx and copies of the model's other files into ``output``, whole or not at all."""
    proto.metadata_props.add(key="producer", value="terazi")
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        directory = Path(temporary) / "model"
        directory.mkdir()
        for file in files:
            if file.suffix in (".json", ".txt", ".model", ".jinja"):
                target = directory / file.relative_to(origin)
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, target)
        write_bytes(directory / "model.onnx", proto.SerializeToString())
        if force and output.exists():
            output.rename(Path(temporary) / "old")
        directory.rename(output)
    return output


def _calibrated(
    source: Path, recipe: OnnxRecipe, feeds: Sequence[Feeds], threads: int | None, *, whole: bool
) -> ModelProto:
    """Write QDQ pairs; spared matrices and embedding tables, which they do not reach, get 8-bit weights."""
    from terazi.quantize.onnx.graph import Rewrite, matrices, named, tables
    from terazi.runtime.onnxruntime import tools

    proto = named(load_graph(source))
    found = matrices(proto)
    safe = _spared(proto, source, Rewrite(proto, source), found, recipe, feeds, threads)
    proto = tools.quantize_static(
        Rewrite(proto, source).finish(),  # with every weight inside
        feeds=feeds,
        ranges=recipe.ranges,
        activation_bits=recipe.activation_bits,
        excluded=sorted(safe),
        whole=whole,
    )
    if whole:
        return proto
    rewrite = Rewrite(named(proto), source)
    for matrix in matrices(proto):
        if matrix.node in safe:
            _to_bytes(rewrite, matrix)
    for table in tables(proto):
        rewrite.table_to_int8(table)
    return rewrite.finish()


def _rewrite(
    source: Path, recipe: OnnxRecipe, feeds: Sequence[Feeds], threads: int | None, progress: Progress
) -> ModelProto:
    try:
        from terazi.quantize.onnx.graph import Rewrite, matrices, named, tables
    except ImportError:
        raise MissingExtraError("quantizing ONNX", "onnx") from None
    proto = named(load_graph(source))
    rewrite, found = Rewrite(proto, source), matrices(proto)
    if recipe.kind == "weights":
        found = [m for m in found if fitting_group(recipe.group_size, rewrite.weight(m).shape[1])]
    if not found:
        raise UnsupportedError(f"{source}: no matrix product by a constant that could be quantized")
    safe = _spared(proto, source, rewrite, found, recipe, feeds, threads)
    grams = {}
    if recipe.method == "gptq":
        grams = _grams(proto, source, [m for m in found if m.node not in safe], feeds, threads)
    for done, matrix in enumerate(found):
        progress("quantize", done, len(found), unit="tensors")
        if matrix.node in safe:
            _to_bytes(rewrite, matrix)
        elif recipe.kind == "dynamic":
            rewrite.to_dynamic(matrix)
        else:
            rewrite.to_blocks(matrix, _blocks(rewrite.weight(matrix), recipe, grams.get(matrix.input)))
    for table in tables(proto):
        weight = rewrite.weight(table)
        group = fitting_group(32, weight.shape[1])
        if recipe.embedding_bits == 4 and group:
            rewrite.table_to_int4(table, round_to_nearest(weight, 4, group))
        else:
            rewrite.table_to_int8(table)
    progress("quantize", len(found), len(found), unit="tensors")
    return rewrite.finish()


def _to_bytes(rewrite: Rewrite, matrix: Matrix) -> None:
    """Store a spared matrix as 8-bit groups; where no group fits its rows it stays floats."""
    weight = rewrite.weight(matrix)
    group = fitting_group(_SPARED_GROUP, weight.shape[1])
    if group:
        rewrite.to_blocks(matrix, round_to_nearest(weight, 8, group))


def _blocks(weight: np.ndarray, recipe: OnnxRecipe, gram: np.ndarray | None) -> Blocks:
    group = fitting_group(recipe.group_size, weight.shape[1])
    if gram is None:
        return round_to_nearest(weight, recipe.bits, group, symmetric=recipe.symmetric)
    return gptq(weight, gram, recipe.bits, group, symmetric=recipe.symmetric)


def _spared(
    proto: ModelProto,
    source: Path,
    rewrite: Rewrite,
    found: Sequence[Matrix],
    recipe: OnnxRecipe,
    feeds: Sequence[Feeds],
    threads: int | None,
) -> set[str]:
    """Measure what the recipe does to every matrix on real activations and return the nodes to spare."""
    if not recipe.spared:
        return set()
    measure = _output_errors if recipe.kind == "dynamic" else _product_errors
    errors = measure(proto, source, rewrite, found, recipe, feeds[:1], threads)
    return sensitivity.spared(found, errors, recipe.spared)


def _product_errors(proto, source, rewrite, found, recipe, feeds, threads) -> dict[str, float]:
    """Error of each matrix's own product, whose real inputs one run of the graph shows."""
    from terazi.quantize.onnx.graph import observing
    from terazi.runtime.onnxruntime import open_graph

    names = list(dict.fromkeys(matrix.input for matrix in found))
    with open_graph(observing(proto, names), source, threads=threads) as engine:
        inputs = engine.activations(feeds)
    errors = {}
    for matrix in found:
        weight, seen = rewrite.weight(matrix), inputs[matrix.input]
        if recipe.kind == "static":
            errors[matrix.node] = sensitivity.calibrated_error(weight, seen, recipe.activation_bits)
        else:
            errors[matrix.node] = sensitivity.product_error(weight, seen, recipe)
    return errors


def _output_errors(proto, source, rewrite, found, recipe, feeds, threads) -> dict[str, float]:
    """Error of the graph's outputs when that matrix alone is quantized, activations included."""
    from terazi.quantize.onnx.graph import Rewrite, float_outputs, observing
    from terazi.runtime.onnxruntime import open_graph

    errors = {}
    graph = observing(proto, float_outputs(proto))
    with open_graph(graph, source, threads=threads) as engine:
        exact = engine.activations(feeds)
        for matrix in found:
            alone = Rewrite(graph, source)
            alone.to_dynamic(matrix)
            engine.replace(alone.finish())
            seen = engine.activations(feeds)
            errors[matrix.node] = sum(sensitivity.relative_error(seen[name], exact[name]) for name in exact)
    return errors


def _grams(
    proto: ModelProto, source: Path, found: Sequence[Matrix], feeds: Sequence[Feeds], threads: int | None
) -> dict[str, np.ndarray]:
    """Return the sum of x xT of every matrix's inputs over the calibration data."""
    from terazi.quantize.onnx.graph import observing
    from terazi.runtime.onnxruntime import open_graph

    names = list(dict.fromkeys(matrix.input for matrix in found))
    with open_graph(observing(proto, names), source, threads=threads) as engine:
        return engine.gram(feeds)
