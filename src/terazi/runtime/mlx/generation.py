"""mlx-lm's server without its HTTP part: a thread that batches requests and remembers conversations."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import mlx.core
from mlx_lm import server
from mlx_lm.models.cache import LRUPromptCache

from terazi.errors import EngineError, UsageError

if TYPE_CHECKING:
    from terazi.runtime.openai.request import Ask
    from terazi.runtime.server import ServerOptions

__all__ = ["Generation"]

mx: Any = mlx.core  # a native module without types
_PART = 512  # tokens of a prompt that run at once
_ROUND = 0.05  # seconds of writing before newcomers are looked for
_LOOK_BACK = 64  # tokens that penalties count, as in llama.cpp
_MODEL = "default_model"  # mlx-lm's name for the one it was started with


class _Provider(server.ModelProvider):
    """Loads the model, and says when it is there or why not.

    Without a GPU, what is computed becomes float32, as in `terazi.runtime.mlx.session`.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.ready, self.problem = threading.Event(), ""
        super().__init__(_settings(options))  # pyright: ignore[reportArgumentType]

    def _load(self, model_path: Any, adapter_path: Any = None, draft_model_path: Any = None) -> None:
        processor = mx.default_device() == mx.Device(mx.cpu)
        try:
            if processor:
                mx.disable_compile()
            super()._load(model_path, adapter_path, draft_model_path)
            if processor:
                self.model.set_dtype(mx.float32)  # pyright: ignore[reportOptionalMemberAccess]
                mx.eval(self.model.parameters())  # pyright: ignore[reportOptionalMemberAccess]
        except Exception as error:
            self.problem = next(iter(str(error).splitlines()), type(error).__name__)[:300]
            raise
        finally:
            self.ready.set()


class Generation(server.ResponseGenerator):
    """The thread that generates. Raises `EngineError` with the reason when the model cannot be loaded."""

    def __init__(self, options: ServerOptions) -> None:
        self._context = options.context
        provider = _Provider(options)
        super().__init__(provider, LRUPromptCache(options.parallel))
        self._time_budget = server.TimeBudget(_ROUND)
        provider.ready.wait()
        if provider.problem:
            raise EngineError(f"mlx-lm cannot load {options.model}: {provider.problem}")

    def ask(self, ask: Ask) -> tuple[Any, Any]:
        """Begin an answer; returns mlx-lm's context of it and its pieces to come."""
        if isinstance(ask.prompt, str):
            request = server.CompletionRequest("text", ask.prompt, [], None, None)
        else:
            request = server.CompletionRequest("chat", "", list(ask.prompt), None, None)
        return self.generate(request, _arguments(ask, self._context))

    def _tokenize(self, tokenizer: Any, request: Any, args: Any) -> Any:
        """Keep to the context; mlx-lm itself has no limit."""
        if request.request_type == "chat" and not tokenizer.has_chat_template:
            raise UsageError("this model has no chat template (give a text instead of messages)")
        found = super()._tokenize(tokenizer, request, args)
        count = len(found[0])
        if not 0 < count < self._context:
            raise UsageError(f"the prompt has {count} tokens, the context size is {self._context}")
        args.max_tokens = min(args.max_tokens, self._context - count)
        return found


def _settings(options: ServerOptions) -> SimpleNamespace:
    """The command line of mlx-lm's server, as far as its generation reads it."""
    return SimpleNamespace(
        model=options.model,
        adapter_path=None,
        draft_model=None,
        pipeline=False,
        trust_remote_code=False,
        chat_template=options.template,
        use_default_chat_template=False,
        chat_template_args={},
        decode_concurrency=options.parallel,
        prompt_concurrency=options.parallel,
        prefill_step_size=_PART,
        prompt_cache_bytes=None,
        kv_bits=None,
        kv_group_size=64,
        quantized_kv_start=0,
    )


def _arguments(ask: Ask, context: int) -> server.GenerationArguments:
    sampling = ask.sampling
    penalty = sampling.repeat_penalty
    return server.GenerationArguments(
        model=server.ModelDescription(_MODEL, _MODEL, None),  # pyright: ignore[reportArgumentType]
        sampling=server.SamplingArguments(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            xtc_probability=0.0,
            xtc_threshold=0.0,
        ),
        logits=server.LogitsProcessorArguments(
            logit_bias=None,
            repetition_penalty=0.0 if penalty == 1 else penalty,
            repetition_context_size=_LOOK_BACK,
            presence_penalty=sampling.presence_penalty,
            presence_context_size=_LOOK_BACK,
            frequency_penalty=sampling.frequency_penalty,
            frequency_context_size=_LOOK_BACK,
        ),
        stop_words=[],
        max_tokens=ask.max_tokens or context,
        num_draft_tokens=0,
        logprobs=False,
        top_logprobs=0,
        seed=sampling.seed,
        chat_template_kwargs=dict(ask.template_values),
    )
