"""A model and its context in this process: tokens, logits, embeddings, generation and timing.

Meant for the child process (`worker`): a damaged model or an assertion inside llama.cpp ends the process.
"""

from __future__ import annotations

import codecs
import ctypes
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.errors import EngineError
from terazi.runtime.chat import render
from terazi.runtime.engine import Generation, Timings
from terazi.runtime.llamacpp import library as c
from terazi.runtime.llamacpp.devices import fitting_layers
from terazi.runtime.repeats import repeated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Session"]

_WARNING, _CONTINUED = 3, 5
_EMBEDDING_SEQUENCES = 64
_PIECE_VALUES = 1 << 25


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _log(level: int, text: bytes, _: object) -> None:
    """Keep warnings and errors; the rest is thousands of lines about the graph."""
    if _WARNING <= level < _CONTINUED:
        sys.stderr.buffer.write(text)
        sys.stderr.buffer.flush()


class Session:
    """One loaded GGUF file. ``context`` is the longest sequence in tokens.

    With ``embedding`` the context pools token vectors as the file says (mean when it says nothing).
    ``gpu_layers`` of the model go to GPUs, -1: what fits there. ``observe`` is called by llama.cpp for every
    node of the graph (`library.EvaluationCallback`). Raises `EngineError` when llama.cpp refuses the file or
    cannot allocate; the log says why.
    """

    def __init__(
        self,
        path: str,
        *,
        context: int,
        threads: int,
        embedding: bool = False,
        gpu_layers: int = 0,
        observe: Any = None,
    ) -> None:
        self.library = c.load()
        self.library.llama_log_set(_log, None)
        self._observe = observe  # ctypes does not keep callbacks alive
        self._batch_size = min(max(context, 1), 2048)
        start = time.perf_counter()
        parameters = self.library.llama_model_default_params()
        if gpu_layers < 0 and self.library.llama_supports_gpu_offload():
            gpu_layers = fitting_layers(Path(path), context)
        parameters.n_gpu_layers = max(gpu_layers, 0)
        self.model = self.library.llama_model_load_from_file(path.encode(), parameters)
        if not self.model:
            raise EngineError(f"llama.cpp cannot load {path}")
        self.vocabulary = self.library.llama_model_get_vocab(self.model)
        self.vocabulary_size = int(self.library.llama_vocab_n_tokens(self.vocabulary))
        self.dimensions = int(self.library.llama_model_n_embd_out(self.model))
        self.trained_context = int(self.library.llama_model_n_ctx_train(self.model))
        self.encoder = bool(self.library.llama_model_has_encoder(self.model))
        self.context = self._open(context, threads, embedding, pooling=-1)
        if embedding and self.library.llama_pooling_type(self.context) == c.POOLING["none"]:
            self.library.llama_free(self.context)
            self.context = self._open(context, threads, embedding, pooling=c.POOLING["mean"])
        self.load_time = time.perf_counter() - start

    def _open(self, context: int, threads: int, embedding: bool, *, pooling: int) -> int:
        parameters = self.library.llama_context_default_params()
        parameters.n_ctx = context
        parameters.n_batch = self._batch_size
        parameters.n_ubatch = self._batch_size if embedding else min(512, self._batch_size)
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.embeddings = embedding
        if embedding:
            parameters.n_seq_max = min(_EMBEDDING_SEQUENCES, self._batch_size)
            parameters.kv_unified = True
            parameters.pooling_type = pooling
        if self._observe is not None:
            parameters.cb_eval = self._observe
        opened = self.library.llama_init_from_model(self.model, parameters)
        if not opened:
            raise EngineError(f"llama.cpp cannot make a context of {context} tokens")
        self._check(opened, parameters)
        return opened

    def _check(self, opened: int, asked: Any) -> None:
        """Read back what was asked for: a context made from a misread struct is not used."""
        for name in ("n_batch", "n_ubatch", "n_seq_max", "n_threads", "n_threads_batch"):
            got = getattr(self.library, f"llama_{name}")(opened)
            if got != getattr(asked, name):
                raise EngineError(f"llama.cpp took {name}={got} instead of {getattr(asked, name)}")
        if self.library.llama_n_ctx(opened) < asked.n_ctx:
            raise EngineError(f"llama.cpp made a context smaller than {asked.n_ctx} tokens")

    def text_of(self, token: int) -> str:
        """Return the vocabulary's entry for a token id, or nothing for a missing token (-1)."""
        if token < 0:
            return ""
        return (self.library.llama_vocab_get_text(self.vocabulary, token) or b"").decode(errors="replace")

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = False) -> np.ndarray:
        """Return token ids, int32[n]; ``parse_special`` turns written special tokens into their ids."""
        data = text.encode()
        tokens = np.empty(len(data) + 16, np.int32)
        for _ in range(2):
            pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            count = self.library.llama_tokenize(
                self.vocabulary, data, len(data), pointer, len(tokens), add_special, parse_special
            )
            if count >= 0:
                return tokens[:count]
            tokens = np.empty(-count, np.int32)
        raise EngineError("llama.cpp cannot tokenize the text")

    def detokenize(self, tokens: np.ndarray) -> str:
        """Return the text of token ids without special tokens."""
        tokens = self._valid(tokens)
        pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        size = 16 * len(tokens) + 64
        for _ in range(2):
            text = ctypes.create_string_buffer(size)
            count = self.library.llama_detokenize(
                self.vocabulary, pointer, len(tokens), text, size, True, False
            )
            if count >= 0:
                return text.raw[:count].decode(errors="replace")
            size = -count
        raise EngineError("llama.cpp cannot turn the tokens into text")

    def _valid(self, tokens: np.ndarray) -> np.ndarray:
        tokens = np.ascontiguousarray(tokens, np.int32)
        if len(tokens) and not (tokens.min() >= 0 and tokens.max() < self.vocabulary_size):
            raise EngineError(f"a token id is outside the vocabulary of {self.vocabulary_size}")
        return tokens

    def forget(self) -> None:
        """Empty the context."""
        memory = self.library.llama_get_memory(self.context)
        if memory:
            self.library.llama_memory_clear(memory, True)

    def decode(
        self, tokens: np.ndarray, positions: np.ndarray, sequences: np.ndarray, output: np.ndarray
    ) -> None:
        """Run one batch: int32[n] each, and int8[n] that is 1 where logits or embeddings are wanted."""
        count = len(tokens)
        tokens, positions, sequences = (
            np.ascontiguousarray(array, np.int32) for array in (tokens, positions, sequences)
        )
        output = np.ascontiguousarray(output, np.int8)
        ones = np.ones(count, np.int32)
        rows = (sequences.ctypes.data + 4 * np.arange(count, dtype=np.int64)).astype(np.uintp)
        integers = ctypes.POINTER(ctypes.c_int32)
        batch = c.Batch(
            count,
            tokens.ctypes.data_as(integers),
            None,
            positions.ctypes.data_as(integers),
            ones.ctypes.data_as(integers),
            rows.ctypes.data_as(ctypes.POINTER(integers)),
            output.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        status = self.library.llama_decode(self.context, batch)
        if status != 0:
            raise EngineError(f"llama.cpp cannot decode {count} tokens (status {status})")

    def feed(self, tokens: np.ndarray, *, start: int = 0) -> None:
        """Decode one sequence from position ``start`` on; only the last token gets logits."""
        for begin in range(0, len(tokens), self._batch_size):
            part = tokens[begin : begin + self._batch_size]
            positions = np.arange(start + begin, start + begin + len(part))
            self.decode(part, positions, np.zeros(len(part)), positions == start + len(tokens) - 1)

    def stream(self, tokens: np.ndarray, *, first: int = 0) -> Iterator[np.ndarray]:
        """Run one sequence from its start and yield its logits from ``first`` on, float32[k, vocabulary].

        A piece has as many positions as fit 128 MB: a large vocabulary times a long window is gigabytes.
        """
        tokens = self._valid(tokens)
        limit = int(self.library.llama_n_ctx_seq(self.context))
        if not 0 <= first < len(tokens) <= limit:
            raise EngineError(f"{len(tokens)} tokens from {first} do not fit a context of {limit}")
        self.forget()
        rows = max(1, _PIECE_VALUES // self.vocabulary_size)
        begin = 0
        while begin < len(tokens):
            end = min(begin + self._batch_size, max(first, begin) + rows, len(tokens))
            positions = np.arange(begin, end)
            wanted = positions >= first
            self.decode(tokens[begin:end], positions, np.zeros(end - begin), wanted)
            if wanted.any():
                yield self._outputs(int(wanted.sum()))
            begin = end

    def _outputs(self, rows: int) -> np.ndarray:
        pointer = self.library.llama_get_logits(self.context)
        if not pointer:
            raise EngineError("this model gives no logits", hint="embedding models are opened as such")
        view = np.ctypeslib.as_array(pointer, (rows, self.vocabulary_size))
        return view.copy()  # llama.cpp reuses the buffer

    def logits(self, tokens: np.ndarray, *, first: int = 0) -> np.ndarray:
        """Run one sequence from its start; float32[n - first, vocabulary]."""
        pieces = list(self.stream(tokens, first=first))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return one pooled unit vector per text: float32[len(texts), dimensions]."""
        tokenized = [self.tokenize(text, add_special=True) for text in texts]
        limit = min(self._batch_size, self.trained_context or self._batch_size)
        for number, tokens in enumerate(tokenized):
            if not 0 < len(tokens) <= limit:
                raise EngineError(f"text {number} has {len(tokens)} tokens; the model takes 1 to {limit}")
        result = np.empty((len(texts), self.dimensions), np.float32)
        begin = 0
        while begin < len(texts):
            end, total = begin, 0
            while end < len(texts) and end - begin < _EMBEDDING_SEQUENCES:
                total += len(tokenized[end])
                if total > self._batch_size:
                    break
                end += 1
            self._embed_batch(tokenized[begin:end], result[begin:end])
            begin = end
        norms = np.linalg.norm(result.astype(np.float64), axis=1, keepdims=True)
        return (result / np.where(norms > 0, norms, 1)).astype(np.float32)

    def _embed_batch(self, tokenized: Sequence[np.ndarray], result: np.ndarray) -> None:
        lengths = [len(tokens) for tokens in tokenized]
        self.forget()
        self.decode(
            np.concatenate(tokenized),
            np.concatenate([np.arange(length) for length in lengths]),
            np.repeat(np.arange(len(tokenized)), lengths),
            np.ones(sum(lengths)),
        )
        for number in range(len(tokenized)):
            pointer = self.library.llama_get_embeddings_seq(self.context, number)
            if not pointer:
                raise EngineError("this model gives no embeddings")
            result[number] = np.ctypeslib.as_array(pointer, (self.dimensions,))

    def prompt(self, prompt: str | Sequence[Mapping[str, str]]) -> np.ndarray:
        """Return the token ids of a text, or of chat messages by the file's template."""
        if isinstance(prompt, str):
            return self.tokenize(prompt, add_special=True, parse_special=True)
        template = self.library.llama_model_chat_template(self.model, None)
        if not template:
            raise EngineError("the model has no chat template", hint="give it a plain prompt instead")
        bos = self.text_of(self.library.llama_vocab_bos(self.vocabulary))
        eos = self.text_of(self.library.llama_vocab_eos(self.vocabulary))
        text = render(template.decode(errors="replace"), prompt, bos=bos, eos=eos)
        begins = bool(bos) and text.startswith(bos)
        return self.tokenize(text, add_special=not begins, parse_special=True)

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
        tokens = self.prompt(prompt)
        room = int(self.library.llama_n_ctx_seq(self.context)) - len(tokens)
        if not len(tokens) or room < 1:
            raise EngineError(
                f"the prompt has {len(tokens)} tokens and the context {room + len(tokens)}",
                hint="use a larger context or a shorter prompt",
            )
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        written: list[str] = []
        count, steps, ending = 0, 0, "length"
        sampler = self._sampler(temperature, seed)
        try:
            self.forget()
            start = time.perf_counter()
            self.feed(tokens)
            decoding = time.perf_counter()
            for position in range(len(tokens), len(tokens) + min(max_tokens, room)):
                token = self.library.llama_sampler_sample(sampler, self.context, -1)
                if self.library.llama_vocab_is_eog(self.vocabulary, token):
                    ending = "stop"
                    break
                count += 1
                if text := decoder.decode(self.piece(token)):
                    written.append(text)
                    on_text(text)
                if count < min(max_tokens, room):
                    self.feed(np.array([token]), start=position)
                    steps += 1
            end = time.perf_counter()
        finally:
            self.library.llama_sampler_free(sampler)
        if text := decoder.decode(b"", final=True):
            written.append(text)
            on_text(text)
        return Generation(
            text="".join(written),
            tokens=count,
            prompt_tokens=len(tokens),
            prompt_speed=len(tokens) / (decoding - start),
            decode_speed=steps / (end - decoding),
            ending=ending,
        )

    def piece(self, token: int) -> bytes:
        """Return the bytes of one token, which may end inside a character; special tokens give none."""
        size = 64
        for _ in range(2):
            text = ctypes.create_string_buffer(size)
            count = self.library.llama_token_to_piece(self.vocabulary, token, text, size, 0, False)
            if count >= 0:
                return text.raw[:count]
            size = -count
        return b""

    def _sampler(self, temperature: float, seed: int) -> int:
        """Make a chain: the likeliest token at temperature 0, else llama.cpp's usual filters and a draw."""
        library = self.library
        chain = library.llama_sampler_chain_init(library.llama_sampler_chain_default_params())
        if temperature <= 0:
            library.llama_sampler_chain_add(chain, library.llama_sampler_init_greedy())
            return chain
        for sampler in (
            library.llama_sampler_init_top_k(40),
            library.llama_sampler_init_top_p(0.95, 1),
            library.llama_sampler_init_min_p(0.05, 1),
            library.llama_sampler_init_temp(temperature),
            library.llama_sampler_init_dist(seed & 0xFFFFFFFF),
        ):
            library.llama_sampler_chain_add(chain, sampler)
        return chain

    def time(self, *, prompt_tokens: int, decode_tokens: int, repeats: int, seconds: float) -> Timings:
        """Time prompts of random tokens and runs of single steps."""
        tokens = np.random.default_rng(0).integers(0, self.vocabulary_size, max(prompt_tokens, decode_tokens))
        self._timed(tokens[:32], 32)
        self._timed(tokens[: min(2, decode_tokens)], 1)
        (prompts, decodes), share = repeated(
            (
                lambda: self._timed(tokens[:prompt_tokens], self._batch_size),
                lambda: self._timed(tokens[:decode_tokens], 1),
            ),
            repeats=repeats,
            seconds=seconds,
            threads=self.library.llama_n_threads(self.context),
        )
        return Timings(
            prompt_tokens=prompt_tokens,
            prompt_seconds=tuple(prompts),
            decode_tokens=decode_tokens,
            decode_seconds=tuple(decodes) if decode_tokens else (),
            processor_share=share,
        )

    def _timed(self, tokens: np.ndarray, step: int) -> float:
        """Run one sequence ``step`` tokens at a time with the last one's output; returns seconds."""
        self.forget()
        start = time.perf_counter()
        for begin in range(0, len(tokens), step):
            part = tokens[begin : begin + step]
            last = np.zeros(len(part))
            last[-1] = 1
            output = np.ones(len(part)) if self.encoder else last
            self.decode(part, begin + np.arange(len(part)), np.zeros(len(part)), output)
        self.library.llama_synchronize(self.context)
        return time.perf_counter() - start
