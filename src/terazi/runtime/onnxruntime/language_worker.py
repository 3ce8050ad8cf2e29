"""The child process of `LanguageModel`: ``python -m terazi.runtime.onnxruntime.language_worker``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from terazi.errors import UnsupportedError
from terazi.runtime.child import Message, memory, serve
from terazi.runtime.onnxruntime.decoder import Decoder
from terazi.runtime.repeats import repeated

if TYPE_CHECKING:
    from collections.abc import Callable

    Emit = Callable[[Message], None]

__all__: list[str] = []


class Worker:
    """The operations of one engine; ``open`` comes first."""

    decoder: Decoder

    def open(self, call: Message, emit: Emit) -> Message:
        """Load a model and the tokenizer beside it."""
        self._before = memory()[0]
        self._threads = call.values["threads"]
        started = time.perf_counter()
        self.decoder = decoder = Decoder(
            Path(call.values["path"]), threads=self._threads, context=call.values["context"]
        )
        return Message(
            {
                "load_time": time.perf_counter() - started,
                "vocabulary": decoder.vocabulary,
                "context": decoder.context,
                "begin_token": decoder.begin_token,
            }
        )

    def tokenize(self, call: Message, emit: Emit) -> Message:
        """Text to token ids."""
        text, special = call.values["text"], call.values["add_special"]
        found = self.decoder.tokenizer.encode(text, add_special=special)
        return Message(arrays=[np.array(found, np.int32)])

    def detokenize(self, call: Message, emit: Emit) -> Message:
        """Token ids to text."""
        return Message({"text": self.decoder.tokenizer.decode(call.arrays[0].tolist())})

    def logits(self, call: Message, emit: Emit) -> Message:
        """One event per window with the logits of every position from ``first`` on."""
        for tokens in call.arrays[0]:
            generator = self.decoder.generator(len(tokens) + 1)
            generator.append_tokens(tokens)
            found = np.asarray(generator.get_output("logits"), np.float32)
            if found.shape[1] != len(tokens):
                raise UnsupportedError("this export gives the logits of the last token only")
            emit(Message(arrays=[found[0, call.values["first"] :]]))
        return Message()

    def generate(self, call: Message, emit: Emit) -> Message:
        """One event per piece of text."""
        values, decoder = call.values, self.decoder
        tokens = decoder.tokenizer.prompt(values["prompt"])
        limit = min(decoder.context, len(tokens) + values["max_tokens"])
        generator = decoder.generator(limit, temperature=values["temperature"], seed=values["seed"])
        started = time.perf_counter()
        generator.append_tokens(np.array(tokens, np.int32))
        begun = time.perf_counter()
        text, pieces, made, ending = decoder.tokenizer.text(), [], 0, "length"
        while len(tokens) + made < limit:
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            if token in decoder.ends:
                ending = "stop"
                break
            made += 1
            if piece := text.add(token):
                pieces.append(piece)
                emit(Message({"text": piece}))
        if piece := text.finish():
            pieces.append(piece)
            emit(Message({"text": piece}))
        elapsed = time.perf_counter() - begun
        return Message(
            {
                "text": "".join(pieces),
                "tokens": made,
                "prompt_tokens": len(tokens),
                "prompt_speed": len(tokens) / max(begun - started, 1e-9),
                "decode_speed": made / max(elapsed, 1e-9),
                "ending": ending,
            }
        )

    def time(self, call: Message, emit: Emit) -> Message:
        """Seconds per repeat."""
        values, random = call.values, np.random.default_rng(0)
        prompt = random.integers(0, self.decoder.vocabulary, values["prompt_tokens"], np.int32)
        steps = random.integers(0, self.decoder.vocabulary, values["decode_tokens"], np.int32)
        self._timed(prompt[:8])
        (prompts, decodes), share = repeated(
            (lambda: self._timed(prompt), lambda: self._timed(*steps[:, None])),
            repeats=values["repeats"],
            seconds=values["seconds"],
            threads=self._threads,
        )
        timings = {"prompt_tokens": len(prompt), "prompt_seconds": prompts, "decode_seconds": decodes}
        return Message({**timings, "processor_share": share})

    def memory(self, call: Message, emit: Emit) -> Message:
        """Resident bytes at the highest and before the model was loaded; seconds of processor time."""
        return Message({"peak": memory()[1], "before": self._before, "processor_time": time.process_time()})

    def _timed(self, *pieces: np.ndarray) -> float:
        generator = self.decoder.generator(sum(map(len, pieces)) + 1)
        started = time.perf_counter()
        for piece in pieces:
            generator.append_tokens(piece)
        return time.perf_counter() - started


if __name__ == "__main__":
    worker = Worker()
    names = ("open", "tokenize", "detokenize", "logits", "generate", "time", "memory")
    serve({name: getattr(worker, name) for name in names})
