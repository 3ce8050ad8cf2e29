"""Carrying out an ONNX recipe: the right rewriting, then a directory, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import ExistsError, MissingExtraError
from terazi.formats.onnx import Spool, graph_file, load_graph, write_graph
from terazi.model import Artifact
from terazi.progress import silent
from terazi.quantize.onnx.providers import fitted, provider
from terazi.quantize.onnx.recipes import onnx_recipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np

    from terazi.model import Model
    from terazi.progress import Progress
    from terazi.quantize.onnx.providers import Provider
    from terazi.quantize.onnx.recipes import OnnxRecipe

    Feeds = Mapping[str, np.ndarray]

__all__ = ["quantize_onnx"]


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
    execution provider (a name in `PROVIDERS`) that will run it. The files beside the model are copied. From 2
    GB on, weights go to model.onnx.data. They are read and written one by one, except by float16 and static
    recipes, which take the whole model into memory.

    Raises `UnsupportedError` when nothing in the graph can be quantized or the provider does not run the
    recipe.
    """
    chosen = onnx_recipe(recipe) if isinstance(recipe, str) else recipe
    target = provider(on) if isinstance(on, str) else on
    chosen = fitted(chosen, target)
    output, source = Path(output), graph_file(model.path)
    if output.exists() and not force:
        raise ExistsError(output)
    try:
        from terazi.quantize.onnx.rewriting import Job, rewritten
    except ImportError:
        raise MissingExtraError("quantizing ONNX", "onnx") from None
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        spool = Spool(Path(temporary) / "spool")
        job = Job(
            load_graph(source), source, chosen, whole=target.whole, data=data, spool=spool, threads=threads
        )
        proto = rewritten(job, progress)
        proto.metadata_props.add(key="producer", value="terazi")
        directory = Path(temporary) / "model"
        directory.mkdir()
        _copy_companions(model.files, source.parent, directory)
        file = directory / "model.onnx"
        write_graph(proto, file, origin=source, spooled=spool.places)
        if output.exists():
            output.rename(Path(temporary) / "old")
        directory.rename(output)
    return Artifact.of_directory(output, format="onnx", label=chosen.name, license=model.license)


def _copy_companions(files: Sequence[Path], origin: Path, directory: Path) -> None:
    for file in files:
        if file.suffix in (".json", ".txt", ".model", ".jinja"):
            target = directory / file.relative_to(origin)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
