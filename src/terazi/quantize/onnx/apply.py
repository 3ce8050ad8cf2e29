"""Carrying out an ONNX recipe: observe activations where it needs them, rewrite, write a directory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from terazi.calibrate.corpus import calibration_corpus, read_corpus, sentences
from terazi.errors import ExistsError, MissingExtraError, UnsupportedError
from terazi.files import write_bytes
from terazi.formats.onnx import graph_file, load_graph
from terazi.model import Artifact
from terazi.progress import silent
from terazi.quantize.methods.blocks import round_to_nearest
from terazi.quantize.methods.gptq import gptq
from terazi.quantize.onnx.recipes import onnx_recipe
from terazi.quantize.onnx.sensitivity import fitting_group, product_error, relative_error, spared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import ModelProto

    from terazi.model import Model
    from terazi.progress import Progress
    from terazi.quantize.methods.blocks import Blocks
    from terazi.quantize.onnx.graph import Matrix, Rewrite
    from terazi.quantize.onnx.recipes import OnnxRecipe

__all__ = ["quantize_onnx"]

_SPARED_GROUP = 512
_SENSITIVITY_TEXTS = 16
_CALIBRATION_TEXTS = 256
_LARGEST_FILE = 2_000_000_000


def quantize_onnx(
    model: Model,
    recipe: str,
    output: Path | str,
    *,
    text: Path | str | None = None,
    texts: Sequence[str] = (),
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> Artifact:
    """Write ``model`` under ``recipe`` (a name in `ONNX_RECIPES`) as the directory ``output``.

    Recipes that observe activations do so on ``texts``, or else on sentences of the file ``text``, or of the
    default calibration text. The files beside the model (tokenizer, configuration) are copied.

    Raises `UnsupportedError` when nothing in the graph can be
    quantized or the result would need external data.
    """
    chosen, output, source = onnx_recipe(recipe), Path(output), graph_file(model.path)
    if output.exists() and not force:
        raise ExistsError(output)
    if chosen.needs_text and not texts:
        texts = sentences(read_corpus(text) if text else calibration_corpus(), _CALIBRATION_TEXTS)
    if chosen.kind in ("static", "float16"):
        from terazi.runtime.onnxruntime import tools

        if chosen.kind == "float16":
            proto = tools.to_float16(source)
        else:
            proto = _small_tables(tools.quantize_static(source, texts=texts), source)
    else:
        proto = _rewrite(source, chosen, texts, threads or None, progress)
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


def _small_tables(proto: ModelProto, source: Path) -> ModelProto:
    """Static quantization leaves embedding tables as floats: store them in 8 bits."""
    from terazi.quantize.onnx.graph import Rewrite, tables

    rewrite = Rewrite(proto, source)
    for table in tables(proto):
        rewrite.table_to_int8(table)
    return rewrite.finish()


def _rewrite(
    source: Path, recipe: OnnxRecipe, texts: Sequence[str], threads: int | None, progress: Progress
) -> ModelProto:
    try:
        from terazi.quantize.onnx.graph import Rewrite, matrices, tables
    except ImportError:
        raise MissingExtraError("quantizing ONNX", "onnx") from None
    proto = load_graph(source)
    rewrite, found = Rewrite(proto, source), matrices(proto)
    found = [m for m in found if fitting_group(recipe.group_size, rewrite.weight(m).shape[1])]
    if not found:
        raise UnsupportedError(f"{source}: no matrix product by a constant that could be quantized")
    safe = _spared(proto, source, rewrite, found, recipe, texts, threads)
    grams = {}
    if recipe.method == "gptq":
        grams = _grams(proto, source, [m for m in found if m.node not in safe], texts, threads)
    for done, matrix in enumerate(found):
        progress("quantize", done, len(found), unit="tensors")
        if matrix.node in safe:
            weight = rewrite.weight(matrix)
            group = fitting_group(_SPARED_GROUP, weight.shape[1])
            rewrite.to_blocks(matrix, round_to_nearest(weight, 8, group))
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
    texts: Sequence[str],
    threads: int | None,
) -> set[str]:
    """Measure what the recipe does to every matrix on real activations and return the nodes to spare."""
    if not recipe.spared:
        return set()
    measure = _output_errors if recipe.kind == "dynamic" else _product_errors
    errors = measure(proto, source, rewrite, found, recipe, list(texts)[:_SENSITIVITY_TEXTS], threads)
    return spared(found, errors, recipe.spared)


def _product_errors(proto, source, rewrite, found, recipe, texts, threads) -> dict[str, float]:
    """Error of each matrix's own product: weights alone change, so one run of the graph shows all inputs."""
    from terazi.quantize.onnx.graph import observing
    from terazi.runtime.onnxruntime import open_graph

    names = list(dict.fromkeys(matrix.input for matrix in found))
    with open_graph(observing(proto, names), source, threads=threads) as engine:
        inputs = engine.activations(texts)
    return {
        matrix.node: product_error(rewrite.weight(matrix), inputs[matrix.input], recipe) for matrix in found
    }


def _output_errors(proto, source, rewrite, found, recipe, texts, threads) -> dict[str, float]:
    """Error of the graph's output when that matrix alone is quantized, activations included."""
    from terazi.quantize.onnx.graph import Rewrite
    from terazi.runtime.onnxruntime import open_graph

    errors = {}
    with open_graph(proto, source, threads=threads) as engine:
        (exact,) = list(engine.activations(texts).values())[:1]
        for matrix in found:
            alone = Rewrite(proto, source)
            alone.to_dynamic(matrix)
            engine.replace(alone.finish())
            (seen,) = list(engine.activations(texts).values())[:1]
            errors[matrix.node] = relative_error(seen, exact)
    return errors


def _grams(
    proto: ModelProto, source: Path, found: Sequence[Matrix], texts: Sequence[str], threads: int | None
) -> dict[str, np.ndarray]:
    """Return the sum of x xT of every matrix's inputs over the calibration texts."""
    from terazi.quantize.onnx.graph import observing
    from terazi.runtime.onnxruntime import open_graph

    names = list(dict.fromkeys(matrix.input for matrix in found))
    with open_graph(observing(proto, names), source, threads=threads) as engine:
        return engine.gram(texts)
