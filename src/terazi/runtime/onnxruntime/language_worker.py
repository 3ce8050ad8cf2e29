"""The child process of `LanguageModel`: ``python -m terazi.runtime.onnxruntime.language_worker``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime_genai

from terazi.errors import EngineError, UnsupportedError, UsageError
from terazi.runtime.chat import render
from terazi.runtime.child import Message, memory, serve

if TYPE_CHECKING:
    from collections.abc import Callable

    Emit = Callable[[Message], None]

__all__: list[str] = []

_genai: Any = onnxruntime_genai  # its names come from a native module

_FEWEST_REPEATS = 3


class Worker:
    """The operations of one engine; ``open`` comes first."""

    def open(self, call: Message, emit: Emit) -> Message:
        """Load a model and the tokenizer beside it."""
        from tokenizers import Tokenizer

        self._before = memory()[0]
        self._directory = directory = Path(call.values["path"])
        self._threads = call.values["threads"]
        started = time.perf_counter()
        try:
            settings = json.loads((directory / "genai_config.json").read_text("utf-8"))["model"]
            config = _genai.Config(str(directory))
            options = {"session_options": {"intra_op_num_threads": self._threads}}
            config.overlay(json.dumps({"model": {"decoder": options}}))
            self._model = _genai.Model(config)
            self._context = min(call.values["context"], int(settings["context_length"]))
            vocabulary = int(settings["vocab_size"])
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise EngineError(f"onnxruntime-genai cannot load {directory}: {_first_line(error)}") from None
        file = directory / "tokenizer.json"
        self._tokenizer = Tokenizer.from_file(str(file)) if file.is_file() else None
        ends = settings.get("eos_token_id", [])
        self._ends = set(ends if isinstance(ends, list) else [ends])
        self._vocabulary = vocabulary
        begin = settings.get("bos_token_id")
        adds = self._tokenizer is not None and self._tokenizer.encode("").ids[:1] == [begin]
        return Message(
            {
                "load_time": time.perf_counter() - started,
                "vocabulary": vocabulary,
                "context": self._context,
                "begin_token": begin if adds else None,
            }
        )

    def tokenize(self, call: Message, emit: Emit) -> Message:
        """Text to token ids."""
        found = self._text().encode(call.values["text"], add_special_tokens=call.values["add_special"])
        return Message(arrays=[np.array(found.ids, np.int32)])

    def detokenize(self, call: Message, emit: Emit) -> Message:
        """Token ids to text."""
        return Message({"text": self._text().decode(call.arrays[0].tolist())})

    def logits(self, call: Message, emit: Emit) -> Message:
        """Logits of every position from ``first`` on."""
        tokens = call.arrays[0]
        generator = self._generator(len(tokens) + 1)
        generator.append_tokens(tokens)
        found = np.asarray(generator.get_output("logits"), np.float32)
        if found.shape[1] != len(tokens):
            raise UnsupportedError("this export gives the logits of the last token only")
        return Message(arrays=[found[0, call.values["first"] :]])

    def generate(self, call: Message, emit: Emit) -> Message:
        """One event per piece of text."""
        values = call.values
        tokens = self._prompt(values["prompt"])
        limit = min(self._context, len(tokens) + values["max_tokens"])
        generator = self._generator(limit, temperature=values["temperature"], seed=values["seed"])
        started = time.perf_counter()
        generator.append_tokens(np.array(tokens, np.int32))
        begun = time.perf_counter()
        made: list[int] = []
        text, ending = "", "length"
        while len(tokens) + len(made) < limit:
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            if token in self._ends:
                ending = "stop"
                break
            made.append(token)
            whole = self._text().decode(made)
            if not whole.endswith("\ufffd"):  # half of a character: wait for the rest
                emit(Message({"text": whole[len(text) :]}))
                text = whole
        elapsed = time.perf_counter() - begun
        return Message(
            {
                "text": self._text().decode(made),
                "tokens": len(made),
                "prompt_tokens": len(tokens),
                "prompt_speed": len(tokens) / max(begun - started, 1e-9),
                "decode_speed": len(made) / max(elapsed, 1e-9),
                "ending": ending,
            }
        )

    def time(self, call: Message, emit: Emit) -> Message:
        """Seconds per repeat."""
        values, random = call.values, np.random.default_rng(0)
        prompt = random.integers(0, self._vocabulary, values["prompt_tokens"], np.int32)
        steps = random.integers(0, self._vocabulary, values["decode_tokens"], np.int32)
        self._timed(prompt[:8])
        prompts: list[float] = []
        decodes: list[float] = []
        busy, started = time.process_time(), time.perf_counter()
        while len(prompts) < values["repeats"]:
            prompts.append(self._timed(prompt))
            decodes.append(self._timed(*steps[:, None]))
            if len(prompts) >= _FEWEST_REPEATS and time.perf_counter() - started > values["seconds"]:
                break
        whole = (time.perf_counter() - started) * max(self._threads, 1)
        share = (time.process_time() - busy) / max(whole, 1e-9)
        return Message({"prompt_seconds": prompts, "decode_seconds": decodes, "processor_share": share})

    def memory(self, call: Message, emit: Emit) -> Message:
        """Resident bytes at the highest and before the model was loaded; seconds of processor time."""
        return Message({"peak": memory()[1], "before": self._before, "processor_time": time.process_time()})

    def _timed(self, *pieces: np.ndarray) -> float:
        generator = self._generator(sum(map(len, pieces)) + 1)
        started = time.perf_counter()
        for piece in pieces:
            generator.append_tokens(piece)
        return time.perf_counter() - started

    def _generator(self, length: int, *, temperature: float = 0.0, seed: int = 0) -> Any:
        if length > self._context + 1:
            raise UsageError(f"{length - 1} tokens do not fit a context of {self._context}")
        parameters = _genai.GeneratorParams(self._model)
        options: dict[str, Any] = {"max_length": length, "do_sample": temperature > 0}
        if temperature > 0:
            options |= {"temperature": temperature, "top_k": 40, "top_p": 0.95, "random_seed": seed}
        parameters.set_search_options(**options)
        return _genai.Generator(self._model, parameters)

    def _prompt(self, prompt: Any) -> list[int]:
        if isinstance(prompt, str):
            return self._text().encode(prompt).ids
        settings = self._tokenizer_settings()
        template = settings.get("chat_template")
        file = self._directory / "chat_template.jinja"
        template = file.read_text("utf-8") if file.is_file() else template
        if not isinstance(template, str):
            raise UnsupportedError("this model has no chat template", hint="give a text instead of messages")
        words = {}
        for name in ("bos", "eos"):
            word = settings.get(f"{name}_token")
            words[name] = word.get("content", "") if isinstance(word, dict) else word or ""
        text = render(template, prompt, **words)
        return self._text().encode(text, add_special_tokens=not text.startswith(words["bos"] or "\0")).ids

    def _tokenizer_settings(self) -> dict[str, Any]:
        file = self._directory / "tokenizer_config.json"
        try:
            found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        except ValueError:
            found = {}
        return found if isinstance(found, dict) else {}

    def _text(self) -> Any:
        if self._tokenizer is None:
            raise UnsupportedError(f"{self._directory}: no tokenizer.json, so it takes no text")
        return self._tokenizer


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


if __name__ == "__main__":
    worker = Worker()
    names = ("open", "tokenize", "detokenize", "logits", "generate", "time", "memory")
    serve({name: getattr(worker, name) for name in names})
