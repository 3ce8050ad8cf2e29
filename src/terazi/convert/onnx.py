"""Hugging Face checkpoints and PyTorch modules as ONNX: a directory that stock onnxruntime runs.

Encoders and classifiers are exported here; `onnx_decoder` has language models with a KV cache.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.convert.card import model_papers
from terazi.errors import ExistsError, MissingExtraError, UnsupportedError, UsageError
from terazi.files import check_space
from terazi.model import Artifact
from terazi.progress import silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from terazi.model import Model
    from terazi.progress import Progress

__all__ = ["OPSET", "convert", "export_module"]

OPSET = 18
_BITS = {"F32": 32, "F16": 16, "BF16": 16, "INT8": 8, "INT4": 4}  # of most weights, at least
_COMPANIONS = (".json", ".txt", ".model", ".jinja")


@dataclass(frozen=True, slots=True)
class _Task:
    """Which transformers class opens a checkpoint, and the one output that is exported."""

    loader: str
    output: str


# The end of the class name in config.json's `architectures` -> task.
_TASKS = {
    "ForSequenceClassification": _Task("AutoModelForSequenceClassification", "logits"),
    "ForTokenClassification": _Task("AutoModelForTokenClassification", "logits"),
    "ForMaskedLM": _Task("AutoModel", "last_hidden_state"),
    "ForImageClassification": _Task("AutoModelForImageClassification", "logits"),
    "ForAudioClassification": _Task("AutoModelForAudioClassification", "logits"),
    "Model": _Task("AutoModel", "last_hidden_state"),
}


def convert(
    model: Model,
    output: Path | str,
    *,
    type: str | None = None,
    opset: int = OPSET,
    fuse: bool = True,
    force: bool = False,
    progress: Progress = silent,
) -> Artifact:
    """Export a checkpoint into the directory ``output`` (model.onnx and tokenizer files).

    GGUF, MLX and quantized checkpoints are decoded on the way; an ONNX model is checked and optimized.
    ``fuse`` merges normalisation, activation and bias operators, which leaves matrices free to be quantized.
    ``type`` is F32, or for decoders also F16, INT8 or INT4 where onnxruntime-genai's builder makes them;
    ``opset`` is not the builder's to choose. Raises `MissingExtraError` without torch, transformers or
    onnxruntime-genai, and `UnsupportedError` with the exporter's reason for an architecture that it cannot
    export.
    """
    if model.format == "onnx":
        check_space(Path(output).parent, model.nbytes, estimated=True)
        return _optimize(model, Path(output), type, fuse=fuse, force=force)
    type = (type or "F32").upper()
    check_space(Path(output).parent, model.parameters * _BITS.get(type, 0) // 8, estimated=True)
    plain = model.format == "huggingface" and "quantization_config" not in model.metadata
    with (
        _directory(Path(output), force) as directory,
        contextlib.nullcontext(model) if plain else _decoded(model) as checkpoint,
    ):
        _export(checkpoint, directory, type, opset=opset, fuse=fuse)
        _write_papers(model, directory, type, Path(output))
    return Artifact.of_directory(Path(output), format="onnx", label=type, license=model.license)


def _export(model: Model, directory: Path, type: str, *, opset: int, fuse: bool) -> None:
    from terazi.convert.onnx_decoder import export_decoder

    architecture = str((model.metadata.get("architectures") or [""])[0])
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        export_decoder(model, architecture, directory, type, opset=opset)
    elif type != "F32":
        raise UnsupportedError(
            f"{model.path}: this model is exported in F32, not {type}",
            hint="`terazi quantize` makes smaller ONNX types of the export",
        )
    else:
        _export_encoder(model, architecture, directory, opset)
        if fuse:
            _fuse(model, directory / "model.onnx")
    _copy_companions(model, model.path, directory)


def _write_papers(model: Model, directory: Path, label: str, output: Path) -> None:
    for name, text in model_papers(model, format="onnx", label=label, output=output).items():
        (directory / name).write_bytes(text.encode() if isinstance(text, str) else text)


def export_module(
    module: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    output: Path | str,
    *,
    outputs: tuple[str, ...] = ("output",),
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    opset: int = OPSET,
    force: bool = False,
) -> Path:
    """Write any PyTorch module as an .onnx file; over 2 GB its weights go to ``<output>.data``.

    ``inputs`` are examples by name, in the order of the module's ``forward``; ``dynamic`` names the axes that
    may change, such as ``{"x": {0: "batch"}}``. Raises `UnsupportedError` with the exporter's reason.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtraError("exporting PyTorch modules", "hf") from None
    from unittest import mock

    from terazi.formats.onnx import load_graph, write_graph

    output = Path(output)
    if output.exists() and not force:
        raise ExistsError(output)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        file = Path(temporary) / "model.onnx"
        try:
            with (
                warnings.catch_warnings(),
                torch.inference_mode(),
                mock.patch.object(torch._C, "_jit_onnx_log"),  # prints the whole graph when it fails
            ):
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    module.eval(),
                    tuple(inputs.values()),
                    str(file),  # with a Path it puts no weights beside a graph of more than 2 GB
                    input_names=list(inputs),
                    output_names=list(outputs),
                    dynamic_axes={name: dict(axes) for name, axes in (dynamic or {}).items()},
                    opset_version=opset,
                    dynamo=False,  # keeps the patterns that onnxruntime's fusions look for
                )
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), error.__class__.__name__)
            raise UnsupportedError(f"PyTorch cannot export {module.__class__.__name__}: {reason}") from None
        write_graph(load_graph(file), output, origin=file, force=force)
    return output


