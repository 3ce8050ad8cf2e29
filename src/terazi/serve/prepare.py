"""Requests as the engine gets them: the model's own settings filled in, what could harm refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from terazi.serve.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from terazi.registry import Manifest
    from terazi.serve.pool import Loaded

__all__ = ["OPTIONS", "check_tools", "fill_in", "sampling"]

# Ollama's option or Modelfile PARAMETER -> llama.cpp's field. What only concerns loading is not here.
OPTIONS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "seed": "seed",
    "num_predict": "max_tokens",
    "stop": "stop",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
    "num_keep": "n_keep",
}


def sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """Translate Ollama's options to llama.cpp's fields."""
    fields = {OPTIONS[name]: value for name, value in options.items() if name in OPTIONS}
    if isinstance(fields.get("max_tokens"), int) and fields["max_tokens"] < 0:
        del fields["max_tokens"]  # -1 and -2: as long as there is context
    return fields


def fill_in(body: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
    """Return a chat request with the model's parameters, system prompt and example messages filled in.

    What the request says itself wins. Raises `RequestError` for messages that are none, and for pictures that
    the engine would have to fetch from somewhere or that the model cannot see.
    """
    settings = manifest.settings
    sees = any(file.role == "projector" for file in manifest.files)
    for message in body["input"] if isinstance(body.get("input"), list) else ():  # of /v1/responses
        if isinstance(message, dict):
            _check_parts(message.get("content"), sees)
    filled = sampling(settings.get("parameters", {})) | body
    messages = filled.get("messages")
    if messages is None:
        return filled
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise RequestError("messages must be a list of objects with role and content")
    for message in messages:
        _check_parts(message.get("content"), sees)
    has_system = any(message.get("role") == "system" for message in messages)
    before: list[dict[str, Any]] = []
    if settings.get("system") and not has_system:
        before.append({"role": "system", "content": settings["system"]})
    if settings.get("messages"):
        systems = [message for message in messages if message.get("role") == "system"]
        messages = [message for message in messages if message.get("role") != "system"]
        before += [*systems, *settings["messages"]]
    filled["messages"] = before + messages
    return filled


def check_tools(body: dict[str, Any], loaded: Loaded) -> None:
    """Raise `RequestError` for tools that the model would never hear of."""
    if body.get("tools") and body.get("tool_choice") != "none" and not loaded.tools:
        raise RequestError(
            f"{loaded.entry.name} does not support tools: its chat template has no place for them "
            "(a Modelfile can give it another TEMPLATE)"
        )


def _check_parts(content: Any, sees: bool) -> None:
    """Refuse addresses, which the engine would fetch from inside this network, and what nothing can see."""
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            raise RequestError("a message's parts must be objects")
        for kind in ("image_url", "input_audio", "video_url"):
            source = part.get(kind)
            address = source.get("url") if isinstance(source, dict) else source
            if kind.endswith("_url") and kind in part and not str(address).startswith("data:"):
                raise RequestError("pictures must be sent in the request, as data:image/…;base64,…")
            if kind in part and not sees:
                raise RequestError("this model takes no pictures or sound: it was stored without a projector")
