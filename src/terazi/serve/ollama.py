"""Ollama's API for asking models: chat, generate, embed; translated to and from llama.cpp's server.

Shapes: https://github.com/ollama/ollama/blob/main/docs/api.md. Unlike Ollama, nothing is cut silently: a
prompt that does not fit the context is an error.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from terazi.errors import EngineError, TeraziError
from terazi.serve.errors import RequestError, status_of
from terazi.serve.http import Answer, Head, client_of, read_json
from terazi.serve.metrics import Watch
from terazi.serve.prepare import check_tools, fill_in, sampling

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from starlette.requests import Request

    from terazi.registry import Entry
    from terazi.serve.gateway import Gateway
    from terazi.serve.pool import Loaded
    from terazi.serve.upstream import Reply

__all__ = ["error_body", "failure", "json_line", "keep_alive_seconds", "now", "routes"]

LINES = "application/x-ndjson"
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def error_body(status: int, code: str, message: str) -> bytes:
    """Return an error in Ollama's shape."""
    return json_line({"error": message})


def json_line(value: Any) -> bytes:
    """Return one line of newline-delimited JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def failure(error: Exception) -> Response:
    """Return the answer for a request that failed before it reached a model."""
    status, code, message = status_of(error)
    return Response(error_body(status, code, message), status, media_type="application/json")


def now() -> str:
    """Return the time in Ollama's form."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def keep_alive_seconds(value: Any) -> float | None:
    """Read ``keep_alive``: seconds, or a duration such as ``5m`` or ``1h30m``; None when it is not given."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    text = str(value).strip()
    sign = -1 if text.startswith("-") else 1
    rest, seconds = text.lstrip("+-"), 0.0
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        tail = rest[len(digits) :]
        unit = tail[: len(tail) - len(tail.lstrip("abcdefghijklmnopqrstuvwxyz"))]
        try:
            seconds += float(digits) * _UNITS[unit or "s"]
        except (ValueError, KeyError):
            raise RequestError(f"{value!r} is not a duration such as 5m") from None
        rest = tail[len(unit) :]
    return sign * seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    """A request as both sides see it: what goes to the engine, and how its answer is worded."""

    entry: Entry
    path: str
    body: dict[str, Any]
    stream: bool
    word: Callable[[dict[str, Any]], dict[str, Any]]  # an engine's delta -> Ollama's fields
    context: int = 0
    keep_alive: float | None = None
    started: float = field(default_factory=time.monotonic)


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes that ask models."""

    def answering(prepare: Callable[[Entry, dict[str, Any]], _Ask | Response]) -> Any:
        async def handle(request: Request) -> Response:
            try:
                body = await read_json(request)
                entry = await gateway.entry(body.get("model"))
                asked = prepare(entry, body)
                if isinstance(asked, _Ask):
                    return _answer(gateway, request, asked)
                return await _load_or_unload(gateway, request, entry, body)
            except TeraziError as error:
                return failure(error)

        return handle

    async def embed(request: Request) -> Response:
        try:
            return await _embed(gateway, request)
        except Exception as error:
            return failure(error)

    return [
        Route("/api/chat", answering(_chat), methods=["POST"]),
        Route("/api/generate", answering(_generate), methods=["POST"]),
        Route("/api/embed", embed, methods=["POST"]),
        Route("/api/embeddings", embed, methods=["POST"]),
    ]


_EMPTY = Response()  # asks for loading or unloading only


def _chat(entry: Entry, body: dict[str, Any]) -> _Ask | Response:
    messages = body.get("messages")
    if not messages:
        return _EMPTY
    if not isinstance(messages, list):
        raise RequestError("messages must be a list")
    asked = _common(body) | {"messages": [_message_in(message) for message in messages]}
    if body.get("tools"):
        asked["tools"] = body["tools"]
    return _asked(entry, body, "/v1/chat/completions", fill_in(asked, entry.manifest), _word_chat)


