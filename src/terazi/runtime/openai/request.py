"""Requests of OpenAI's protocol, checked: what an engine cannot do is refused, never left out silently.

Fields: https://platform.openai.com/docs/api-reference/chat; those beyond it are llama.cpp's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from terazi.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Ask", "Sampling", "read_ask", "read_texts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen; the defaults are llama.cpp's. Temperature 0 takes the likeliest."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is asked for: ``prompt`` is a text to continue, or chat messages to answer.

    ``max_tokens`` None means as many as the context holds. ``schema`` is a JSON schema that the answer must
    follow. ``template_values`` are further variables of the chat template.
    """

    prompt: str | tuple[dict[str, Any], ...]
    sampling: Sampling
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    template_values: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False
    include_usage: bool = False


# Sampling field -> smallest and largest value.
_NUMBERS: dict[str, tuple[float, float]] = {
    "temperature": (0, 5),
    "top_k": (0, 1 << 20),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repeat_penalty": (0.01, 10),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
_WHOLE = ("top_k",)
_ALWAYS = ("temperature", "top_p")  # every engine here knows these
_OURS = (
    "model", "messages", "prompt", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop",
    "seed", "chat_template_kwargs", "response_format",
)  # fmt: skip
# Fields that say nothing about the answer.
_BESIDES = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "cache_prompt",
)  # fmt: skip
# Field -> values that ask for nothing; no engine here does more.
_NOTHING: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
}


def read_ask(body: Mapping[str, Any], *, chat: bool, can: frozenset[str]) -> Ask:
    """Check a request. ``can`` names the optional fields that the engine knows.

    Raises `UsageError` for values that make no sense and `UnsupportedError` for what the engine cannot do.
    """
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        if name not in (*_OURS, *_ALWAYS, *_BESIDES) and name not in can and not _says_nothing(name, value):
            raise UnsupportedError(f"this model's engine does not support {name!r}")
    options = given.get("stream_options", {})
    values = given.get("chat_template_kwargs", {})
    if not isinstance(options, dict) or not isinstance(values, dict):
        raise UsageError("stream_options and chat_template_kwargs must be objects")
    return Ask(
        prompt=_messages(given.get("messages")) if chat else _text(given.get("prompt")),
        sampling=_sampling(given),
        max_tokens=_max_tokens(given),
        stop=_stop(given.get("stop", ())),
        schema=_schema(given.get("response_format"), supported="response_format" in can),
        template_values=values,
        stream=given.get("stream") is True,
        include_usage=options.get("include_usage") is True,
    )


def read_texts(body: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Return the texts of an embeddings request, and whether vectors are wanted in base64."""
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise UsageError(f"encoding_format must be 'float' or 'base64', not {form!r}"[:200])
    if body.get("dimensions"):
        raise UnsupportedError("this model's engine does not support 'dimensions'")
    texts = body.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise UsageError("input must be a text or a list of texts")
    return texts, form == "base64"


def _says_nothing(name: str, value: Any) -> bool:
    if name in _NUMBERS:
        return value == getattr(Sampling(), name)
    return any(value == nothing and type(value) is type(nothing) for nothing in _NOTHING.get(name, ()))


def _sampling(given: Mapping[str, Any]) -> Sampling:
    found: dict[str, Any] = {}
    for name, (low, high) in _NUMBERS.items():
        if name in given:
            value = given[name]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not low <= value <= high:
                raise UsageError(f"{name} must be a number from {low} to {high}, not {value!r}"[:200])
            found[name] = int(value) if name in _WHOLE else float(value)
    seed = given.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise UsageError(f"seed must be a whole number, not {seed!r}"[:200])
    return Sampling(**found, seed=None if seed is None or seed < 0 else seed & 0x7FFFFFFF)


def _max_tokens(given: Mapping[str, Any]) -> int | None:
    value = given.get("max_completion_tokens", given.get("max_tokens", -1))
    if not isinstance(value, int) or isinstance(value, bool) or not (value > 0 or value == -1):
        raise UsageError(f"max_tokens must be a whole number above 0, not {value!r}"[:200])
    return None if value == -1 else value


def _stop(value: Any) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(item, str) for item in found):
        raise UsageError("stop must be a text or a list of texts")
    return tuple(item for item in found if item)


def _schema(form: Any, *, supported: bool) -> Mapping[str, Any] | None:
    if form is None or form == {"type": "text"}:
        return None
    if not supported:
        raise UnsupportedError("this model's engine does not support 'response_format'")
    kind = form.get("type") if isinstance(form, dict) else form
    if kind == "json_object":
        schema = form.get("schema", {"type": "object"})
    elif kind == "json_schema" and isinstance(form.get("json_schema"), dict):
        schema = form["json_schema"].get("schema")
    else:
        raise UsageError("response_format must have the type text, json_object or json_schema")
    if not isinstance(schema, dict):
        raise UsageError("response_format has no schema")
    return schema


def _text(prompt: Any) -> str:
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, list) or len(texts) != 1 or not isinstance(texts[0], str):
        raise UsageError("prompt must be one text")
    return texts[0]


def _messages(messages: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise UsageError("messages must be a list of objects with role and content")
    return tuple(message | {"content": _content(message.get("content"))} for message in messages)


def _content(content: Any) -> str:
    """Join the parts of a message; pictures and sounds are refused."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise UnsupportedError(f"this model's engine takes text only, no {kind}"[:200])
    return "".join(part["text"] for part in parts)
