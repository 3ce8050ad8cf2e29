"""An embedding model open in MLX, inside the child process: texts to unit vectors."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.errors import UsageError
from terazi.runtime.engine import Timings
from terazi.runtime.mlx.bert import Bert, mx, nn
from terazi.runtime.mlx.errors import refusal
from terazi.runtime.pooling import pool
from terazi.runtime.repeats import repeated
from terazi.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Encoder"]

_NETWORKS = {"bert": Bert}
_BATCH = 16
# What checkpoints hold and embeddings do not need.
_UNUSED = ("pooler.", "embeddings.position_ids")


class Encoder:
    """One loaded directory, whose tokenizer and pooling are read from the files in it.

    ``context`` cuts longer texts. Without a GPU, quantized models compute in float32, as in `session`.
    Raises `EngineError` with the first line of the reason.
    """

    vocabulary = 0
    begin_token = None

    def __init__(self, directory: Path, *, context: int) -> None:
        started = time.perf_counter()
        self.tokenizer = Tokenizer(directory)
        try:
            config = json.loads((directory / "config.json").read_text("utf-8"))
            self._network = _load(directory, config)
            self.trained_context = int(config["max_position_embeddings"])
            self._words = int(config["vocab_size"])
        except Exception as error:
            raise refusal("mlx", directory, error) from None
        self.load_time = time.perf_counter() - started
        self._directory = directory
        self._context = min(context, self.trained_context)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one unit vector per text: float32[len(texts), dimensions]."""
        pieces = []
        for start in range(0, len(texts), _BATCH):
            batch = self.tokenizer.batch(texts[start : start + _BATCH], longest=self._context)
            states = self._run(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
            pieces.append(pool(states, batch["attention_mask"], self._directory))
        return np.concatenate(pieces)

    def time(self, *, prompt_tokens: int, decode_tokens: int, repeats: int, seconds: float) -> Timings:
        """Time one sequence of random tokens."""
        if decode_tokens:
            raise UsageError("an embedding model writes nothing")
        tokens = np.random.default_rng(0).integers(0, self._words, (1, min(prompt_tokens, self._context)))

        def once() -> float:
            began = time.perf_counter()
            self._run(tokens, np.ones_like(tokens), np.zeros_like(tokens))
            return time.perf_counter() - began

        once()
        (found,), share = repeated((once,), repeats=repeats, seconds=seconds, threads=1)
        return Timings(
            prompt_tokens=tokens.shape[1],
            prompt_seconds=tuple(found),
            decode_tokens=0,
            decode_seconds=(),
            processor_share=share,
        )

    def _run(self, *inputs: np.ndarray) -> np.ndarray:
        states = self._network(*(mx.array(values.astype(np.int32)) for values in inputs))
        return np.array(states.astype(mx.float32))


def _load(directory: Path, config: Mapping[str, Any]) -> Any:
    """Return the network that ``config`` describes, with its weights."""
    family = config["model_type"]
    if family not in _NETWORKS:
        raise ValueError(f"no encoder of {str(family)[:40]!r} models; known: {', '.join(_NETWORKS)}")
    network = _NETWORKS[family](config)
    weights: dict[str, Any] = {}
    for file in sorted(directory.glob("model*.safetensors")):
        weights |= mx.load(str(file))
    weights = {name: value for name, value in weights.items() if not name.startswith(_UNUSED)}
    settings = config.get("quantization")
    if settings is not None:
        nn.quantize(
            network,
            group_size=settings["group_size"],
            bits=settings["bits"],
            mode=settings.get("mode", "affine"),
            class_predicate=lambda name, _: settings.get(name) or f"{name}.scales" in weights,
        )
    network.load_weights(list(weights.items()))
    if settings is not None and mx.default_device() == mx.Device(mx.cpu):
        network.set_dtype(mx.float32)
    network.eval()
    mx.eval(network.parameters())
    return network