def _generate(entry: Entry, body: dict[str, Any]) -> _Ask | Response:
    prompt = body.get("prompt") or ""
    if not isinstance(prompt, str):
        raise RequestError("prompt must be text")
    if body.get("template"):
        raise RequestError("a template for one request is not supported; make a model with it: terazi create")
    settings = entry.manifest.settings
    if body.get("suffix"):
        asked = sampling(settings.get("parameters", {})) | _common(body)
        asked |= {
            "input_prefix": prompt,
            "input_suffix": body["suffix"],
            "n_predict": asked.pop("max_tokens", -1),
        }
        return _asked(entry, body, "/infill", asked, _word_raw)
    if body.get("raw"):
        asked = sampling(settings.get("parameters", {})) | _common(body) | {"prompt": prompt}
        return _asked(entry, body, "/v1/completions", asked, _word_completion)
    if not prompt and not body.get("images"):
        return _EMPTY
    messages = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    messages.append(_message_in({"role": "user", "content": prompt, "images": body.get("images")}))
    asked = fill_in(_common(body) | {"messages": messages}, entry.manifest)
    return _asked(entry, body, "/v1/chat/completions", asked, _word_generate)


def _asked(entry: Entry, body: dict[str, Any], path: str, asked: dict[str, Any], word: Any) -> _Ask:
    context = (body.get("options") or {}).get("num_ctx", 0)
    if not isinstance(context, int) or not 0 <= context < 1 << 24:
        raise RequestError(f"num_ctx {context!r} is not a number of tokens")
    return _Ask(
        entry=entry,
        path=path,
        body=asked | {"model": entry.name, "stream": True, "stream_options": {"include_usage": True}},
        stream=body.get("stream") is not False,
        word=word,
        context=context,
        keep_alive=keep_alive_seconds(body.get("keep_alive")),
    )


def _common(body: dict[str, Any]) -> dict[str, Any]:
    """Fields that chat and generate share, in the engine's words."""
    options = body.get("options") or {}
    if not isinstance(options, dict):
        raise RequestError("options must be an object")
    asked = sampling(options)
    form = body.get("format")
    if form == "json":
        asked["response_format"] = {"type": "json_object"}
    elif isinstance(form, dict):
        asked["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": form}}
    elif form:
        raise RequestError(f"format must be 'json' or a JSON schema, not {form!r}"[:200])
    if body.get("think") is not None:
        asked["chat_template_kwargs"] = {"enable_thinking": bool(body["think"])}
    if body.get("logprobs"):
        asked |= {"logprobs": True, "top_logprobs": body.get("top_logprobs") or 0}
    return asked