@contextlib.contextmanager
def _directory(output: Path, force: bool) -> Iterator[Path]:
    """Yield a directory that becomes ``output`` when the block ends well, and vanishes when it does not."""
    if output.exists() and not force:
        raise ExistsError(output)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        directory = Path(temporary) / "model"
        directory.mkdir()
        yield directory
        if output.exists():
            output.rename(Path(temporary) / "old")
        directory.rename(output)


@contextlib.contextmanager
def _decoded(model: Model) -> Iterator[Model]:
    """Write a quantized model's weights as a checkpoint that lives until the block ends."""
    from terazi.convert import huggingface
    from terazi.formats import open_model

    with tempfile.TemporaryDirectory(prefix="terazi-") as temporary:
        directory = Path(temporary) / "model"
        huggingface.convert(model, directory, type="F32")
        yield dataclasses.replace(open_model(directory), name=model.name, license=model.license)


def _optimize(model: Model, output: Path, type: str | None, *, fuse: bool, force: bool) -> Artifact:
    """Check a graph from anywhere, fold constants, fuse operators where it is a known family."""
    from terazi.convert.onnx_fusion import FAMILIES, check, fold
    from terazi.formats.onnx import graph_file

    if type is not None:
        raise UsageError("a graph keeps its types here", hint="`terazi quantize --type float16` halves them")
    source = graph_file(model.path)
    check(source)
    with _directory(output, force) as directory:
        fold(source, directory / "model.onnx")
        if fuse and model.config.architecture in FAMILIES:
            _fuse(model, directory / "model.onnx")
        _copy_companions(model, source.parent, directory)
        _write_papers(model, directory, "optimized", output)
    return Artifact.of_directory(output, format="onnx", label="optimized", license=model.license)


def _copy_companions(model: Model, origin: Path, directory: Path) -> None:
    for file in model.files:
        target = directory / file.relative_to(origin)
        if file.suffix in _COMPANIONS and not target.exists():
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)


def _export_encoder(model: Model, architecture: str, directory: Path, opset: int) -> None:
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("exporting Hugging Face models to ONNX", "hf") from None
    task = next((task for ending, task in _TASKS.items() if architecture.endswith(ending)), None)
    if task is None:
        raise UnsupportedError(
            f"{model.path}: no ONNX export for {architecture or 'a checkpoint without architectures'}",
            hint=f"supported are classes that end in {', '.join(_TASKS)}, and causal language models",
        )
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    own = getattr(transformers, architecture, None) if task.output == "logits" else None
    loader = own or getattr(transformers, task.loader)
    network = loader.from_pretrained(
        model.path, local_files_only=True, trust_remote_code=False, attn_implementation="eager"
    )
    inputs, axes = _examples(network)
    per_token = task.output == "last_hidden_state" or "Token" in task.loader
    export_module(
        _wrapped(network, tuple(inputs), task.output),
        inputs,
        directory / "model.onnx",
        outputs=(task.output,),
        dynamic={**dict.fromkeys(inputs, axes), task.output: axes if per_token else {0: "batch"}},
        opset=opset,
    )


def _fuse(model: Model, file: Path) -> None:
    """Fuse operators in place; the graph keeps how many of each there were."""
    from terazi.convert.onnx_fusion import optimize
    from terazi.formats.onnx import EXPORTED, load_graph, operators, write_graph

    config, before = model.config, operators(load_graph(file))
    fused = optimize(file, family=config.architecture, heads=config.head_count, width=config.embedding_length)
    if all(entry.key != EXPORTED for entry in fused.metadata_props):
        fused.metadata_props.add(key=EXPORTED, value=json.dumps(before))
    write_graph(fused, file, force=True)


def _wrapped(network: Any, names: tuple[str, ...], output: str) -> torch.nn.Module:
    """Return a module with positional inputs and one tensor as its output."""
    import torch

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            return getattr(self.network(**dict(zip(names, values, strict=True))), output)

    return Wrapped()


def _examples(network: Any) -> tuple[dict[str, torch.Tensor], dict[int, str]]:
    """Return example inputs for what the network's ``forward`` takes, and their dynamic axes."""
    import inspect

    import torch

    config = network.config
    if network.main_input_name == "pixel_values":
        size = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
        return {"pixel_values": torch.zeros(1, config.num_channels, size, size)}, {0: "batch"}
    if network.main_input_name == "input_values":
        if hasattr(config, "num_mel_bins"):  # a spectrogram of fixed length, not a waveform
            return {"input_values": torch.zeros(1, config.max_length, config.num_mel_bins)}, {0: "batch"}
        return {"input_values": torch.zeros(1, 16_000)}, {0: "batch", 1: "samples"}
    ones = torch.ones(2, 8, dtype=torch.int64)
    inputs = {"input_ids": ones, "attention_mask": ones}
    if "token_type_ids" in inspect.signature(network.forward).parameters:
        inputs["token_type_ids"] = torch.zeros_like(ones)
    return inputs, {0: "batch", 1: "sequence"}
