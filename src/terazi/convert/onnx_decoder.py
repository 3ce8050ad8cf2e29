"""Causal language models as ONNX with a KV cache: directories that stock onnxruntime-genai runs.

onnxruntime-genai's model builder makes the families that it names; PyTorch's exporter traces the others, and
what it traced is run beside transformers before anything is kept.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.convert.onnx import export_module
from terazi.errors import MissingExtraError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from terazi.model import Model

__all__ = ["export_decoder"]

_PRECISIONS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "INT8": "int8", "INT4": "int4"}
_PAST, _PRESENT = "past_key_values.{}.{}", "present.{}.{}"
_INPUTS = ("input_ids", "attention_mask", "position_ids")
_CONTEXT = 2048  # tokens, for families whose positions have no limit
_PIECES = (
    5,
    1,
    1,
    4,
    1,
)  # tokens of a sequence read with a cache, to see that the trace is not of one length
_TOLERANCE = 1e-3  # of the largest logit


def export_decoder(model: Model, architecture: str, directory: Path, type: str, *, opset: int) -> None:
    """Write model.onnx, genai_config.json and the tokenizer's files into ``directory``.

    Raises `UnsupportedError` with the reason for a family or a type that neither exporter has.
    """
    package = find_spec("onnxruntime_genai")
    if package is None or find_spec("transformers") is None:
        raise MissingExtraError("exporting language models to ONNX", "genai")
    if type not in _PRECISIONS:
        raise UnsupportedError(f"no decoder export in {type}", hint=f"choose {', '.join(_PRECISIONS)}")
    builder = [Path(place) / "models" / "builder.py" for place in package.submodule_search_locations or ()]
    if any(f'"{architecture}"' in file.read_text("utf-8") for file in builder if file.is_file()):
        _build(model, directory, type)
    elif type == "F32":
        _trace(model, architecture, directory, opset)
    else:
        raise UnsupportedError(
            f"{model.path}: {architecture} is exported in F32, not {type}",
            hint="`terazi quantize` makes smaller ONNX types of the export, such as w8 and w4",
        )


def _build(model: Model, directory: Path, type: str) -> None:
    """Run onnxruntime-genai's model builder as the command it is, in a process of its own and offline."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(model.path.resolve())]
        command += ["-o", str(directory), "-p", _PRECISIONS[type], "-e", "cpu", "-c", cache]
        done = subprocess.run(
            [*command, "--extra_options", "hf_token=false", "hf_remote=false"],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode or not (directory / "model.onnx").is_file():
        reason = next(reversed(done.stderr.strip().splitlines()), "it wrote no model")
        raise UnsupportedError(f"{model.path}: onnxruntime-genai cannot export it: {reason[:300]}")


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a network takes by name, and keeps: a cache of ``[batch, heads, past, size]`` per layer."""

    inputs: tuple[str, ...]
    layers: int
    heads: int
    size: int
    vocabulary: int

    def cache(self, pattern: str) -> list[str]:
        """Names of all layers' keys and values, in order."""
        return [pattern.format(layer, kind) for layer in range(self.layers) for kind in ("key", "value")]


def _trace(model: Model, architecture: str, directory: Path, opset: int) -> None:
    """Export with PyTorch, then compare with transformers."""
    network = _network(model, architecture)
    try:
        shape = _shape(network)
        _export(network, shape, directory / "model.onnx", opset)
        _verify(network, shape, directory / "model.onnx")
    except UnsupportedError as error:
        raise UnsupportedError(f"{model.path}: no ONNX export for {architecture}: {error}") from None
    settings = _settings(model, network, shape)
    (directory / "genai_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _network(model: Model, architecture: str) -> Any:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    loader: Any = getattr(transformers, architecture, transformers.AutoModelForCausalLM)
    try:
        network, loaded = loader.from_pretrained(
            model.path,
            dtype=torch.float32,
            attn_implementation="eager",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise UnsupportedError(f"{model.path}: transformers cannot open it: {_first_line(error)}") from None
    if missing := sorted(loaded["missing_keys"]):
        raise UnsupportedError(f"{model.path}: no weights for {missing[0]} and {len(missing) - 1} others")
    return network.eval()


def _shape(network: Any) -> _Shape:
    """Run one token and look at the cache. Raises `UnsupportedError` when it is not keys and values alone."""
    import torch

    accepted = inspect.signature(network.forward).parameters
    try:
        with torch.inference_mode():
            made = network(torch.zeros(1, 1, dtype=torch.int64), use_cache=True)
        pairs = [(layer.keys.shape, layer.values.shape) for layer in made.past_key_values.layers]
        batch, heads, length, size = pairs[0][0]
    except Exception:
        raise UnsupportedError("its state is not a cache of keys and values") from None
    if (batch, length) != (1, 1) or any(shape != pairs[0][0] for pair in pairs for shape in pair):
        raise UnsupportedError("onnxruntime-genai wants keys and values of one shape in all layers")
    names = tuple(name for name in _INPUTS if name in accepted)
    return _Shape(names, len(pairs), heads, size, made.logits.shape[-1])


def _export(network: Any, shape: _Shape, file: Path, opset: int) -> None:
    import torch

    batch, past, new = 2, 4, 3  # all different, and none 1, which a trace would take for a constant
    examples = {
        "input_ids": torch.ones(batch, new, dtype=torch.int64),
        "attention_mask": torch.ones(batch, past + new, dtype=torch.int64),
        "position_ids": torch.arange(past, past + new).repeat(batch, 1),
    }
    inputs = {name: examples[name] for name in shape.inputs}
    caches = {name: torch.zeros(batch, shape.heads, past, shape.size) for name in shape.cache(_PAST)}
    outputs = ("logits", *shape.cache(_PRESENT))
    with _exportable():
        export_module(
            _wrapped(network, shape.inputs),
            {**inputs, **caches},
            file,
            outputs=outputs,
            dynamic={
                **{name: {0: "batch", 1: "sequence"} for name in (*inputs, "logits")},
                "attention_mask": {0: "batch", 1: "total"},
                **{name: {0: "batch", 2: "past"} for name in caches},
                **{name: {0: "batch", 2: "total"} for name in outputs[1:]},
            },
            opset=opset,
        )


@contextlib.contextmanager
def _exportable() -> Iterator[None]:
    """Write two functions, which the exporter lacks for tensors of any length, in those that it has."""
    from unittest import mock

    import torch

    known = torch.repeat_interleave

    def repeat_interleave(values: Any, repeats: Any, dim: int | None = None, **options: Any) -> torch.Tensor:
        if dim is None or not isinstance(repeats, int):
            return known(values, repeats, dim, **options)
        axis = dim % values.ndim
        return torch.stack([values] * repeats, axis + 1).flatten(axis, axis + 1)

    with (
        mock.patch.object(torch, "repeat_interleave", repeat_interleave),
        mock.patch.object(torch.Tensor, "repeat_interleave", repeat_interleave),
        mock.patch.object(torch, "expm1", lambda values: values.exp() - 1),
    ):
        yield


def _wrapped(network: Any, names: tuple[str, ...]) -> torch.nn.Module:
    """Return a module from tensors to tensors: inputs, then keys and values by layer; logits, then these."""
    import torch
    from transformers import DynamicCache

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            inputs, past = values[: len(names)], values[len(names) :]
            cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
            made = self.network(
                **dict(zip(names, inputs, strict=True)), past_key_values=cache, use_cache=True
            )
            kept = (half for layer in made.past_key_values.layers for half in (layer.keys, layer.values))
            return made.logits, *kept

    Decoder.__name__ = network.__class__.__name__  # what messages call it
    return Decoder()


def _verify(network: Any, shape: _Shape, file: Path) -> None:
    """Compare logits of a sequence in one pass, and in pieces with the cache, with those of transformers.

    A trace keeps the branches that its examples took. Raises `UnsupportedError` when that made a difference.
    """
    import onnxruntime
    import torch

    tokens = np.random.default_rng(0).integers(0, shape.vocabulary, (1, sum(_PIECES)))
    with torch.inference_mode():
        expected = network(torch.from_numpy(tokens), use_cache=False).logits.numpy()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        for pieces in ((len(tokens[0]),), _PIECES):
            seen = np.concatenate(list(_read(session, shape, tokens, pieces)), axis=1)
            error = float(np.abs(seen - expected).max() / np.abs(expected).max())
            if not error <= _TOLERANCE:
                raise UnsupportedError(f"the trace is off by {error:.2g} of the largest logit")
    except UnsupportedError:
        raise
    except Exception as error:
        raise UnsupportedError(f"onnxruntime cannot run what PyTorch traced: {_first_line(error)}") from None


def _read(session: Any, shape: _Shape, tokens: np.ndarray, pieces: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield the logits of ``tokens`` piece by piece, each with the cache of those before."""
    known = {value.name for value in session.get_inputs()}
    cache = dict.fromkeys(shape.cache(_PAST), np.zeros((1, shape.heads, 0, shape.size), np.float32))
    start = 0
    for length in pieces:
        stop = start + length
        feeds: dict[str, np.ndarray] = {
            "input_ids": tokens[:, start:stop],
            "attention_mask": np.ones((1, stop), np.int64),
            "position_ids": np.arange(start, stop)[None],
            **cache,
        }
        logits, *kept = session.run(None, {name: value for name, value in feeds.items() if name in known})
        yield logits
        cache, start = dict(zip(cache, kept, strict=True)), stop


def _settings(model: Model, network: Any, shape: _Shape) -> Mapping[str, Any]:
    """Return genai_config.json (onnxruntime-genai's src/config.h); `decoder` is its type of no family."""
    config, asked = network.config, network.generation_config
    length = model.config.context_length or _CONTEXT
    ends = _tokens(model, network, "eos", shape.vocabulary)
    pads = _tokens(model, network, "pad", shape.vocabulary) or ends or [0]
    begins = _tokens(model, network, "bos", shape.vocabulary) or pads
    return {
        "model": {
            "type": "decoder",
            "bos_token_id": begins[0],
            "eos_token_id": ends or pads,
            "pad_token_id": pads[0],
            "context_length": length,
            "vocab_size": shape.vocabulary,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": "model.onnx",
                "head_size": shape.size,
                "hidden_size": config.hidden_size,
                "num_attention_heads": config.num_attention_heads,
                "num_hidden_layers": shape.layers,
                "num_key_value_heads": shape.heads,
                "inputs": {
                    **{name: name for name in shape.inputs},
                    "past_key_names": _PAST.format("%d", "key"),
                    "past_value_names": _PAST.format("%d", "value"),
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": _PRESENT.format("%d", "key"),
                    "present_value_names": _PRESENT.format("%d", "value"),
                },
            },
        },
        "search": {
            "do_sample": bool(asked.do_sample),
            "max_length": length,
            "past_present_share_buffer": False,  # each pass returns a longer cache
            "repetition_penalty": asked.repetition_penalty or 1.0,
            "temperature": asked.temperature or 1.0,
            "top_k": asked.top_k or 50,
            "top_p": asked.top_p or 1.0,
        },
    }


def _tokens(model: Model, network: Any, role: str, vocabulary: int) -> list[int]:
    """Return a role's token ids: as generation_config.json has them, else config.json, else the tokenizer."""
    name = f"{role}_token_id"
    special = model.tokenizer.special if model.tokenizer else {}
    for found in (getattr(network.generation_config, name), getattr(network.config, name, None)):
        ids = [token for token in (found if isinstance(found, list) else [found]) if token is not None]
        if ids and all(0 <= token < vocabulary for token in ids):
            return ids
    return [special[role]] if role in special else []


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), error.__class__.__name__)[:300]
