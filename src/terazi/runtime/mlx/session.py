"""A model open in mlx-lm, inside the child process: logits, text and timing.

MLX computes when a value is asked for (``mx.eval``): logits that nobody reads cost nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import mlx.core
import numpy as np
from mlx_lm.models import cache
from mlx_lm.sample_utils import make_sampler
from mlx_lm.utils import load_model

from terazi.errors import EngineError, UnsupportedError
from terazi.runtime.engine import Generation, Timings
from terazi.runtime.mlx.errors import refusal
from terazi.runtime.repeats import FEWEST, repeated
from terazi.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Session"]

mx: Any = mlx.core  # a native module without types
_PART = 512  # tokens that run at once
_PIECE_VALUES = 1 << 25
_SHORTEST_PROMPT = 32  # tokens; one such is the warm-up


class Session:
    """One loaded directory. ``context`` is the longest sequence in tokens.

    Without a GPU, scales of quantized layers become float32, and with them all that is computed: x86
    processors multiply quantized weights with float16 some forty times slower.
    Raises `EngineError` with the first line of mlx-lm's reason.
    """

    def __init__(self, directory: Path, *, context: int) -> None:
        started = time.perf_counter()
        processor = mx.default_device() == mx.Device(mx.cpu)
        if processor:
            mx.disable_compile()  # it calls g++, loads what lies in /tmp, and gains nothing measurable
        try:
            self._model: Any
            self._model, config = load_model(directory)
            if processor and "quantization" in config:
                self._model.set_dtype(mx.float32)
            mx.eval(self._model.parameters())
            self.vocabulary = int(self._model(mx.array([[0]])).shape[-1])  # a shape; nothing is computed
        except Exception as error:
            raise refusal("mlx-lm", directory, error) from None
        self.load_time = time.perf_counter() - started
        self.context = context
        self.trained_context = _trained_context(config)
        self._directory = directory
        self._tokenizer: Tokenizer | None = None
        if (directory / "tokenizer.json").is_file():
            self._tokenizer = Tokenizer(directory)
        ends = config.get("eos_token_id")
        self._ends = set(ends if isinstance(ends, list) else [ends])
        if self._tokenizer is not None:
            self._ends.add(self._tokenizer.end)

    @property
    def tokenizer(self) -> Tokenizer:
        """The directory's tokenizer; raises `UnsupportedError` without one."""
        if self._tokenizer is None:
            raise UnsupportedError(f"{self._directory}: no tokenizer.json, so it takes no texts")
        return self._tokenizer

    @property
    def begin_token(self) -> int | None:
        """What the tokenizer puts before every text."""
        return self._tokenizer.begin if self._tokenizer is not None else None

    def stream(self, tokens: np.ndarray, *, first: int = 0) -> Iterator[np.ndarray]:
        """Run one sequence from its start and yield its logits from ``first`` on, float32[k, vocabulary].

        A piece has as many positions as fit 128 MB.
        """
        tokens = self._checked(tokens)
        if not 0 <= first < len(tokens):
            raise EngineError(f"{len(tokens)} tokens have no position {first}")
        state = self._state()
        self._feed(tokens[:first], state)
        step = min(_PART, max(1, _PIECE_VALUES // self.vocabulary))
        for begin in range(first, len(tokens), step):
            found = self._run(tokens[begin : begin + step], state)[0].astype(mx.float32)
            yield np.array(found)
        mx.clear_cache()

    def generate(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        on_text: Callable[[str], object],
    ) -> Generation:
        """Continue a prompt; ``on_text`` receives the text in pieces as it is written."""
        tokens = np.array(self.tokenizer.prompt(prompt), np.int32)
        limit = min(max_tokens, self.context - len(tokens))
        if not len(tokens) or limit < 1:
            raise EngineError(
                f"the prompt has {len(tokens)} tokens and the context {self.context}",
                hint="use a larger context or a shorter prompt",
            )
        sampler = make_sampler(temperature, top_p=0.95, min_p=0.05, top_k=40)
        mx.random.seed(seed)
        text, written, state = self.tokenizer.text(), [], self._state()
        count, ending = 0, "length"
        started = time.perf_counter()
        self._feed(tokens[:-1], state)
        logits = self._run(tokens[-1:], state)
        mx.eval(logits)
        begun = time.perf_counter()
        while True:
            token = _draw(sampler, logits)
            if token in self._ends:
                ending = "stop"
                break
            count += 1
            if piece := text.add(token):
                written.append(piece)
                on_text(piece)
            if count == limit:
                break
            logits = self._run(np.array([token]), state)
        passed = time.perf_counter() - begun
        if piece := text.finish():
            written.append(piece)
            on_text(piece)
        return Generation(
            text="".join(written),
            tokens=count,
            prompt_tokens=len(tokens),
            prompt_speed=len(tokens) / (begun - started),
            decode_speed=(count - (ending == "length")) / passed,
            ending=ending,
        )

    def time(self, *, prompt_tokens: int, decode_tokens: int, repeats: int, seconds: float) -> Timings:
        """Time prompts of random tokens and runs of single steps.

        Prompts are shortened (to 32 tokens at least) when three would take longer than
        ``seconds``: without a GPU, MLX reads them hardly faster than it writes.
        """
        tokens = np.random.default_rng(0).integers(0, self.vocabulary, max(prompt_tokens, decode_tokens))
        probe = tokens[: min(_SHORTEST_PROMPT, prompt_tokens)]
        fits = len(probe) * seconds / FEWEST / max(self._timed(probe, _PART), 1e-9)
        prompt_tokens = min(prompt_tokens, max(int(fits), len(probe)))
        (prompts, decodes), share = repeated(
            (
                lambda: self._timed(tokens[:prompt_tokens], _PART),
                lambda: self._timed(tokens[:decode_tokens], 1),
            ),
            repeats=repeats,
            seconds=seconds,
            threads=1,
        )
        return Timings(
            prompt_tokens=prompt_tokens,
            prompt_seconds=tuple(prompts),
            decode_tokens=decode_tokens,
            decode_seconds=tuple(decodes) if decode_tokens else (),
            processor_share=share,
        )

    def _timed(self, tokens: np.ndarray, step: int) -> float:
        """Run one sequence ``step`` tokens at a time with the last one's logits; returns seconds."""
        state = self._state()
        start = time.perf_counter()
        for begin in range(0, len(tokens), step):
            mx.eval(self._run(tokens[begin : begin + step], state)[:, -1])
        return time.perf_counter() - start

    def _state(self) -> list[Any]:
        """Return an empty KV cache, which takes the room of ``context`` tokens at its first use."""
        layers = cache.make_prompt_cache(self._model)
        for layer in layers:
            if type(layer) is cache.KVCache:
                layer.step = self.context
        return layers

    def _feed(self, tokens: np.ndarray, state: list[Any]) -> None:
        """Run tokens of which no logits are wanted."""
        for begin in range(0, len(tokens), _PART):
            self._run(tokens[begin : begin + _PART], state)
            mx.eval([layer.state for layer in state])

    def _run(self, tokens: np.ndarray, state: list[Any]) -> Any:
        """Return the logits [1, n, vocabulary] of ``tokens`` after those that ``state`` holds."""
        found = self._model(mx.array(np.asarray(tokens, np.int32)[None]), cache=state)
        return found.logits if hasattr(found, "logits") else found

    def _checked(self, tokens: np.ndarray) -> np.ndarray:
        if len(tokens) > self.context:
            raise EngineError(f"{len(tokens)} tokens do not fit a context of {self.context}")
        if len(tokens) and not (tokens.min() >= 0 and tokens.max() < self.vocabulary):
            raise EngineError(f"a token id is outside the vocabulary of {self.vocabulary}")
        return tokens


def _draw(sampler: Callable[[Any], Any], logits: Any) -> int:
    last = logits[:, -1].astype(mx.float32)
    return int(sampler(last - mx.logsumexp(last, axis=-1, keepdims=True)).item())


def _trained_context(config: Mapping[str, Any]) -> int:
    inner = config.get("text_config")
    for values in (config, inner if isinstance(inner, dict) else {}):
        length = values.get("max_position_embeddings")
        if type(length) is int and length > 0:
            return length
    return 0