def _message_in(message: Any) -> dict[str, Any]:
    """Translate one of Ollama's messages to OpenAI's form."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestError("each message needs a role and content")
    made: dict[str, Any] = {"role": message["role"], "content": message.get("content") or ""}
    if images := message.get("images"):
        pictures = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images]
        made["content"] = [{"type": "text", "text": made["content"]}, *pictures]
    if calls := message.get("tool_calls"):
        made["tool_calls"] = [
            {
                "id": call.get("id") or f"call_{number}",
                "type": "function",
                "function": {
                    "name": call["function"]["name"],
                    "arguments": json.dumps(call["function"].get("arguments") or {}),
                },
            }
            for number, call in enumerate(calls)
        ]
    if message["role"] == "tool":
        made["tool_call_id"] = message.get("tool_call_id") or message.get("tool_name") or "call_0"
    return made


def _data_url(image: Any) -> str:
    text = str(image)
    return text if text.startswith("data:") else f"data:image/png;base64,{text}"


def _word_chat(delta: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": delta.get("content") or ""}
    if delta.get("reasoning_content"):
        message["thinking"] = delta["reasoning_content"]
    if calls := delta.get("tool_calls"):
        message["tool_calls"] = calls
    return {"message": message}


def _word_generate(delta: dict[str, Any]) -> dict[str, Any]:
    thinking = {"thinking": delta["reasoning_content"]} if delta.get("reasoning_content") else {}
    return {"response": delta.get("content") or "", **thinking}


def _word_completion(delta: dict[str, Any]) -> dict[str, Any]:
    return {"response": delta.get("text") or ""}


def _word_raw(delta: dict[str, Any]) -> dict[str, Any]:
    return {"response": delta.get("content") or ""}


def _answer(gateway: Gateway, request: Request, ask: _Ask) -> Answer:
    watch = Watch(gateway.metrics, ask.entry.name, request.url.path, ask.body)

    async def produce() -> AsyncGenerator[Head | bytes]:
        client = client_of(request)
        use = gateway.pool.use(ask.entry, client=client, context=ask.context, keep_alive=ask.keep_alive)
        async with use as loaded, _engine_answer(loaded, ask) as response:
            if response.status != 200:
                yield Head(response.status, "application/json")
                yield json_line({"error": await _engine_message(response)})
                return
            yield Head(200, LINES if ask.stream else "application/json")
            whole = _Whole()
            async for event in _events(response):
                watch.token()
                if (line := whole.take(event, ask)) and ask.stream:
                    yield json_line(_stamped(ask, line))
            end = whole.end(ask, loaded)
            watch.timings(whole.timings)
            yield json_line(_stamped(ask, end if ask.stream else whole.joined(end)))

    return Answer(produce(), explain=error_body, late=error_body, ended=watch.end)


def _engine_answer(loaded: Loaded, ask: _Ask) -> AbstractAsyncContextManager[Reply]:
    check_tools(ask.body, loaded)
    return loaded.engine.ask(ask.path, ask.body)


def _stamped(ask: _Ask, fields: dict[str, Any]) -> dict[str, Any]:
    return {"model": ask.entry.name, "created_at": now(), "done": False, **fields}


@dataclass(slots=True)
class _Whole:
    """An answer as it comes together: text so far, tool calls in pieces, numbers at the end."""

    pieces: list[dict[str, Any]] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    reason: str = "stop"
    timings: dict[str, Any] = field(default_factory=dict)

    def take(self, event: dict[str, Any], ask: _Ask) -> dict[str, Any] | None:
        """Take one of the engine's events; returns what is to be told now."""
        if "error" in event:
            raise EngineError(str(event["error"].get("message", "the engine failed")))
        self.timings = event.get("timings") or self.timings
        choice = next(iter(event.get("choices") or ()), None)
        if choice is None and "content" not in event:
            return None
        delta = event if choice is None else choice.get("delta", choice)
        if choice and choice.get("finish_reason"):
            self.reason = "length" if choice["finish_reason"] == "length" else "stop"
        if event.get("stop_type") == "limit":
            self.reason = "length"
        for call in delta.get("tool_calls") or ():
            known = self.calls.setdefault(call.get("index", 0), {"name": "", "arguments": ""})
            known["name"] += call.get("function", {}).get("name") or ""
            known["arguments"] += call.get("function", {}).get("arguments") or ""
        if not (delta.get("content") or delta.get("text") or delta.get("reasoning_content")):
            return None
        line = ask.word({key: value for key, value in delta.items() if key != "tool_calls"})
        if choice and choice.get("logprobs"):
            line["logprobs"] = choice["logprobs"].get("content")
        self.pieces.append(line)
        return line

    def end(self, ask: _Ask, loaded: Loaded) -> dict[str, Any]:
        """Return the last line: tool calls, why it ended, and the numbers."""
        calls = [{"function": {"name": c["name"], "arguments": _arguments(c)}} for c in self.calls.values()]
        last = ask.word({"tool_calls": calls} if calls else {})
        timings = self.timings
        prompt_ms, eval_ms = timings.get("prompt_ms", 0), timings.get("predicted_ms", 0)
        return last | {
            "done": True,
            "done_reason": self.reason,
            "total_duration": _nanoseconds(time.monotonic() - ask.started),
            "load_duration": _nanoseconds(loaded.load_since(ask.started)),
            "prompt_eval_count": timings.get("prompt_n", 0) + timings.get("cache_n", 0),
            "prompt_eval_duration": int(prompt_ms * 1e6),
            "eval_count": timings.get("predicted_n", 0),
            "eval_duration": int(eval_ms * 1e6),
        }

    def joined(self, end: dict[str, Any]) -> dict[str, Any]:
        """Return the whole answer as one object."""
        for piece in reversed(self.pieces):
            for key in ("response", "thinking"):
                if key in piece:
                    end[key] = piece[key] + end.get(key, "")
            if "message" in piece:
                for key in ("content", "thinking"):
                    if key in piece["message"]:
                        end["message"][key] = piece["message"][key] + end["message"].get(key, "")
        if logprobs := [entry for piece in self.pieces for entry in piece.get("logprobs") or ()]:
            end["logprobs"] = logprobs
        return end


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _arguments(call: dict[str, Any]) -> Any:
    try:
        return json.loads(call["arguments"] or "{}")
    except ValueError:
        return {"text": call["arguments"]}


async def _events(response: Reply) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events."""
    async for line in response.lines():
        if line.startswith(("data: {", "error: {")):
            value = json.loads(line.partition(": ")[2])
            yield {"error": value} if line.startswith("error") else value


async def _engine_message(response: Reply) -> str:
    try:
        return str(json.loads(await response.body())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the engine answers with status {response.status}"


async def _load_or_unload(gateway: Gateway, request: Request, entry: Entry, body: dict[str, Any]) -> Response:
    keep_alive = keep_alive_seconds(body.get("keep_alive"))
    empty = (
        {"message": {"role": "assistant", "content": ""}} if "chat" in request.url.path else {"response": ""}
    )
    if keep_alive == 0:
        await gateway.pool.unload(entry)
        reason = "unload"
    else:
        async with gateway.pool.use(entry, client=client_of(request), keep_alive=keep_alive):
            reason = "load"
    done = {"model": entry.name, "created_at": now(), "done": True, "done_reason": reason}
    return JSONResponse(empty | done)


async def _embed(gateway: Gateway, request: Request) -> Response:
    body = await read_json(request)
    entry = await gateway.entry(body.get("model"))
    single = request.url.path == "/api/embeddings"
    texts = body.get("prompt" if single else "input", "")
    started = time.monotonic()
    watch = Watch(gateway.metrics, entry.name, request.url.path, body)
    status = 200
    use = gateway.pool.use(
        entry,
        client=client_of(request),
        embedding=True,
        keep_alive=keep_alive_seconds(body.get("keep_alive")),
    )
    try:
        async with (
            use as loaded,
            loaded.engine.ask("/v1/embeddings", {"input": texts, "model": entry.name}) as asked,
        ):
            if asked.status != 200:
                raise RequestError(await _engine_message(asked), status=asked.status)
            answer = json.loads(await asked.body())
        vectors = [row["embedding"] for row in sorted(answer["data"], key=lambda row: row["index"])]
        if dimensions := body.get("dimensions"):
            vectors = [_shortened(vector, int(dimensions)) for vector in vectors]
    except Exception as error:
        status = status_of(error)[0]
        raise
    finally:
        watch.end(status)
    watch.timings(None, answer.get("usage"))
    if single:
        return JSONResponse({"embedding": vectors[0]})
    return JSONResponse(
        {
            "model": entry.name,
            "embeddings": vectors,
            "total_duration": _nanoseconds(time.monotonic() - started),
            "load_duration": _nanoseconds(loaded.load_since(started)),
            "prompt_eval_count": answer.get("usage", {}).get("prompt_tokens", 0),
        }
    )


def _shortened(vector: list[float], dimensions: int) -> list[float]:
    """Keep the first dimensions, at length one again (for models trained for it)."""
    kept = vector[: max(dimensions, 1)]
    length = math.sqrt(sum(value * value for value in kept)) or 1.0
    return [value / length for value in kept]
